"""The bridge device of a network: made, completed, adopted, looked at, removed.

A device that we made says so in its alias, ``stowage-<root id> <network id>``; that mark, and
never the name, decides whether it may be deleted.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterator, Sequence
from ipaddress import ip_interface

from stowage.errors import FailedPrecondition, InvalidArgument
from stowage.linux.netlink import Message, Netlink, NetlinkError
from stowage.linux.rtnetlink import (
    Link,
    add_address,
    create_bridge,
    delete_address,
    delete_link,
    find_link,
    read_addresses,
    read_links,
    read_routes,
    set_link,
)
from stowage.model import Interface, Network

from . import _sysctl
from ._bridge_settings import BridgeSettings

DEFAULT_MTU = 1500
_MARK = "stowage-"


def mark(root_id: str, network_id: str = "") -> str:
    """The alias of a device that this root made for a network (or its beginning)."""
    return f"{_MARK}{root_id} {network_id}"


def gateways(network: Network, settings: BridgeSettings) -> list[Interface]:
    """Return the addresses that the bridge has: one per subnet with a gateway."""
    return [
        ip_interface(f"{pool.gateway}/{pool.subnet.prefixlen}")
        for pool in network.pools
        if pool.gateway is not None and not (settings.inhibit_ipv4 and pool.gateway.version == 4)
    ]


def route_mtu(netlink: Netlink) -> int:
    """Return the MTU of the link that the default route leads to, in bytes."""
    defaults = [route for route in read_routes(netlink) if route.destination.prefixlen == 0]
    by_index = {link.index: link for link in read_links(netlink)} if defaults else {}
    for route in sorted(defaults, key=lambda route: route.destination.version):
        if route.device in by_index:
            return by_index[route.device].mtu
    return DEFAULT_MTU


def ensure(netlink: Netlink, root_id: str, network: Network, settings: BridgeSettings) -> Link:
    """Return the network's device, made or completed as far as needed. Idempotent.

    Raises:
        FailedPrecondition: if the device is somebody else's.
        InvalidArgument: if it is no bridge.
    """
    link = find_link(netlink, settings.device)
    if link is None:
        link = _create(netlink, root_id, network, settings)
    owned = link.alias.startswith(mark(root_id))
    if not owned:
        _check_adoptable(link, settings)
    _set_addresses(netlink, link, gateways(network, settings), owned=owned)
    if not link.up:
        netlink.change("link.up", [set_link(link.name, up=True)], link=link.name)
    _set_sysctls(network, settings)
    return link


def _create(netlink: Netlink, root_id: str, network: Network, settings: BridgeSettings) -> Link:
    name = settings.device
    # A fixed address: the kernel's own choice changes with the ports, and neighbours lose it.
    mac_address = "02:42:" + hashlib.sha256(network.id.encode()).digest()[:4].hex(":")
    mtu = settings.mtu_bytes or route_mtu(netlink)
    messages = [
        create_bridge(name, mtu=mtu, mac_address=mac_address),
        set_link(name, alias=mark(root_id, network.id)),
    ]
    try:
        netlink.change("bridge.create", messages, link=name)
    except NetlinkError as error:
        if error.errno != errno.EEXIST or error.index != 0:
            raise
    link = find_link(netlink, name)
    if link is None:
        raise FailedPrecondition(f"the bridge {name} was deleted while it was being made")
    return link


def _check_adoptable(link: Link, settings: BridgeSettings) -> None:
    if link.alias.startswith(_MARK):
        owner = link.alias.removeprefix(_MARK).split(" ")[0]
        raise FailedPrecondition(
            f"the device {link.name} belongs to the root {owner}",
            details=f"its alias is {link.alias!r}",
            resolution="name another one with bridge-name, and another subnet with bip",
        )
    if link.kind != "bridge":
        raise InvalidArgument(
            f"the device {link.name} exists and is no bridge",
            details=f"it is a {link.kind or 'network'} device",
            resolution="name another one",
        )
    if not settings.explicit:
        raise FailedPrecondition(
            f"the device {link.name} exists already",
            details="it was not made by this root",
            resolution="delete it, or name it to use it: -o com.docker.network.bridge.name=…",
        )


def _set_addresses(
    netlink: Netlink, link: Link, wanted: Sequence[Interface], *, owned: bool
) -> None:
    """Give the device what it lacks; on one of ours, take away what is not wanted."""
    there = set(read_addresses(netlink, link.index))
    messages: list[Message] = [
        add_address(link.index, interface) for interface in wanted if interface not in there
    ]
    if owned:
        extra = [i for i in there - set(wanted) if not i.ip.is_link_local]
        messages += [delete_address(link.index, interface) for interface in extra]
    if messages:
        netlink.change("bridge.address", messages, link=link.name)


def filters_bridged() -> bool:
    """Whether bridged packets pass the forward hooks here (br_netfilter, as Docker sets it).

    Then a published port of a peer is redirected within the bridge: it needs hairpin ports,
    and isolated ports would cut it off.
    """
    return all(
        _sysctl.read(f"bridge/bridge-nf-call-{tables}") == "1"
        for tables in ("iptables", "ip6tables")
    )


def isolates(settings: BridgeSettings) -> bool:
    """Whether the ports of a network are isolated from each other by the bridge itself.

    Without icc they are, unless the forward hook sees and drops what passes between them.
    """
    return not settings.icc and not filters_bridged()


def _set_sysctls(network: Network, settings: BridgeSettings) -> None:
    for name, value in _sysctls(network, settings):
        if name.startswith("ipv6/"):
            _sysctl.write_optional(name, value)
        else:
            _sysctl.write(name, value)


def _sysctls(network: Network, settings: BridgeSettings) -> Iterator[tuple[str, str]]:
    """Yield (name, value) of what must hold, on the network's own device alone."""
    four, six = (f"ipv{version}/conf/{settings.device}" for version in (4, 6))
    # so that 127.0.0.1:PORT of the host can be sent on; containers cannot use it (chain guard)
    yield f"{four}/route_localnet", "0" if settings.firewall.internal else "1"
    # without icc, ports are isolated: what a link allows goes by way of the bridge's address
    yield f"{four}/proxy_arp_pvlan", "0" if settings.icc else "1"
    if not settings.icc:
        yield f"{four}/send_redirects", "0"
        yield f"ipv4/neigh/{settings.device}/proxy_delay", "0"
    if any(pool.subnet.version == 6 for pool in network.pools):
        yield f"{six}/disable_ipv6", "0"
        yield f"{six}/accept_dad", "0"
    yield f"{six}/accept_ra", "0"


