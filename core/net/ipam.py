"""IPAM: which subnet a network gets, and which addresses its endpoints get.

Rules (libnetwork's, made exact):

- pools never overlap each other, nor a route of the host that is on-link; asked for or chosen;
- a pool without a subnet is the first free one among the default pools, of the size asked for;
- an address is the lowest free one of the pool's range; network and broadcast addresses (the
  subnet-router anycast address in IPv6), the gateway and the auxiliary addresses are never given
  out; a /31 or /127 has two addresses and a /32 or /128 one (RFC 3021);
- it is exhausted exactly when every address is taken.

The search is arithmetic over counts, never a walk over a subnet, so a /8 of IPv6 costs what a
/24 of IPv4 does. What is taken is in the metastore; every function that takes *tx* works inside
the caller's transaction, and the primary key of ``addresses`` makes a second owner impossible.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network
from typing import Any

from msgspec import Struct, field

from ..config_types import AddressPool
from ..errors import FailedPrecondition, InvalidArgument, NoSpace
from ..model import Address, Interface, Pool, Subnet

DOCKER_POOLS: tuple[AddressPool, ...] = (
    *(AddressPool(IPv4Network(f"172.{second}.0.0/16"), 16) for second in range(17, 32)),
    AddressPool(IPv4Network("192.168.0.0/16"), 20),
)
"""The 31 subnets of Docker, in its order."""

#: The name under which Docker records a way out that is not the bridge's own address.
DEFAULT_GATEWAY = {4: "DefaultGatewayIPv4", 6: "DefaultGatewayIPv6"}
_RANGE_WORD = {4: "IPv4", 6: "IPv6"}


class Claim(Struct, frozen=True):
    """A subnet that is taken; *holder* says by whom, for the error."""

    subnet: Subnet
    holder: str


class PoolRequest(Struct, frozen=True):
    """What was asked of one pool.

    Without *subnet*, or with the unspecified address as its base (``0.0.0.0/26``: only the size
    counts), the subnet is chosen. *gateway* None means the lowest address.
    """

    version: int = 4
    subnet: Subnet | None = None
    ip_range: Subnet | None = None
    gateway: Address | None = None
    auxiliary: Mapping[str, Address] = field(default_factory=dict)

    @property
    def size_hint(self) -> int | None:
        """The prefix length that is asked for, when nothing else is."""
        unspecified = self.subnet is not None and self.subnet.network_address.is_unspecified
        return self.subnet.prefixlen if self.subnet is not None and unspecified else None


def parse_subnet(text: str) -> Subnet:
    """Return the subnet that *text* names.

    Raises:
        InvalidArgument: in Docker's words, also where host bits are set.
    """
    address, slash, _ = text.partition("/")
    try:
        if not slash:
            raise ValueError
        network = ip_network(text, strict=False)
    except ValueError:
        raise InvalidArgument(f"Invalid subnet {text} : invalid CIDR address: {text}") from None
    if ip_address(address) != network.network_address:
        raise InvalidArgument(f"invalid subnet {text}: it should be {network}")
    return network


def ula_pool(seed: str) -> AddressPool:
    """Return the /48 of unique local addresses (RFC 4193) of a host, for networks of /64."""
    digest = hashlib.sha256(seed.encode()).digest()[:5]
    return AddressPool(IPv6Network((b"\xfd" + digest + bytes(10), 48)), 64)


# --- pools --------------------------------------------------------------------------------------


def plan_pools(
    requests: Sequence[PoolRequest],
    claims: Iterable[Claim],
    *,
    defaults: Sequence[AddressPool] = DOCKER_POOLS,
    avoid: Iterable[Claim] = (),
) -> tuple[Pool, ...]:
    """Return a pool for each request, none overlapping another or one of *claims*.

    *avoid* counts for subnets that are chosen, not for those that are asked for.

    Raises:
        InvalidArgument: for an overlap, naming the holder; for a range, gateway or auxiliary
            address that lies outside.
        NoSpace: if the default pools are used up.
    """
    held = list(claims)
    avoided = list(avoid)
    pools = []
    for request in requests:
        if request.subnet is None or request.size_hint is not None:
            subnet = _choose(request, [*held, *avoided], defaults)
        else:
            subnet = request.subnet
            _refuse_overlap(subnet, held)
        held.append(Claim(subnet, "another subnet of the same network"))
        pools.append(_complete(request, subnet))
    return tuple(pools)


def _refuse_overlap(subnet: Subnet, held: Sequence[Claim]) -> None:
    holders = [
        f"{claim.subnet}, {claim.holder}" for claim in held if _overlap(subnet, claim.subnet)
    ]
    if holders:
        raise InvalidArgument(
            "Pool overlaps with other one on this address space",
            details="\n".join(f"{subnet} overlaps {holder}" for holder in holders),
            resolution="choose another subnet, or none to have one chosen",
        )


def _overlap(one: Subnet, other: Subnet) -> bool:
    return one.version == other.version and one.overlaps(other)


def _choose(request: PoolRequest, held: Sequence[Claim], defaults: Sequence[AddressPool]) -> Subnet:
    version = request.subnet.version if request.subnet is not None else request.version
    for pool in defaults:
        if pool.base.version != version:
            continue
        length = pool.prefix_length if request.size_hint is None else request.size_hint
        if length < pool.base.prefixlen:
            continue
        found = _first_fit(pool.base, length, [claim.subnet for claim in held])
        if found is not None:
            return found
    raise NoSpace(
        f"could not find an available, non-overlapping {_RANGE_WORD[version]} address pool among"
        " the defaults to assign to the network",
        details="; ".join(f"{c.subnet} is {c.holder}" for c in held if c.subnet.version == version)
        or None,
        resolution="remove networks, widen default-address-pools, or give a --subnet",
    )


def _first_fit(base: Subnet, length: int, held: Sequence[Subnet]) -> Subnet | None:
    """Return the lowest subnet of that length within *base* that overlaps none of *held*."""
    if length > base.max_prefixlen:
        return None
    size = 1 << (base.max_prefixlen - length)
    start, end = int(base.network_address), int(base.broadcast_address) + 1
    taken = sorted(
        (int(other.network_address), int(other.broadcast_address))
        for other in held
        if _overlap(base, other)
    )
    for first, last in taken:
        if start + size <= first:
            break
        if last >= start:
            start = -(-(last + 1) // size) * size  # the next one that begins after it
    if start + size > end:
        return None
    return type(base)((start, length))


def _complete(request: PoolRequest, subnet: Subnet) -> Pool:
    """Check what was asked within the subnet and settle the gateway."""
    if request.ip_range is not None and not _contains(subnet, request.ip_range):
        raise InvalidArgument(f"no matching subnet for range {request.ip_range}")
    if request.gateway is not None and request.gateway not in subnet:
        raise InvalidArgument(f"no matching subnet for gateway {request.gateway}")
    for name, address in request.auxiliary.items():
        if address not in subnet:
            raise InvalidArgument(
                f"no matching subnet for aux-address {address}", details=f"it is called {name!r}"
            )
    pool = Pool(subnet, None, request.ip_range, dict(request.auxiliary))
    gateway = request.gateway
    if gateway is None and subnet.num_addresses > 1:
        gateway = lowest_free(pool, lambda first, last: 0)
    return Pool(subnet, gateway, request.ip_range, dict(request.auxiliary))


def _contains(outer: Subnet, inner: Subnet) -> bool:
    return (
        outer.version == inner.version
        and outer.prefixlen <= inner.prefixlen
        and inner.network_address in outer
    )


def recorded_claims(tx: sqlite3.Connection) -> list[Claim]:
    """Return the subnets of all networks in the metastore, whatever their state."""
    return [
        Claim(pool.subnet, f"network {row['name']!r}")
        for row in tx.execute("SELECT name, config FROM networks ORDER BY name")
        for pool in pools_from_json(json.loads(row["config"]).get("pools", ()))
    ]


# --- addresses ----------------------------------------------------------------------------------

Taken = Callable[[int, int], int]
"""How many addresses between two (both included) have an owner."""


def lowest_free(pool: Pool, taken: Taken, hint: int = 0) -> Address | None:
    """Return the lowest address of the pool's range that may be given out, or None.

    If *hint* is one of the range, none below it is free. By bisection: among the first *n* + 1
    addresses of a range in which *n* are taken, one is free.
    """
    subnet = pool.subnet
    first, last = _bounds(pool)
    if first <= hint <= last:  # else it is of another pool of the network
        first = hint
    reserved = sorted(int(address) for address in _reserved(pool) if first <= int(address) <= last)

    def used(end: int) -> int:
        return taken(first, end) + sum(address <= end for address in reserved)

    if first > last or used(last) >= last - first + 1:
        return None
    low, high = first, min(last, first + used(last))
    while low < high:  # the answer lies in [low, high]
        middle = (low + high) // 2
        if used(middle) == middle - first + 1:
            low = middle + 1
        else:
            high = middle
    return type(subnet.network_address)(low)


def _bounds(pool: Pool) -> tuple[int, int]:
    """Return the first and last number of the range that addresses are chosen from."""
    first, last = usable_bounds(pool.subnet)
    if pool.ip_range is not None:
        first = max(first, int(pool.ip_range.network_address))
        last = min(last, int(pool.ip_range.broadcast_address))
    return first, last


def usable_bounds(subnet: Subnet) -> tuple[int, int]:
    """Return the first and last address that something may have, as numbers."""
    first, last = int(subnet.network_address), int(subnet.broadcast_address)
    if subnet.prefixlen >= subnet.max_prefixlen - 1:
        return first, last
    return first + 1, last - 1 if subnet.version == 4 else last


def _reserved(pool: Pool) -> set[Address]:
    return {*pool.auxiliary.values(), *([pool.gateway] if pool.gateway is not None else [])}


def assign(
    tx: sqlite3.Connection,
    network_id: str,
    endpoint_id: str,
    pools: Sequence[Pool],
    asked: Sequence[Address] = (),
) -> tuple[Interface, ...]:
    """Give an endpoint one address of each pool, those in *asked* where they fit.

    The endpoint's row must exist; its addresses are free again when it is deleted.

    Raises:
        NoSpace: if a pool is exhausted.
        InvalidArgument: for an asked address that lies in no pool or belongs to the subnet.
        FailedPrecondition: if it is in use; says whose it is.
    """
    unplaced = [address for address in asked if not any(address in pool.subnet for pool in pools)]
    if unplaced:
        raise InvalidArgument(
            f"Invalid address {unplaced[0]}: It does not belong to any of this network's subnets",
            details="they are " + ", ".join(str(pool.subnet) for pool in pools) if pools else None,
        )
    given = []
    for pool in pools:
        wanted = next((address for address in asked if address in pool.subnet), None)
        address = wanted if wanted is not None else _next(tx, network_id, pool)
        if wanted is not None:
            _check_asked(tx, network_id, pool, wanted)
        tx.execute(
            "INSERT INTO addresses (network_id, address, endpoint_id) VALUES (?, ?, ?)",
            (network_id, _key(address), endpoint_id),
        )
        given.append(ip_interface(f"{address}/{pool.subnet.prefixlen}"))
    return tuple(given)


def _next(tx: sqlite3.Connection, network_id: str, pool: Pool) -> Address:
    kind = type(pool.subnet.network_address)

    def taken(first: int, last: int) -> int:
        row = tx.execute(
            "SELECT count(*) FROM addresses WHERE network_id = ? AND address BETWEEN ? AND ?",
            (network_id, _key(kind(first)), _key(kind(last))),
        ).fetchone()
        return int(row[0])

    found = lowest_free(pool, taken, _hint(tx, network_id, pool))
    if found is not None:
        tx.execute(
            "INSERT OR REPLACE INTO address_hints (network_id, family, lowest) VALUES (?, ?, ?)",
            (network_id, found.version, _key(found)),
        )
    else:
        where = pool.ip_range or pool.subnet
        first, last = _bounds(pool)
        raise NoSpace(
            "No available addresses on this pool",
            details=f"all addresses of {where} are in use ({max(0, last - first + 1)}, reserved"
            " ones included)",
            resolution="remove containers from the network, or use another with a larger subnet",
        )
    return found


def _hint(tx: sqlite3.Connection, network_id: str, pool: Pool) -> int:
    """Return the number below which nothing is free: so the search does not grow with the fleet.

    It rises with what is given out, and a trigger lowers it when an address is freed.
    """
    row = tx.execute(
        "SELECT lowest FROM address_hints WHERE network_id = ? AND family = ?",
        (network_id, pool.subnet.version),
    ).fetchone()
    return 0 if row is None else int.from_bytes(row[0][1:], "big")


def _check_asked(tx: sqlite3.Connection, network_id: str, pool: Pool, address: Address) -> None:
    first, last = usable_bounds(pool.subnet)
    if not first <= int(address) <= last:
        raise InvalidArgument(
            f"Invalid address {address}: no endpoint can have it",
            details=f"it is the first or the last of {pool.subnet}, which belong to the subnet",
        )
    holder = _holder(tx, network_id, pool, address)
    if holder is not None:
        raise FailedPrecondition("Address already in use", details=f"{address} belongs to {holder}")


def _holder(tx: sqlite3.Connection, network_id: str, pool: Pool, address: Address) -> str | None:
    if address == pool.gateway:
        return "the gateway"
    for name, auxiliary in pool.auxiliary.items():
        if auxiliary == address:
            return f"the auxiliary address {name!r}"
    row = tx.execute(
        "SELECT coalesce(c.name, e.container_id) FROM addresses a"
        " JOIN endpoints e ON e.id = a.endpoint_id LEFT JOIN containers c ON c.id = e.container_id"
        " WHERE a.network_id = ? AND a.address = ?",
        (network_id, _key(address)),
    ).fetchone()
    return None if row is None else f"container {row[0]}"


def release(tx: sqlite3.Connection, endpoint_id: str) -> None:
    """Free the addresses of an endpoint that stays recorded. Idempotent."""
    tx.execute("DELETE FROM addresses WHERE endpoint_id = ?", (endpoint_id,))


def in_use(tx: sqlite3.Connection, network_id: str) -> int:
    """Return how many addresses of a network are given out."""
    row = tx.execute(
        "SELECT count(*) FROM addresses WHERE network_id = ?", (network_id,)
    ).fetchone()
    return int(row[0])


def _key(address: Address) -> bytes:
    """Bytes that sort as addresses do, one family after the other."""
    return bytes([address.version]) + address.packed


def mac_address(addresses: Iterable[Interface]) -> str:
    """Return a MAC address for an endpoint: ``02:42`` and its IPv4 address, as Docker 20.10.

    So who takes over an address takes over its MAC, and no neighbour holds a stale one. Without
    IPv4 it is random.
    """
    for interface in addresses:
        if interface.version == 4:
            return f"02:42:{interface.ip.packed.hex(':')}"
    return f"02:42:{secrets.token_bytes(4).hex(':')}"


def ways_out(pools: Iterable[Pool]) -> tuple[Address, ...]:
    """Return the gateways of endpoints: the bridge's own addresses, or what was named instead."""
    found = []
    for pool in pools:
        gateway = pool.auxiliary.get(DEFAULT_GATEWAY[pool.subnet.version]) or pool.gateway
        if gateway is not None:
            found.append(gateway)
    return tuple(found)


