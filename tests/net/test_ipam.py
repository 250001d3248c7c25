"""IPAM against a naive model: what it gives, what it refuses, and when it is exhausted."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowage.config_types import AddressPool
from stowage.errors import FailedPrecondition, InvalidArgument, NoSpace
from stowage.linux.namespaces import in_network_namespace, new_network_namespace
from stowage.linux.netlink import Netlink
from stowage.linux.rtnetlink import add_address, add_route, create_bridge, find_link
from stowage.model import Address, Pool, Subnet
from stowage.net import ipam
from stowage.net.ipam import Claim, PoolRequest, assign, lowest_free, parse_subnet, plan_pools
from stowage.store.metastore import Metastore
from stowage.store.schema import migrate

NETWORK = "n" * 64


# --- the model: sets and walks, no arithmetic -------------------------------------------------


def model_usable(pool: Pool) -> list[int]:
    """Every address that may be given out, by walking the subnet."""
    numbers = [int(address) for address in pool.subnet]
    if len(numbers) > 2:
        numbers = numbers[1:-1] if pool.subnet.version == 4 else numbers[1:]
    reserved = {int(address) for address in pool.auxiliary.values()}
    if pool.gateway is not None:
        reserved.add(int(pool.gateway))
    within = pool.ip_range or pool.subnet
    kind = IPv4Address if pool.subnet.version == 4 else IPv6Address
    return [n for n in numbers if n not in reserved and kind(n) in within]


@st.composite
def small_pools(draw: st.DrawFn) -> Pool:
    version = draw(st.sampled_from([4, 6]))
    width = 32 if version == 4 else 128
    length = draw(st.integers(width - 5, width))
    base = ip_network(("10.9.8.0" if version == 4 else "fd00::") + f"/{width - 8}")
    subnets: list[Subnet] = list(base.subnets(new_prefix=length))
    subnet: Subnet = draw(st.sampled_from(subnets[:4] + subnets[-4:]))
    addresses: list[Address] = list(subnet)
    gateway = draw(st.none() | st.sampled_from(addresses))
    auxiliary = draw(st.lists(st.sampled_from(addresses), max_size=2))
    ranges: list[Subnet] = list(subnet.subnets(new_prefix=draw(st.integers(length, width))))
    ip_range = draw(st.none() | st.sampled_from(ranges))
    names = {f"aux{number}": address for number, address in enumerate(auxiliary)}
    return Pool(subnet, gateway, ip_range, names)


@given(small_pools(), st.data())
def test_the_lowest_free_address_is_the_models(pool: Pool, data: st.DataObject) -> None:
    usable = model_usable(pool)
    taken = data.draw(st.sets(st.sampled_from(usable))) if usable else set()
    # a static address outside the range counts nowhere else
    outside = data.draw(st.sets(st.sampled_from([int(a) for a in pool.subnet])))
    taken |= outside - set(map(int, ipam._reserved(pool)))

    found = lowest_free(pool, lambda first, last: sum(first <= n <= last for n in taken))

    assert (None if found is None else int(found)) == min(set(usable) - taken, default=None)


def test_a_huge_pool_costs_a_few_questions() -> None:
    asked = []

    def taken(first: int, last: int) -> int:
        asked.append((first, last))
        return min(last - first + 1, 1_000_000)

    found = lowest_free(Pool(ip_network("fd00::/8")), taken)

    assert found == ip_network("fd00::/8").network_address + 1_000_001
    assert len(asked) < 30


# --- pools -------------------------------------------------------------------------------------

DEFAULTS = (AddressPool(ip_network("10.0.0.0/28"), 30), AddressPool(ip_network("10.0.1.0/28"), 31))


def model_first_fit(held: Sequence[Subnet]) -> Subnet | None:
    for pool in DEFAULTS:
        for candidate in pool.base.subnets(new_prefix=pool.prefix_length):
            if not any(candidate.overlaps(other) for other in held):
                return candidate
    return None


FOURS = st.builds(
    lambda number, length: ip_network((0x0A000000 + number, length), strict=False),
    st.integers(0, 0x1FF),
    st.integers(26, 32),
)


@given(st.lists(FOURS, max_size=8))
def test_the_first_free_default_pool_is_chosen_until_none_is_left(held: list[Subnet]) -> None:
    claims = [Claim(subnet, "x") for subnet in held]
    while (wanted := model_first_fit([claim.subnet for claim in claims])) is not None:
        (pool,) = plan_pools([PoolRequest()], claims, defaults=DEFAULTS)
        assert pool.subnet == wanted
        claims.append(Claim(pool.subnet, "y"))

    with pytest.raises(NoSpace, match="could not find an available, non-overlapping IPv4 address"):
        plan_pools([PoolRequest()], claims, defaults=DEFAULTS)


@given(FOURS, st.lists(FOURS, max_size=5))
def test_an_asked_subnet_is_given_unless_it_overlaps(wanted: Subnet, held: list[Subnet]) -> None:
    claims = [Claim(subnet, f"network {number}") for number, subnet in enumerate(held)]
    overlapping = [claim for claim in claims if wanted.overlaps(claim.subnet)]
    request = PoolRequest(subnet=wanted)
    if not overlapping:
        assert plan_pools([request], claims)[0].subnet == wanted
        return
    with pytest.raises(InvalidArgument, match="Pool overlaps with other one") as caught:
        plan_pools([request], claims)
    assert all(claim.holder in str(caught.value) for claim in overlapping)


def test_docker_has_31_default_networks() -> None:
    claims: list[Claim] = []
    for _ in range(31):
        (pool,) = plan_pools([PoolRequest()], claims)
        claims.append(Claim(pool.subnet, "network"))

    assert claims[0].subnet == ip_network("172.17.0.0/16")
    assert claims[15].subnet == ip_network("192.168.0.0/20")
    with pytest.raises(NoSpace):
        plan_pools([PoolRequest()], claims)


@pytest.mark.parametrize(
    ("hint", "number"),
    [("0.0.0.0/26", 0), ("0.0.0.0/17", 0), ("::/80", -1)],
)
def test_a_size_hint_chooses_within_the_default_pools(hint: str, number: int) -> None:
    defaults = (*ipam.DOCKER_POOLS, ipam.ula_pool("seed"))
    base = defaults[number].base

    (pool,) = plan_pools([PoolRequest(subnet=ip_network(hint))], (), defaults=defaults)

    assert pool.subnet == next(base.subnets(new_prefix=ip_network(hint).prefixlen))


def test_a_size_that_no_default_pool_has_is_refused() -> None:
    with pytest.raises(NoSpace, match="among the defaults"):
        plan_pools([PoolRequest(subnet=ip_network("0.0.0.0/8"))], ())


def test_name_servers_are_avoided_by_choice_alone() -> None:
    avoid = [*ipam.nameserver_claims([ip_address("172.17.3.4")])]

    chosen = plan_pools([PoolRequest()], (), avoid=avoid)
    asked = plan_pools([PoolRequest(subnet=ip_network("172.17.0.0/16"))], (), avoid=avoid)

    assert chosen[0].subnet == ip_network("172.18.0.0/16")
    assert asked[0].subnet == ip_network("172.17.0.0/16")


def test_subnets_of_one_request_do_not_overlap_each_other() -> None:
    asked = PoolRequest(subnet=ip_network("10.0.0.0/24"))
    with pytest.raises(InvalidArgument, match="another subnet of the same network"):
        plan_pools([asked, PoolRequest(subnet=ip_network("10.0.0.0/25"))], ())


@pytest.mark.parametrize(
    ("subnet", "ip_range", "gateway"),
    [
        ("10.1.0.0/24", None, "10.1.0.1"),
        ("10.1.0.0/16", "10.1.5.0/24", "10.1.5.0"),
        ("10.1.0.0/31", None, "10.1.0.0"),
        ("10.1.0.0/32", None, None),
        ("fd00::/64", None, "fd00::1"),
        ("fd00::/8", None, "fd00::1"),
        ("fd00::/127", None, "fd00::"),
        ("fd00::5/128", None, None),
    ],
)
def test_the_gateway_is_the_lowest_address(
    subnet: str, ip_range: str | None, gateway: str | None
) -> None:
    request = PoolRequest(
        subnet=ip_network(subnet), ip_range=ip_network(ip_range) if ip_range else None
    )

    (pool,) = plan_pools([request], ())

    assert pool.gateway == (ip_address(gateway) if gateway else None)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"gateway": ip_address("10.2.0.1")}, "no matching subnet for gateway 10.2.0.1"),
        ({"ip_range": ip_network("10.2.0.0/25")}, "no matching subnet for range 10.2.0.0/25"),
        ({"auxiliary": {"a": ip_address("10.2.0.1")}}, "no matching subnet for aux-address"),
    ],
)
def test_what_lies_outside_the_subnet_is_refused(request_: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        plan_pools([PoolRequest(subnet=ip_network("10.1.0.0/24"), **request_)], ())  # type: ignore[arg-type]  # of the table


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("10.300.0.0/24", "Invalid subnet 10.300.0.0/24 : invalid CIDR address: 10.300.0.0/24"),
        ("10.70.0.0", "Invalid subnet 10.70.0.0 : invalid CIDR address: 10.70.0.0"),
        ("10.71.0.5/24", "invalid subnet 10.71.0.5/24: it should be 10.71.0.0/24"),
    ],
)
def test_a_bad_subnet_is_refused_in_dockers_words(text: str, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_subnet(text)

    assert caught.value.brief == words


def test_pools_survive_json() -> None:
    pools = (
        Pool(ip_network("10.0.0.0/24"), ip_address("10.0.0.1"), ip_network("10.0.0.128/25"),
             {"a": ip_address("10.0.0.9")}),
        Pool(ip_network("fd00::/64")),
    )  # fmt: skip

    assert ipam.pools_from_json(json.loads(json.dumps(ipam.pools_to_json(pools)))) == pools


@pytest.mark.requires("netns")
def test_routes_of_the_host_are_claims_and_a_vpns_halves_are_not() -> None:
    def run() -> list[Claim]:
        with Netlink() as netlink:
            netlink.change("t", [create_bridge("lan"), create_bridge("mine")])
            lan, mine = find_link(netlink, "lan"), find_link(netlink, "mine")
            assert lan
            assert mine
            netlink.change(
                "t",
                [
                    add_address(lan.index, ip_interface("10.5.0.1/16")),
                    add_address(mine.index, ip_interface("10.6.0.1/16")),
                    add_route(ip_network("10.7.0.0/16"), lan.index, ip_address("10.5.0.2")),
                    add_route(ip_network("0.0.0.0/1"), lan.index),
                ],
            )
        return ipam.on_link_claims(ignored=["mine"])

    descriptor = new_network_namespace()
    try:
        claims = in_network_namespace(descriptor, run)
    finally:
        os.close(descriptor)

    assert claims == [Claim(ip_network("10.5.0.0/16"), "a route of the host to the device lan")]


# --- addresses in the metastore ----------------------------------------------------------------


def add_endpoint(tx: sqlite3.Connection, name: str) -> str:
    tx.execute(
        "INSERT INTO endpoints (id, network_id, container_id, state, config)"
        " VALUES (?, ?, ?, 'ready', '{}')",
        (name, NETWORK, f"c-{name}"),
    )
    return name


@pytest.fixture
def metastore(shm_dir: Path) -> Iterator[Metastore]:
    opened = Metastore(shm_dir / "metadata.db")
    yield opened
    opened.close()


def give(metastore: Metastore, name: str, pool: Pool, *asked: str) -> list[str]:
    with metastore.transaction() as tx:
        add_endpoint(tx, name)
        given = assign(tx, NETWORK, name, [pool], [ip_address(text) for text in asked])
    return [str(interface) for interface in given]


def free(metastore: Metastore, name: str) -> None:
    with metastore.transaction() as tx:
        tx.execute("DELETE FROM endpoints WHERE id = ?", (name,))


SMALL = Pool(ip_network("10.0.0.0/29"), ip_address("10.0.0.1"), None,
             {"printer": ip_address("10.0.0.3")})  # fmt: skip


def test_addresses_are_given_until_each_is_taken_and_freed_with_the_endpoint(
    metastore: Metastore,
) -> None:
    assert [give(metastore, f"e{n}", SMALL) for n in range(4)] == [
        ["10.0.0.2/29"], ["10.0.0.4/29"], ["10.0.0.5/29"], ["10.0.0.6/29"],
    ]  # fmt: skip
    with pytest.raises(NoSpace, match="No available addresses"):
        give(metastore, "late", SMALL)
    free(metastore, "e1")

    assert give(metastore, "e9", SMALL) == ["10.0.0.4/29"]
    with pytest.raises(NoSpace):
        give(metastore, "later", SMALL)


@pytest.mark.parametrize(
    ("address", "error", "words"),
    [
        ("10.0.0.2", FailedPrecondition, "Address already in use\n.*container c-first"),
        ("10.0.0.1", FailedPrecondition, "the gateway"),
        ("10.0.0.3", FailedPrecondition, "the auxiliary address 'printer'"),
        ("10.0.0.0", InvalidArgument, "no endpoint can have it"),
        ("10.0.0.7", InvalidArgument, "no endpoint can have it"),
        ("10.9.9.9", InvalidArgument, "does not belong to any of this network's subnets"),
    ],
)
def test_an_asked_address_that_cannot_be_had_is_refused_by_name(
    metastore: Metastore, address: str, error: type[Exception], words: str
) -> None:
    give(metastore, "first", SMALL)
    with pytest.raises(error, match=words):
        give(metastore, "second", SMALL, address)

    assert ipam.in_use(metastore.read(), NETWORK) == 1


def test_an_address_may_be_asked_for_outside_the_range(metastore: Metastore) -> None:
    pool = Pool(ip_network("10.0.0.0/24"), ip_address("10.0.0.1"), ip_network("10.0.0.128/30"))

    assert give(metastore, "a", pool, "10.0.0.7") == ["10.0.0.7/24"]
    given = [give(metastore, f"e{n}", pool)[0] for n in range(4)]
    assert given == [f"10.0.0.{n}/24" for n in (128, 129, 130, 131)]
    with pytest.raises(NoSpace):
        give(metastore, "late", pool)


def test_families_do_not_disturb_each_other(metastore: Metastore) -> None:
    """0a00::/16 begins with the same bytes as 10.0.0.0/16."""
    four = Pool(ip_network("10.0.0.0/30"))
    six = Pool(ip_network("a00::/126"))
    with metastore.transaction() as tx:
        for number in range(2):
            add_endpoint(tx, f"e{number}")
            assign(tx, NETWORK, f"e{number}", [six, four])
        add_endpoint(tx, "e2")
        with pytest.raises(NoSpace):
            assign(tx, NETWORK, "e2", [four])
        assert str(assign(tx, NETWORK, "e2", [six])[0]) == "a00::3/126"


def test_pools_of_one_family_on_one_network_do_not_disturb_each_other(
    metastore: Metastore,
) -> None:
    pools = [Pool(ip_network("10.0.0.0/30")), Pool(ip_network("10.1.0.0/30"))]
    with metastore.transaction() as tx:
        for number in range(2):
            add_endpoint(tx, f"e{number}")
            given_ = assign(tx, NETWORK, f"e{number}", pools)
            assert [str(i.ip) for i in given_] == [f"10.0.0.{number + 1}", f"10.1.0.{number + 1}"]
        add_endpoint(tx, "e2")
        with pytest.raises(NoSpace):
            assign(tx, NETWORK, "e2", pools)


@given(st.data())
def test_a_history_of_endpoints_matches_the_model(data: st.DataObject) -> None:
    """In memory: the tables are the same, the disk is not the subject."""
    tx = sqlite3.connect(":memory:", isolation_level=None)
    tx.row_factory = sqlite3.Row
    tx.execute("PRAGMA foreign_keys = ON")
    migrate(tx)
    pool = data.draw(small_pools())
    usable = model_usable(pool)
    owned: dict[str, int] = {}
    for number in range(data.draw(st.integers(1, 20))):
        leaves: bool = data.draw(st.booleans())
        if owned and leaves:
            name = data.draw(st.sampled_from(sorted(owned)))
            tx.execute("DELETE FROM endpoints WHERE id = ?", (name,))
            del owned[name]
            continue
        name = add_endpoint(tx, f"e{number}")
        expected = min(set(usable) - set(owned.values()), default=None)
        if expected is None:
            with pytest.raises(NoSpace):
                assign(tx, NETWORK, name, [pool])
        else:
            (given_,) = assign(tx, NETWORK, name, [pool])
            assert int(given_.ip) == expected
            owned[name] = expected
    tx.close()


_GRAB = """
import sys
from ipaddress import ip_address, ip_network
from pathlib import Path
from stowage.model import Pool
from stowage.net.ipam import assign
from stowage.store.metastore import Metastore