def check(netlink: Netlink, root_id: str, network: Network, settings: BridgeSettings) -> list[str]:
    """Return in words what the device lacks."""
    link = find_link(netlink, settings.device)
    if link is None:
        return [f"the bridge {settings.device} is missing"]
    found = []
    if not link.up:
        found.append(f"the bridge {link.name} is down")
    if settings.mtu_bytes and link.mtu != settings.mtu_bytes:
        found.append(f"the bridge {link.name} has MTU {link.mtu}, not {settings.mtu_bytes}")
    there = set(read_addresses(netlink, link.index))
    for interface in gateways(network, settings):
        if interface not in there:
            found.append(f"the bridge {link.name} lacks the address {interface}")
    if link.alias.startswith(mark(root_id)):
        for interface in there - set(gateways(network, settings)):
            if not interface.ip.is_link_local:
                found.append(f"the bridge {link.name} has the address {interface} too many")
    for name, value in _sysctls(network, settings):
        actual = _sysctl.read(name)
        if actual not in (None, value):
            found.append(f"net.{name.replace('/', '.')} is {actual}, not {value}")
    return found


def delete(netlink: Netlink, root_id: str, settings: BridgeSettings) -> None:
    """Delete the device if this root made it. Idempotent."""
    link = find_link(netlink, settings.device)
    if link is None or not link.alias.startswith(mark(root_id)):
        return
    failures = netlink.try_each("bridge.delete", [delete_link(link.name)], link=link.name)
    for _, number in failures:
        if number != errno.ENODEV:
            raise NetlinkError(number, f"delete {link.name}", "", 0)
