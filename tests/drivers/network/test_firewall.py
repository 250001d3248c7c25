"""Firewall backends: the host's own filters respected, foreign tables left alone, costs flat."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network

import pytest
from msgspec.structs import replace

from stowage.effects import observe
from stowage.errors import DataLoss, NotSupported
from stowage.handle import FirewallHandle, NetworkHandle
from stowage.linux.nft import NftError, NftSession
from stowage.model import FirewallEndpoint, FirewallNetwork, Network, PortMapping
from stowage_drivers.network.firewall import _script

from .conftest import HOST, REMOTE, Container, World, blocked, listening, reach, socket_in

pytestmark = pytest.mark.requires_root

ANY = ip_address("0.0.0.0")
CLOSED = """table inet guard { chain in {
type filter hook input priority 0; policy drop; ct state established,related accept; iif lo accept
}
}
"""
NO_FORWARD = (
    "table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }"
)


def nft(world: World, script: str) -> str:
    session = NftSession()
    try:
        return world.on_host(lambda: session._run(script, 0))
    finally:
        session.close()


def firewall(driver: NetworkHandle) -> FirewallHandle:
    handle: FirewallHandle = driver.driver._firewall  # type: ignore[attr-defined]  # white box
    return handle


def web(world: World, driver: NetworkHandle, network: Network, number: int = 2) -> Container:
    return world.join(driver, network, number, PortMapping("tcp", 80, 8080, ANY))


def shut(world: World, container: Container) -> bool:
    with listening(container.where, 4, "tcp", 80) as server:
        return blocked(world.remote, HOST[4], 8080, server, "tcp")


def from_remote(world: World, container: Container) -> bool:
    with listening(container.where, 4, "tcp", 80) as server:
        return reach(world.remote, HOST[4], 8080, server, "tcp") == REMOTE[4]


def warnings(world: World, driver: NetworkHandle, network: Network) -> list[str]:
    return list(world.on_host(lambda: driver.warnings(network)))


# --- a host that drops what comes in -----------------------------------------------------------


def test_a_closed_host_keeps_published_ports_from_strangers(world: World) -> None:
    nft(world, CLOSED)
    driver, network = world.driver(), world.network()
    container, peer = web(world, driver, network), world.join(driver, network, 3)

    assert shut(world, container)
    with listening(container.where, 4, "tcp", 80) as server:
        assert reach(world.host, HOST[4], 8080, server, "tcp")
        assert reach(world.host, ip_address("127.0.0.1"), 8080, server, "tcp")
        assert reach(peer.where, HOST[4], 8080, server, "tcp")
    (warning,) = warnings(world, driver, network)
    assert "policy of inet guard in" in warning
    assert "publish-allow" in warning


def test_a_closed_host_lets_in_whom_the_configuration_allows(world: World) -> None:
    nft(world, CLOSED)
    driver = world.driver(settings={"publish-allow": (ip_network("192.0.2.0/24"),)})
    network = world.network()
    container = web(world, driver, network)
    assert from_remote(world, container)
    assert "only from 192.0.2.0/24" in warnings(world, driver, network)[0]

    narrow = world.network("narrow", "10.0.0.0/24", **{"publish-allow": "198.51.100.0/24"})
    other = world.join(driver, narrow, 2, PortMapping("tcp", 80, 8081, ANY))
    with listening(other.where, 4, "tcp", 80) as server:
        assert blocked(world.remote, HOST[4], 8081, server, "tcp")


@pytest.mark.parametrize("where", ["daemon", "network"])
def test_dockers_policy_opens_them_all_the_same(world: World, where: str) -> None:
    nft(world, CLOSED)
    driver = world.driver(settings={"publish-policy": "docker"} if where == "daemon" else {})
    network = world.network(**({"publish-policy": "docker"} if where == "network" else {}))
    container = web(world, driver, network)

    assert from_remote(world, container)
    assert warnings(world, driver, network) == []


def test_a_host_that_is_closed_later_is_respected_from_the_next_command_on(world: World) -> None:
    driver, network = world.driver(), world.network()
    container = web(world, driver, network)
    assert from_remote(world, container)
    nft(world, CLOSED)
    assert world.on_host(lambda: driver.check(network, None, None)) != []

    world.on_host(lambda: driver.create(network))
    assert shut(world, container)
    assert list(world.on_host(lambda: driver.check(network, None, None))) == []

    nft(world, "delete table inet guard")
    world.on_host(lambda: driver.create(network))
    assert from_remote(world, container)


# --- a host that drops what passes -------------------------------------------------------------


def test_a_host_that_drops_forwarding_is_named_with_the_remedy(world: World) -> None:
    nft(world, NO_FORWARD)
    driver, network = world.driver(), world.network()
    container = web(world, driver, network)

    assert shut(world, container)
    (warning,) = warnings(world, driver, network)
    assert "policy of ip filter FORWARD" in warning
    assert "set allow-forward" in warning
    assert "iptables -I FORWARD -i b-net -j ACCEPT" in warning


@pytest.mark.requires("iptables")
@pytest.mark.parametrize("docker", [True, False])
def test_allow_forward_opens_it_with_marked_rules_and_takes_them_away(
    world: World, docker: bool
) -> None:
    def iptables(*words: str) -> str:
        done = world.on_host(
            lambda: subprocess.run(
                ["iptables-nft", *words], check=True, capture_output=True, text=True
            )
        )
        return done.stdout

    iptables("-P", "FORWARD", "DROP")
    if docker:
        iptables("-N", "DOCKER-USER")
        iptables("-A", "FORWARD", "-j", "DOCKER-USER")
    before = iptables("-S")
    driver, network = world.driver(settings={"allow-forward": True}), world.network()
    container = web(world, driver, network)
    world.on_host(lambda: driver.create(network))  # twice adds nothing

    assert from_remote(world, container)
    assert warnings(world, driver, network) == []
    chain = "DOCKER-USER" if docker else "FORWARD"
    added = [line for line in iptables("-S").splitlines() if line not in before]
    assert sorted(added) == [
        f"-A {chain} -{way} b-net -m comment --comment stowage-0a1b2c3d -j ACCEPT"
        for way in ("i", "o")
    ]
    world.on_host(lambda: driver.delete(network))
    assert iptables("-S") == before


@pytest.mark.requires("iptables")
def test_policies_of_the_legacy_tables_count_as_well(world: World) -> None:
    def legacy(*words: str) -> bool:
        try:
            world.on_host(lambda: subprocess.run(words, check=True, capture_output=True))
        except (OSError, subprocess.CalledProcessError):
            return False
        return True

    if not legacy("iptables-legacy", "-P", "FORWARD", "DROP"):
        pytest.skip("kernel 6 has no legacy iptables tables")
    legacy("iptables-legacy", "-P", "INPUT", "DROP")
    legacy("ip6tables-legacy", "-P", "INPUT", "ACCEPT")
    driver, network = world.driver(), world.network()
    world.on_host(lambda: driver.create(network))

    forward, closed = warnings(world, driver, network)
    assert "ip filter FORWARD (legacy)" in forward
    assert "iptables-legacy -I FORWARD" in forward
    assert "policy of ip filter INPUT (legacy)" in closed


# --- the table ---------------------------------------------------------------------------------


@contextmanager
def transactions() -> Iterator[list[str]]:
    seen: list[str] = []

    @contextmanager
    def around(name: str, facts: dict[str, object]) -> Iterator[None]:
        if name == "nft.transact":
            seen.append(name)
        yield

    remove = observe(around)
    try:
        yield seen
    finally:
        remove()


def test_all_ports_of_an_endpoint_are_one_transaction(world: World) -> None:
    driver, network = world.driver(), world.network()
    world.on_host(lambda: driver.create(network))
    ports = [PortMapping("tcp", port, 20000 + port, ANY) for port in range(1, 301)]
    endpoint = world.endpoint(network, 2, *ports)

    with transactions() as seen:
        world.on_host(lambda: driver.program_external(network, endpoint, ports))
        world.on_host(lambda: driver.revoke_external(network, endpoint, ports))

    assert len(seen) == 2
    assert "20001" not in nft(world, "list ruleset")


def test_every_difference_is_found_and_restored(world: World) -> None:
    driver, network = world.driver(), world.network()
    container = web(world, driver, network)
    table = "inet stowage-0a1b2c3d"

    def problems() -> list[str]:
        return list(world.on_host(lambda: driver.check(network, None, None)))

    for damage, words in {
        f"delete element {table} any4 {{ tcp . 8080 }}": "any4 lacks tcp . 8080 : 172.17.0.2 . 80",
        f"add element {table} any4 {{ tcp . 1 : 10.0.0.1 . 1 }}": "any4 has tcp . 1",
        f'delete element {table} bridges {{ "b-net" }}': 'bridges lacks "b-net"',
        f"flush chain {table} into": "the chain into is not as it was written",
        f"add rule {table} forward accept": "the chain forward is not as it was written",
        f"delete table {table}": "is missing",
    }.items():
        nft(world, damage)
        found = problems()
        assert len(found) == 1, found
        assert words in found[0]

        world.on_host(lambda: driver.restore((), ()))

        assert problems() == []
    assert from_remote(world, container)


def test_roots_and_strangers_do_not_disturb_each_other(world: World) -> None:
    nft(world, "add table ip mine\nadd set ip mine s { type ipv4_addr; elements = { 1.2.3.4 }; }")
    first, second = world.driver("11111111"), world.driver("22222222")
    one, two = world.network("one", "10.1.0.0/24"), world.network("two", "10.2.0.0/24")
    world.on_host(lambda: first.create(one))
    mine = nft(world, "list table ip mine")
    theirs = nft(world, "list table inet stowage-11111111")

    world.on_host(lambda: second.create(two))
    world.on_host(lambda: firewall(second).clear())
    world.on_host(lambda: firewall(second).clear())

    assert nft(world, "list table ip mine") == mine
    assert nft(world, "list table inet stowage-11111111") == theirs
    assert "22222222" not in nft(world, "list tables")


def test_the_last_network_takes_the_table_along(world: World) -> None:
    nft(world, CLOSED)
    driver = world.driver(settings={"publish-allow": (ip_network("10.0.0.0/8"),)})
    one, two = world.network("one", "10.1.0.0/24"), world.network("two", "10.2.0.0/24")
    for network in (one, two):
        world.on_host(lambda network=network: driver.create(network))  # type: ignore[misc]
    before = nft(world, "list table inet stowage-0a1b2c3d")

    world.on_host(lambda: driver.delete(one))
    left = nft(world, "list table inet stowage-0a1b2c3d")
    assert "b-one" not in left
    assert "10.1.0.0" not in left
    del world.networks[one.id]
    assert list(world.on_host(lambda: driver.check(two, None, None))) == []
    assert left.count("chain allow-") == before.count("chain allow-") == 1

    world.on_host(lambda: driver.delete(two))
    assert "stowage" not in nft(world, "list tables")


def test_established_connections_survive_a_restore(world: World) -> None:
    driver, network = world.driver(), world.network()
    container = web(world, driver, network)

    with (
        listening(container.where, 4, "tcp", 80) as server,
        socket_in(world.remote, 4, "tcp") as near,
    ):
        near.connect((str(HOST[4]), 8080))
        far, _ = server.accept()
        with far:
            nft(world, "flush ruleset")
            world.on_host(lambda: driver.restore((), ()))
            near.sendall(b"still here")
            assert far.recv(20) == b"still here"


# --- the handles -------------------------------------------------------------------------------

NETWORK = FirewallNetwork("n", "b0", (ip_network("10.0.0.0/24"),))
ENDPOINT = FirewallEndpoint(
    "e", "n", (ip_address("10.0.0.2"),), (PortMapping("tcp", 80, 8080, ANY),)
)


def test_lost_rules_are_said_and_not_silently_replaced(world: World) -> None:
    backend = firewall(world.driver())

    assert not world.on_host(lambda: backend.intact)
    with pytest.raises(DataLoss):
        world.on_host(lambda: backend.add_network(NETWORK))
    world.on_host(lambda: backend.restore([NETWORK], []))
    assert world.on_host(lambda: backend.intact)
    world.on_host(lambda: backend.add_endpoint(NETWORK, ENDPOINT))
    other = replace(ENDPOINT, id="other", addresses=(ip_address("10.0.0.3"),))
    with pytest.raises(DataLoss, match="not as they were left"):
        world.on_host(lambda: backend.add_endpoint(NETWORK, other))


def test_the_none_backend_refuses_to_publish_by_name(world: World) -> None:
    driver, network = world.bare_driver(), world.network()
    container = world.join(driver, network, 2)
    with listening(container.where, 4, "tcp", 80) as server:
        assert reach(world.host, container.address(), 80, server, "tcp")

    with pytest.raises(NotSupported, match=r"cannot publish 0\.0\.0\.0:8080->80/tcp\n.*'none'"):
        web(world, driver, network, 3)
    with pytest.raises(NotSupported, match="an internal network"):
        world.on_host(lambda: driver.create(world.network("in", "10.0.0.0/24", internal=True)))
    assert nft(world, "list tables") == ""


def test_probes_work_here_and_leave_nothing(world: World) -> None:
    driver = world.driver()

    assert world.on_host(lambda: driver.probe).ok
    assert world.on_host(lambda: firewall(driver).probe).ok
    assert (world.links(), nft(world, "list tables")) == (set(), "")


def test_a_refused_transaction_says_why(world: World) -> None:
    with pytest.raises(NftError, match="syntax error") as caught:
        nft(world, "nonsense")
    assert caught.value.errno == 22
    with pytest.raises(NftError) as caught:
        nft(world, "delete table inet nosuch")
    assert caught.value.errno == 2


def test_the_frame_counts_its_own_rules() -> None:
    counts = _script.frame_rules()

    assert counts["publish"] == 4
    assert counts["guard"] == 1