metastore = Metastore(Path(sys.argv[1]))
pool = Pool(ip_network("10.0.0.0/24"), ip_address("10.0.0.1"))
for n in range(30):
    with metastore.transaction() as tx:
        name = f"{sys.argv[2]}-{n}"
        tx.execute("INSERT INTO endpoints VALUES (?, 'n', ?, 'ready', '{}')", (name, name))
        assign(tx, "n", name, [pool])
metastore.close()
"""


def test_processes_never_get_the_same_address(shm_dir: Path) -> None:
    path = shm_dir / "metadata.db"
    Metastore(path).close()
    workers = [
        subprocess.Popen([sys.executable, "-c", _GRAB, path, str(number)]) for number in range(3)
    ]

    assert [worker.wait() for worker in workers] == [0, 0, 0]
    metastore = Metastore(path)
    rows = metastore.read().execute("SELECT address FROM addresses ORDER BY address").fetchall()
    metastore.close()
    assert [row[0][4] for row in rows] == list(range(2, 92))


def test_the_mac_follows_the_address_as_dockers_does() -> None:
    assert ipam.mac_address([ip_interface("172.17.0.2/16")]) == "02:42:ac:11:00:02"
    assert ipam.mac_address([ip_interface("fd00::2/64")]).startswith("02:42:")
