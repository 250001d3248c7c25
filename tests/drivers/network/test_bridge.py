"""The bridge driver's kernel objects: made, completed, adopted, replaced, removed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from ipaddress import IPv6Address, ip_address, ip_interface, ip_network
from pathlib import Path
from typing import TypeVar

import pytest
from msgspec.structs import replace

from stowage.effects import observe
from stowage.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    InvalidConfig,
    NotSupported,
    StowageError,
)
from stowage.handle import NetworkHandle
from stowage.linux.namespaces import in_network_namespace, new_network_namespace
from stowage.linux.netlink import Message, Netlink
from stowage.linux.nft import NftSession
from stowage.linux.rtnetlink import (
    Link,
    RouteEntry,
    add_address,
    add_route,
    create_bridge,
    create_veth,
    delete_link,
    find_link,
    read_addresses,
    read_links,
    read_routes,
    set_link,
)
from stowage.model import Endpoint, Interface, Network, Pool, PortMapping

from .conftest import HOST, REMOTE, Container, World, blocked, listening, reach, token

pytestmark = pytest.mark.requires_root

R = TypeVar("R")
BOTH = ("172.17.0.0/16", "fd00:17::/64")
ANY = ip_address("0.0.0.0")
NAME = "com.docker.network.bridge.name"


def links_of(world: World) -> dict[str, Link]:
    def run() -> dict[str, Link]:
        with Netlink() as netlink:
            return {link.name: link for link in read_links(netlink)}

    return world.on_host(run)


def change(world: World, *messages: Message) -> None:
    def run() -> None:
        with Netlink() as netlink:
            netlink.change("test", messages)

    world.on_host(run)


def inside(container: Container) -> tuple[Link, Sequence[Interface], Sequence[RouteEntry]]:
    def run() -> tuple[Link, Sequence[Interface], Sequence[RouteEntry]]:
        with Netlink() as netlink:
            link = find_link(netlink, "eth0")
            assert link
            return link, read_addresses(netlink, link.index), read_routes(netlink)

    return in_network_namespace(container.where, run)


def addresses_of(world: World, name: str) -> set[str]:
    def run() -> set[str]:
        with Netlink() as netlink:
            link = find_link(netlink, name)
            assert link
            found = read_addresses(netlink, link.index)
            return {str(address) for address in found if not address.ip.is_link_local}

    return world.on_host(run)


def check(world: World, driver: NetworkHandle, container: Container | None = None) -> list[str]:
    network = next(iter(world.networks.values()))
    if container is None:
        return list(world.on_host(lambda: driver.check(network, None, None)))
    return list(world.on_host(lambda: driver.check(network, container.endpoint, container.sandbox)))


# --- networks ----------------------------------------------------------------------------------


def test_a_network_is_a_bridge_with_the_gateways_addresses(world: World) -> None:
    driver, network = world.driver(), world.network("net", *BOTH)

    world.on_host(lambda: driver.create(network))

    bridge = links_of(world)["b-net"]
    assert (bridge.kind, bridge.up, bridge.mtu) == ("bridge", True, 1500)
    assert bridge.alias == f"stowage-0a1b2c3d {network.id}"
    assert bridge.mac_address.startswith("02:42:")
    assert addresses_of(world, "b-net") == {"172.17.0.1/16", "fd00:17::1/64"}
    assert check(world, driver) == []


def test_creating_it_again_completes_what_is_missing(world: World) -> None:
    driver, network = world.driver(), world.network("net", *BOTH)
    world.on_host(lambda: driver.create(network))
    index = links_of(world)["b-net"].index
    change(world, set_link("b-net", up=False), add_address(index, ip_interface("10.0.0.1/24")))
    world.on_host(lambda: Path("/proc/sys/net/ipv4/conf/b-net/route_localnet").write_text("0"))
    assert len(check(world, driver)) >= 3

    world.on_host(lambda: driver.create(network))

    assert check(world, driver) == []
    assert links_of(world)["b-net"].index == index


def test_only_settings_of_its_own_device_are_touched(world: World) -> None:
    def settings() -> dict[str, str]:
        found = {}
        for family in ("ipv4", "ipv6"):
            for path in Path(f"/proc/sys/net/{family}").rglob("*"):
                if path.is_file() and "b-net" not in path.parts and path.name != "stable_secret":
                    with suppress(OSError, UnicodeDecodeError):
                        found[str(path)] = path.read_text()
        return found

    world.on_host(lambda: Path("/proc/sys/net/ipv4/ip_forward").write_text("1"))
    before = world.on_host(settings)
    driver, network = world.driver(), world.network("net")
    world.on_host(lambda: driver.create(network))

    assert world.on_host(settings) == before


def test_forwarding_is_turned_on_unless_the_configuration_forbids(world: World) -> None:
    network = world.network()
    forwarding = Path("/proc/sys/net/ipv4/ip_forward")
    world.on_host(lambda: forwarding.write_text("0"))
    driver = world.driver(settings={"ip-forward": False})
    world.on_host(lambda: driver.create(network))
    assert world.on_host(forwarding.read_text).strip() == "0"
    assert any(
        "ip_forward is 0" in word for word in world.on_host(lambda: driver.warnings(network))
    )

    driver = world.driver()
    world.on_host(lambda: driver.create(network))
    assert world.on_host(forwarding.read_text).strip() == "1"
    assert list(world.on_host(lambda: driver.warnings(network))) == []


def test_the_mtu_is_that_of_the_default_route_or_the_one_asked_for(world: World) -> None:
    change(world, set_link("eth0", mtu=1400))
    index = links_of(world)["eth0"].index
    change(world, add_route(ip_network("0.0.0.0/0"), index, REMOTE[4]))
    driver = world.driver()

    first = world.join(driver, world.network("net"), 2)
    asked = world.network("asked", "10.0.0.0/24", **{"com.docker.network.driver.mtu": "1280"})
    second = world.join(driver, asked, 2)

    assert [inside(container)[0].mtu for container in (first, second)] == [1400, 1280]
    assert links_of(world)["b-asked"].mtu == 1280


def test_deleting_takes_the_device_and_the_table_and_is_idempotent(world: World) -> None:
    driver, network = world.driver(), world.network()
    world.on_host(lambda: driver.delete(network))  # nothing there
    world.on_host(lambda: driver.create(network))
    for _ in range(2):
        world.on_host(lambda: driver.delete(network))

        assert world.links() == set()
        assert nft(world, "list tables") == ""


def test_a_users_bridge_is_adopted_and_never_deleted(world: World) -> None:
    change(world, create_bridge("lan0"))
    driver = world.driver()
    network = world.network("net", **{NAME: "lan0"})
    world.join(driver, network, 2)
    assert addresses_of(world, "lan0") == {"172.17.0.1/16"}
    extra = ip_interface("10.9.0.1/24")
    change(world, add_address(links_of(world)["lan0"].index, extra))
    world.on_host(lambda: driver.create(network))

    world.on_host(lambda: driver.delete(network))

    assert "lan0" in world.links()
    assert "10.9.0.1/24" in addresses_of(world, "lan0")


def test_a_device_of_another_root_is_refused_by_name(world: World) -> None:
    first, second = world.driver("11111111"), world.driver("22222222")
    network = world.network()
    world.on_host(lambda: first.create(network))

    with pytest.raises(FailedPrecondition, match="belongs to the root 11111111"):
        world.on_host(lambda: second.create(network))


def test_a_device_that_is_no_bridge_or_was_not_named_is_refused(world: World) -> None:
    driver = world.driver()
    with pytest.raises(InvalidArgument, match="eth0 exists and is no bridge"):
        world.on_host(lambda: driver.create(world.network("net", **{NAME: "eth0"})))
    unnamed = replace(world.network("other"), options={})
    change(world, create_bridge(f"br-{unnamed.id[:12]}"))
    with pytest.raises(FailedPrecondition, match="exists already"):
        world.on_host(lambda: driver.create(unnamed))


def test_every_wrong_option_is_reported_at_once(world: World) -> None:
    pools = (
        Pool(ip_network("10.0.0.0/24"), ip_address("10.1.0.1")),
        Pool(ip_network("10.2.0.0/24")),
    )
    wrong = {
        "com.docker.network.bridge.enable_iccc": "true",
        "com.docker.network.driver.mtu": "big",
        NAME: "a-name-that-is-too-long",
    }
    driver = world.driver()
    with pytest.raises(InvalidConfig) as caught:
        driver.validate(Network(token("x"), "x", "bridge", options=wrong))
    assert len(caught.value.problems) == 3
    assert "did you mean 'com.docker.network.bridge.enable_icc'" in str(caught.value)

    with pytest.raises(InvalidConfig) as caught:
        driver.validate(Network(token("x"), "x", "bridge", pools=pools))
    assert len(caught.value.problems) == 2


# --- joining and leaving -----------------------------------------------------------------------


def test_a_joined_sandbox_has_link_address_and_routes(world: World) -> None:
    driver = world.driver()
    container = world.join(driver, world.network("net", *BOTH), 2)

    link, addresses, routes = inside(container)

    assert (link.up, link.mac_address) == (True, "02:42:ac:11:00:02")
    assert set(addresses) == {
        *container.endpoint.addresses, ip_interface("fe80::42:acff:fe11:2/64"),
    }  # fmt: skip
    defaults = {str(route.gateway) for route in routes if route.destination.prefixlen == 0}
    assert defaults == {"172.17.0.1", "fd00:17::1"}
    (name,) = world.links() - {"b-net"}
    assert name.startswith("stw")
    assert len(name) == 15
    assert check(world, driver, container) == []


def test_the_first_packet_of_a_container_gets_through(world: World) -> None:
    """A port that the kernel enables a moment later would cost it a second (linkwatch)."""
    driver, network = world.driver(), world.network()
    world.on_host(lambda: driver.create(network))
    with listening(world.host, 4, "tcp", 80) as server:
        for number in range(2, 22):
            container = world.join(driver, network, number)
            seen = reach(container.where, ip_address("172.17.0.1"), 80, server, "tcp", 0.5)
            assert seen == container.address()


def test_neighbours_learn_the_new_mac_of_an_address(world: World) -> None:
    driver, network = world.driver(), world.network()
    first = world.join(driver, network, 2)
    world.join(driver, network, 3)  # a bridge whose last port leaves forgets its neighbours
    with listening(first.where, 4, "tcp", 80) as server:
        assert reach(world.host, first.address(), 80, server, "tcp")
    world.on_host(lambda: driver.leave(network, first.endpoint, first.sandbox))
    again = replace(first.endpoint, mac_address="02:42:00:00:00:99")
    world.on_host(lambda: driver.join(network, again, first.sandbox))
    with listening(first.where, 4, "tcp", 80) as server:
        assert reach(world.host, first.address(), 80, server, "tcp", 0.5)


def test_ipv6_is_usable_at_once_and_absent_where_there_is_none(world: World) -> None:
    """No duplicate address detection: the IPAM knows that the address is unique."""
    driver = world.driver()
    six = world.join(driver, world.network("net", *BOTH), 2)
    four = world.join(driver, world.network("four", "10.0.0.0/24"), 2)

    flags = in_network_namespace(
        six.where, lambda: Path("/proc/thread-self/net/if_inet6").read_text().splitlines()
    )
    tentative = [line for line in flags if int(line.split()[4], 16) & 0x40]
    assert tentative == []
    assert [a for a in inside(four)[1] if isinstance(a.ip, IPv6Address)] == []


def test_the_kernel_reaps_the_link_with_the_sandbox(world: World) -> None:
    driver, network = world.driver(), world.network()
    endpoint = world.endpoint(network, 2)
    sandbox = world.sandbox(endpoint)
    duplicate = replace(sandbox, descriptor=os.dup(sandbox.descriptor))
    other = world.endpoint(network, 3)
    throwaway = replace(duplicate, descriptor=_namespace())
    world.on_host(lambda: driver.create(network))
    world.on_host(lambda: driver.join(network, other, throwaway))
    os.close(duplicate.descriptor)
    assert len(world.links()) == 2

    os.close(throwaway.descriptor)

    _eventually(lambda: world.links() == {"b-net"})
    world.on_host(lambda: driver.leave(network, other, None))


def _namespace() -> int:
    return new_network_namespace()


def _eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_leaving_a_living_sandbox_is_idempotent(world: World) -> None:
    driver, network = world.driver(), world.network()
    container = world.join(driver, network, 2)
    for _ in range(2):
        world.on_host(lambda: driver.leave(network, container.endpoint, container.sandbox))

        assert world.links() == {"b-net"}


def test_what_a_kill_left_of_the_same_endpoint_is_replaced(world: World) -> None:
    driver, network = world.driver(), world.network()
    first = world.join(driver, network, 2)
    again = replace(first.sandbox, descriptor=_namespace())
    try:
        world.on_host(lambda: driver.join(network, first.endpoint, again))
        assert inside(Container(first.endpoint, again))[0].up
        assert len(world.links()) == 2
    finally:
        os.close(again.descriptor)


def test_a_name_that_is_taken_is_refused_and_nothing_is_left(world: World) -> None:
    driver, network = world.driver(), world.network()
    endpoint = world.endpoint(network, 2)
    sandbox = world.sandbox(endpoint)
    world._wire(sandbox.descriptor, world.namespace(), "eth0", {})
    world.on_host(lambda: driver.create(network))

    with pytest.raises(AlreadyExists, match="eth0"):
        world.on_host(lambda: driver.join(network, endpoint, sandbox))

    assert world.links() == {"b-net"}


def test_a_second_network_keeps_the_first_way_out(world: World) -> None:
    driver = world.driver()
    first, second = world.network("net"), world.network("second", "10.0.0.0/24")
    container = world.join(driver, first, 2)
    endpoint = replace(world.endpoint(second, 2), interface="eth1")
    world.on_host(lambda: driver.create(second))

    world.on_host(lambda: driver.join(second, endpoint, container.sandbox))

    defaults = [route for route in inside(container)[2] if route.destination.prefixlen == 0]
    assert [str(route.gateway) for route in defaults] == ["172.17.0.1"]


def test_the_way_out_may_be_another_than_the_bridge(world: World) -> None:
    network = world.network()
    (pool,) = network.pools
    auxiliary = {"DefaultGatewayIPv4": ip_address("172.17.0.99")}
    network = replace(network, pools=(replace(pool, auxiliary=auxiliary),))
    container = world.join(world.driver(), network, 2)

    defaults = [route for route in inside(container)[2] if route.destination.prefixlen == 0]
    assert [str(route.gateway) for route in defaults] == ["172.17.0.99"]


def test_a_port_of_a_family_that_the_container_lacks_is_refused(world: World) -> None:
    driver, network = world.driver(), world.network()
    with pytest.raises(NotSupported, match="no IPv6 address"):
        world.join(driver, network, 2, PortMapping("tcp", 80, 8080, ip_address("::")))
    six, port = world.network("six", *BOTH), PortMapping("tcp", 80, 8080, ip_address("::1"))
    with pytest.raises(NotSupported, match="from its own loopback alone"):
        world.join(driver, six, 2, port)


# --- what others do, and what a kill leaves ----------------------------------------------------


def nft(world: World, command: str) -> str:
    session = NftSession()
    try:
        return world.on_host(lambda: session._run(command, 0)).strip()
    finally:
        session.close()


def web(world: World, driver: NetworkHandle, network: Network, number: int, port: int) -> Container:
    return world.join(driver, network, number, PortMapping("tcp", 80, port, ANY))


def served(world: World, container: Container, port: int) -> bool:
    with listening(container.where, 4, "tcp", 80) as server:
        return reach(world.remote, HOST[4], port, server, "tcp") == REMOTE[4]


@pytest.mark.parametrize("next_step", ["restore", "create", "publish", "join"])
def test_a_foreign_flush_is_repaired_whole_by_whatever_comes_next(
    world: World, next_step: str
) -> None:
    driver = world.driver()
    first, second = world.network("net"), world.network("other", "10.0.0.0/24")
    one, two = web(world, driver, first, 2, 8081), web(world, driver, second, 2, 8082)
    nft(world, "flush ruleset")
    with listening(one.where, 4, "tcp", 80) as server:
        assert blocked(world.remote, HOST[4], 8081, server, "tcp")

    if next_step == "restore":
        recorded = world.recorded()
        world.on_host(lambda: driver.restore(recorded.networks, recorded.endpoints))
    elif next_step == "create":
        world.on_host(lambda: driver.create(second))
    elif next_step == "publish":
        world.on_host(lambda: driver.program_external(second, two.endpoint, two.endpoint.ports))
    else:
        endpoint = world.endpoint(second, 3)
        sandbox = world.sandbox(endpoint)
        world.on_host(lambda: driver.join(second, endpoint, sandbox))

    assert served(world, one, 8081)
    assert served(world, two, 8082)
    assert check(world, driver) == []


def test_a_port_that_a_dead_container_left_behind_leads_to_its_new_owner(world: World) -> None:
    driver, network = world.driver(), world.network()
    dead = web(world, driver, network, 2, 8080)
    del world.endpoints[dead.endpoint.id]  # as recovery forgets it

    alive = web(world, driver, network, 3, 8080)

    assert served(world, alive, 8080)


@pytest.mark.parametrize("more", [True, False])
def test_a_late_withdrawal_leaves_the_port_to_its_new_owner(world: World, more: bool) -> None:
    driver, network = world.driver(), world.network()
    extra = [PortMapping("tcp", 81, 8081, ANY)] if more else []
    dead = world.join(driver, network, 2, PortMapping("tcp", 80, 8080, ANY), *extra)
    del world.endpoints[dead.endpoint.id]
    alive = web(world, driver, network, 3, 8080)

    for _ in range(2):
        world.on_host(lambda: driver.revoke_external(network, dead.endpoint, dead.endpoint.ports))

    assert served(world, alive, 8080)
    assert "8081" not in nft(world, "list ruleset")


def test_links_lost_by_hand_are_found_and_mended(world: World) -> None:
    driver, network = world.driver(), world.network()
    container = web(world, driver, network, 2, 8080)
    change(world, delete_link("b-net"))
    assert "the bridge b-net is missing" in check(world, driver)
    assert check(world, driver, container) != []

    world.on_host(lambda: driver.restore((), ()))
    world.on_host(lambda: driver.join(network, container.endpoint, container.sandbox))

    assert check(world, driver) == check(world, driver, container) == []
    assert served(world, container, 8080)


def test_restore_removes_strays_of_this_root_and_nothing_else(world: World) -> None:
    driver, other = world.driver(), world.driver("99999999")
    network, foreign = world.network("net"), world.network("foreign", "10.3.0.0/24")
    forgotten = world.network("forgotten", "10.1.0.0/24")
    world.on_host(lambda: other.create(foreign))
    keep = world.join(driver, network, 2)
    strays = [world.join(driver, network, number) for number in (3, 4, 5)]
    world.join(driver, forgotten, 2)
    change(world, create_bridge("mine"), create_veth("stwmine", "peer", world.namespace()))
    before = nft(world, "list table inet stowage-99999999")
    gone = {stray.endpoint.id for stray in strays}
    for endpoint in list(world.endpoints.values()):
        if endpoint.id in gone or endpoint.network_id == forgotten.id:
            del world.endpoints[endpoint.id]
    del world.networks[forgotten.id]
    del world.networks[foreign.id]

    world.on_host(lambda: driver.restore((), ()))

    _eventually(lambda: len(world.links()) == 5)
    metadata = driver.metadata(network, keep.endpoint)
    assert world.links() == {
        "b-net", metadata["host_interface"], "b-foreign", "mine", "stwmine",
    }  # fmt: skip
    assert nft(world, "list table inet stowage-99999999") == before
    assert check(world, driver) == []


def test_teardown_goes_on_after_a_failure(world: World) -> None:
    driver, network = world.driver(), world.network()
    world.on_host(lambda: driver.create(network))

    with failing_at("nft.transact", 0), pytest.raises(StowageError):
        world.on_host(lambda: driver.delete(network))

    assert world.links() == set()


@contextmanager
def failing_at(wanted: str | None, number: int) -> Iterator[list[str]]:
    """Fail the effect of that number (of that name); the list grows with the effects seen."""
    seen: list[str] = []

    @contextmanager
    def around(name: str, facts: dict[str, object]) -> Iterator[None]:
        if wanted in (None, name):
            seen.append(name)
            if len(seen) == number + 1:
                raise OSError(5, f"injected at {name}")
        yield

    remove = observe(around)
    try:
        yield seen
    finally:
        remove()


def test_after_a_failure_at_any_step_all_can_be_undone_and_done(world: World) -> None:
    """Every effect of create, join and publish fails once; what follows is as if it had not."""
    driver, network = world.driver(), world.network("net", *BOTH)
    port = PortMapping("tcp", 80, 8080, ANY)

    def up(endpoint: Endpoint) -> None:
        sandbox = world.sandbox(endpoint)
        driver.create(network)
        driver.join(network, endpoint, sandbox)
        driver.program_external(network, endpoint, [port])

    def down(endpoint: Endpoint) -> None:
        driver.revoke_external(network, endpoint, [port])
        driver.leave(network, endpoint, world.sandbox(endpoint))
        driver.delete(network)

    def attempt(step: int) -> bool:
        """Whether all went well although the effect of that number was to fail."""
        with failing_at(None, step):
            try:
                up(endpoint)
            except StowageError:
                return False
        return True

    endpoint = world.endpoint(network, 2, port)
    container = Container(endpoint, world.sandbox(endpoint))
    step = 0
    while not in_network_namespace(world.host, partial(attempt, step)):
        world.on_host(lambda: up(endpoint))  # again, without a fault
        assert check(world, driver) == check(world, driver, container) == [], step
        world.on_host(lambda: down(endpoint))
        assert (world.links(), nft(world, "list tables")) == (set(), ""), step
        step += 1
    assert step > 8


def test_the_kernel_objects_are_what_another_library_reads(world: World) -> None:
    """Our own encoder and decoder could agree on something wrong; pyroute2 is neither."""
    pyroute2 = pytest.importorskip("pyroute2")
    network = world.network(**{"com.docker.network.bridge.enable_icc": "false"})
    world.on_host(lambda: Path("/proc/sys/net/bridge/bridge-nf-call-iptables").write_text("0")
                  if Path("/proc/sys/net/bridge").exists() else None)  # fmt: skip
    container = world.join(world.driver(), network, 2)

    def run() -> dict[str, object]:
        with pyroute2.IPRoute() as routes:
            by_name = {link.get_attr("IFLA_IFNAME"): link for link in routes.get_links()}
            port = next(link for name, link in by_name.items() if name.startswith("stw"))
            info = port.get_attr("IFLA_LINKINFO")
            return {
                "master": port.get_attr("IFLA_MASTER") == by_name["b-net"]["index"],
                "isolated": info.get_attr("IFLA_INFO_SLAVE_DATA").get_attr("IFLA_BRPORT_ISOLATED"),
                "mtu": port.get_attr("IFLA_MTU"),
                "alias": by_name["b-net"].get_attr("IFLA_IFALIAS"),
            }

    assert world.on_host(run) == {
        "master": True, "isolated": 1, "mtu": 1500, "alias": f"stowage-0a1b2c3d {network.id}",
    }  # fmt: skip
    assert inside(container)[0].up