# --- as JSON, in the networks' rows ---------------------------------------------------------------


def pools_to_json(pools: Iterable[Pool]) -> list[dict[str, Any]]:
    """Return pools for a network's ``config``."""
    return [
        {
            "subnet": str(pool.subnet),
            "gateway": None if pool.gateway is None else str(pool.gateway),
            "ip_range": None if pool.ip_range is None else str(pool.ip_range),
            "auxiliary": {name: str(address) for name, address in pool.auxiliary.items()},
        }
        for pool in pools
    ]


def pools_from_json(items: Iterable[Mapping[str, Any]]) -> tuple[Pool, ...]:
    """Read what :func:`pools_to_json` gave."""
    return tuple(_pool(item) for item in items)


def _pool(item: Mapping[str, Any]) -> Pool:
    gateway, ip_range = item.get("gateway"), item.get("ip_range")
    return Pool(
        ip_network(item["subnet"]),
        ip_address(gateway) if gateway else None,
        ip_network(ip_range) if ip_range else None,
        {name: ip_address(text) for name, text in item.get("auxiliary", {}).items()},
    )


# --- what the host holds --------------------------------------------------------------------------


def on_link_claims(ignored: Iterable[str] = ()) -> list[Claim]:
    """Return the subnets that the host reaches without a gateway, but for devices in *ignored*.

    Default routes and the halves of one (a VPN's ``0.0.0.0/1``) claim nothing. Read in the
    calling thread's network namespace.
    """
    from ..linux.netlink import Netlink
    from ..linux.rtnetlink import read_links, read_routes

    with Netlink() as netlink:
        names = {link.index: link.name for link in read_links(netlink)}
        routes = read_routes(netlink)
    return [
        Claim(route.destination, f"a route of the host to the device {device}")
        for route in routes
        if route.gateway is None
        and route.destination.prefixlen > 1
        and not route.destination.is_link_local
        and not route.destination.is_multicast
        and (device := names.get(route.device, "?")) not in ignored
    ]


def nameserver_claims(nameservers: Iterable[Address]) -> Iterator[Claim]:
    """Yield the host's name servers, which no chosen subnet may hide."""
    for address in nameservers:
        yield Claim(ip_network(address), "a name server of the host")
