"""Who reaches what on a bridge network, measured with real sockets on the real kernel."""

from __future__ import annotations

import contextlib
import socket
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest

from stowage.linux.namespaces import in_network_namespace
from stowage.linux.netlink import Netlink
from stowage.linux.nft import NftSession
from stowage.linux.rtnetlink import add_route, delete_address, find_link, read_links
from stowage.model import Address, FirewallEndpoint, PortMapping, Transport

from .conftest import HOST, REMOTE, Container, World, blocked, listening, reach, socket_in

pytestmark = pytest.mark.requires_root

BOTH = ("172.17.0.0/16", "fd00:17::/64")
ANY = {4: ip_address("0.0.0.0"), 6: ip_address("::")}
LOCALHOST = {4: ip_address("127.0.0.1"), 6: ip_address("::1")}
GATEWAY = {4: ip_address("172.17.0.1"), 6: ip_address("fd00:17::1")}
FAMILIES = pytest.mark.parametrize("version", [4, 6])
TRANSPORTS = pytest.mark.parametrize("protocol", ["tcp", "udp"])


def bridge_netfilter(world: World, value: str) -> None:
    """What Docker sets on its hosts, or not."""

    def run() -> None:
        for name in ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables"):
            path = Path("/proc/sys/net/bridge", name)
            if path.exists():
                path.write_text(value)

    world.on_host(run)


@pytest.mark.parametrize("netfilter", ["0", "1"])
def test_ports_are_made_for_what_the_host_does_with_bridged_packets(
    world: World, netfilter: str
) -> None:
    """The host's setting counts, not the sandbox's own, which is always 1."""
    bridge_netfilter(world, netfilter)
    network = world.network(**{"com.docker.network.bridge.enable_icc": "false"})
    world.join(world.driver(), network, 2)

    def ports() -> list[tuple[bool, bool]]:
        with Netlink() as netlink:
            links = read_links(netlink)
        return [(link.hairpin, link.isolated) for link in links if link.name.startswith("stw")]

    assert world.on_host(ports) == [(netfilter == "1", netfilter == "0")]


@pytest.mark.parametrize("netfilter", ["0", "1"])
@FAMILIES
@TRANSPORTS
def test_a_published_port_is_reached_from_everywhere(
    world: World, version: int, protocol: Transport, netfilter: str
) -> None:
    bridge_netfilter(world, netfilter)
    driver = world.driver()
    network = world.network("net", *BOTH)
    web = world.join(driver, network, 2, PortMapping(protocol, 80, 8080, ANY[version]))
    peer = world.join(driver, network, 3)
    other = world.join(driver, world.network("other", "172.18.0.0/16", "fd00:18::/64"), 2)
    with listening(web.where, version, protocol, 80) as server:

        def seen(where: int, target: Address) -> Address | None:
            return reach(where, target, 8080, server, protocol)

        results = {
            "remote": seen(world.remote, HOST[version]),
            "host by its own address": seen(world.host, HOST[version]),
            "host by the gateway": seen(world.host, GATEWAY[version]),
            "host by localhost": version == 4 and seen(world.host, LOCALHOST[4]),
            "peer by the host": seen(peer.where, HOST[version]),
            "peer by the gateway": seen(peer.where, GATEWAY[version]),
            "self by the host": seen(web.where, HOST[version]),
            "self by the gateway": seen(web.where, GATEWAY[version]),
            "other network": seen(other.where, HOST[version]),
        }

    assert results == {
        "remote": REMOTE[version],  # the address of a remote client is kept
        **dict.fromkeys([name for name in results if name != "remote"], GATEWAY[version]),
        "host by localhost": version == 4 and GATEWAY[4],
    }


def test_a_client_of_ipv6_localhost_is_refused_at_once(world: World) -> None:
    """The kernel cannot bring answers back to ::1; waiting for them would be worse."""
    ports = [PortMapping("tcp", 80, 8080, ANY[6]), PortMapping("udp", 53, 5353, ANY[6])]
    world.join(world.driver(), world.network("net", *BOTH), 2, *ports)
    with socket_in(world.host, 6, "tcp") as client, pytest.raises(ConnectionRefusedError):
        client.connect(("::1", 8080))
    with socket_in(world.host, 6, "udp") as client:
        client.connect(("::1", 5353))
        with pytest.raises(OSError, match=r"refused|not permitted"):
            client.send(b"x")


@FAMILIES
@TRANSPORTS
def test_what_is_not_published_is_reached_only_from_the_host_and_peers(
    world: World, version: int, protocol: str
) -> None:
    driver = world.driver()
    network = world.network("net", *BOTH)
    other = world.network("other", "172.18.0.0/16", "fd00:18::/64")
    web, peer = world.join(driver, network, 2), world.join(driver, network, 3)
    stranger = world.join(driver, other, 2)
    world.route_from_remote(BOTH[version == 6])
    with listening(web.where, version, protocol, 80) as server:
        address = web.address(version)
        results = {
            "host": reach(world.host, address, 80, server, protocol),
            "peer": reach(peer.where, address, 80, server, protocol),
            "other": blocked(stranger.where, address, 80, server, protocol),
            "remote": blocked(world.remote, address, 80, server, protocol),
        }

    assert results == {
        "host": GATEWAY[version], "peer": peer.address(version), "other": True, "remote": True,
    }  # fmt: skip


def test_a_published_port_is_not_reached_past_its_host_port(world: World) -> None:
    """A stranger with a route to the container gets no further than by the host's address."""
    driver = world.driver()
    port = PortMapping("tcp", 80, 8080, ip_address("127.0.0.1"))
    web = world.join(driver, world.network(), 2, port)
    world.route_from_remote("172.17.0.0/16")
    with listening(web.where, 4, "tcp", 80) as server:
        assert blocked(world.remote, web.address(), 80, server, "tcp")
        assert blocked(world.remote, HOST[4], 8080, server, "tcp")
        assert reach(world.host, ip_address("127.0.0.1"), 8080, server, "tcp")


def test_a_port_on_one_address_is_published_there_alone(world: World) -> None:
    web = world.join(world.driver(), world.network(), 2, PortMapping("tcp", 80, 8080, HOST[4]))
    with listening(web.where, 4, "tcp", 80) as server:
        assert reach(world.remote, HOST[4], 8080, server, "tcp") == REMOTE[4]
        assert blocked(world.host, ip_address("127.0.0.1"), 8080, server, "tcp")


@FAMILIES
def test_containers_reach_the_world_with_the_hosts_address(world: World, version: int) -> None:
    web = world.join(world.driver(), world.network("net", *BOTH), 2)
    with listening(world.remote, version, "tcp", 80) as server:
        assert reach(web.where, REMOTE[version], 80, server, "tcp") == HOST[version]


def test_without_masquerade_they_keep_their_own(world: World) -> None:
    network = world.network(**{"com.docker.network.bridge.enable_ip_masquerade": "false"})
    web = world.join(world.driver(), network, 2)
    world.route_from_remote("172.17.0.0/16")
    with listening(world.remote, 4, "tcp", 80) as server:
        assert reach(web.where, REMOTE[4], 80, server, "tcp") == web.address()


def test_a_source_address_takes_the_place_of_masquerade(world: World) -> None:
    second = ip_address("192.0.2.77")
    world._dress(world.host, "eth0", {4: second})
    network = world.network(**{"com.docker.network.host_ipv4": "192.0.2.77"})
    web = world.join(world.driver(), network, 2)
    with listening(world.remote, 4, "tcp", 80) as server:
        assert reach(web.where, REMOTE[4], 80, server, "tcp") == second


@pytest.mark.parametrize("netfilter", ["0", "1"])
@FAMILIES
def test_without_icc_peers_meet_only_through_published_ports(
    world: World, version: int, netfilter: str
) -> None:
    bridge_netfilter(world, netfilter)
    driver = world.driver()
    network = world.network("net", *BOTH, **{"com.docker.network.bridge.enable_icc": "false"})
    web = world.join(driver, network, 2, PortMapping("tcp", 80, 8080, ANY[version]))
    peer = world.join(driver, network, 3)
    with (
        listening(web.where, version, "tcp", 80) as server,
        listening(web.where, version, "tcp", 81) as hidden,
    ):
        assert blocked(peer.where, web.address(version), 81, hidden, "tcp")
        assert blocked(peer.where, web.address(version), 80, server, "tcp")
        assert reach(peer.where, HOST[version], 8080, server, "tcp") == GATEWAY[version]
        assert reach(web.where, HOST[version], 8080, server, "tcp") == GATEWAY[version]
        assert reach(world.remote, HOST[version], 8080, server, "tcp") == REMOTE[version]
        assert reach(world.host, web.address(version), 81, hidden, "tcp") == GATEWAY[version]


def test_a_link_opens_one_port_one_way_where_icc_is_off(world: World) -> None:
    driver = world.driver()
    network = world.network(**{"com.docker.network.bridge.enable_icc": "false"})
    web, peer, third = (world.join(driver, network, number) for number in (2, 3, 4))
    settings = driver.driver._settings(network)  # type: ignore[attr-defined]  # white box
    firewall = driver.driver._firewall  # type: ignore[attr-defined]

    def side(container: Container, *ports: PortMapping) -> FirewallEndpoint:
        return FirewallEndpoint(
            container.endpoint.id, network.id, (container.address(),), tuple(ports)
        )

    exposed = PortMapping("tcp", 80, 0, ANY[4])
    link = (settings.firewall, side(peer), side(web, exposed))
    world.on_host(lambda: firewall.add_link(*link))
    with (
        listening(web.where, 4, "tcp", 80) as server,
        listening(web.where, 4, "tcp", 81) as hidden,
    ):
        assert reach(peer.where, web.address(), 80, server, "tcp") == peer.address()
        assert blocked(peer.where, web.address(), 81, hidden, "tcp")
        assert blocked(third.where, web.address(), 80, server, "tcp")
        world.on_host(lambda: firewall.remove_link(*link))
        assert blocked(peer.where, web.address(), 80, server, "tcp")


def test_translation_leads_neither_into_nor_out_of_an_internal_network(world: World) -> None:
    """Not even a rule of somebody else's."""
    driver = world.driver()
    hidden = world.join(driver, world.network("net", internal=True), 2)
    open_port = PortMapping("tcp", 80, 8080, ANY[4])
    web = world.join(driver, world.network("open", "172.18.0.0/16"), 2, open_port)
    foreign = """table ip foreign {
        chain pre {
            type nat hook prerouting priority -110;
            tcp dport 9090 dnat to 172.17.0.2:80
        }
    }"""
    session = NftSession()
    world.on_host(lambda: session.transact(foreign))
    session.close()
    in_network_namespace(hidden.where, lambda: _default_route("172.17.0.1"))
    with listening(hidden.where, 4, "tcp", 80) as server:
        assert blocked(world.remote, HOST[4], 9090, server, "tcp")
    with listening(web.where, 4, "tcp", 80) as server:
        assert blocked(hidden.where, HOST[4], 8080, server, "tcp")


def _default_route(gateway: str) -> None:
    with Netlink() as netlink:
        link = find_link(netlink, "eth0")
        assert link
        route = add_route(ip_network("0.0.0.0/0"), link.index, ip_address(gateway))
        netlink.change("t", [route])


@FAMILIES
def test_an_internal_network_ends_at_the_host(world: World, version: int) -> None:
    driver = world.driver()
    network = world.network("net", *BOTH, internal=True)
    web = world.join(driver, network, 2, PortMapping("tcp", 80, 8080, ANY[version]))
    peer = world.join(driver, network, 3)
    open_one = world.join(driver, world.network("open", "172.18.0.0/16", "fd00:18::/64"), 2)
    with listening(web.where, version, "tcp", 80) as server:
        assert reach(peer.where, web.address(version), 80, server, "tcp") == peer.address(version)
        assert reach(world.host, web.address(version), 80, server, "tcp") == GATEWAY[version]
        assert blocked(world.remote, HOST[version], 8080, server, "tcp")
        assert blocked(open_one.where, web.address(version), 80, server, "tcp")
    with listening(world.remote, version, "tcp", 80) as server:
        assert blocked(web.where, REMOTE[version], 80, server, "tcp")


def test_a_routed_network_shows_its_own_addresses(world: World) -> None:
    network = world.network(**{"com.docker.network.bridge.gateway_mode_ipv4": "routed"})
    web = world.join(world.driver(), network, 2, PortMapping("tcp", 80, 8080, ANY[4]))
    world.route_from_remote("172.17.0.0/16")
    with (
        listening(web.where, 4, "tcp", 80) as server,
        listening(web.where, 4, "tcp", 81) as hidden,
    ):
        assert reach(world.remote, web.address(), 80, server, "tcp") == REMOTE[4]
        assert blocked(world.remote, web.address(), 81, hidden, "tcp")
    with listening(world.remote, 4, "tcp", 80) as server:
        assert reach(web.where, REMOTE[4], 80, server, "tcp") == web.address()


def test_a_trusted_link_of_the_host_reaches_every_port(world: World) -> None:
    network = world.network(**{"com.docker.network.bridge.trusted_host_interfaces": "eth0"})
    web = world.join(world.driver(), network, 2)
    world.route_from_remote("172.17.0.0/16")
    with listening(web.where, 4, "tcp", 81) as server:
        assert reach(world.remote, web.address(), 81, server, "tcp") == REMOTE[4]


def aim_at_loopback(where: int, gateway: Address) -> None:
    """Make a namespace send packets for 127.0.0.1 to its gateway."""

    def run() -> None:
        with Netlink() as netlink:
            link = find_link(netlink, "eth0")
            assert link
            netlink.change("t", [delete_address(1, ip_interface("127.0.0.1/8"))])
            route = add_route(ip_network("127.0.0.1/32"), link.index, gateway)
            netlink.change("t", [route])
        Path("/proc/sys/net/ipv4/conf/eth0/route_localnet").write_text("1")

    in_network_namespace(where, run)


def test_containers_cannot_use_the_hosts_loopback(world: World) -> None:
    """route_localnet on the bridge must not open 127.0.0.1 of the host (CVE-2020-8558)."""
    web = world.join(world.driver(), world.network(), 2)
    aim_at_loopback(web.where, GATEWAY[4])
    with listening(world.host, 4, "tcp", 80) as server:
        assert blocked(web.where, ip_address("127.0.0.1"), 80, server, "tcp")
        assert reach(web.where, GATEWAY[4], 80, server, "tcp") == web.address()


def test_a_stranger_cannot_use_what_is_published_on_the_hosts_loopback(world: World) -> None:
    port = PortMapping("tcp", 80, 8080, ip_address("127.0.0.1"))
    web = world.join(world.driver(), world.network(), 2, port)
    aim_at_loopback(world.remote, HOST[4])
    with listening(web.where, 4, "tcp", 80) as server:
        assert blocked(world.remote, ip_address("127.0.0.1"), 8080, server, "tcp")


def test_a_udp_client_that_never_pauses_follows_the_port(world: World) -> None:
    """Its tracked flow would hold the port's old meaning for ever (plugins#1190)."""
    from .conftest import socket_in

    driver, network = world.driver(), world.network()
    world.on_host(lambda: driver.create(network))
    port = PortMapping("udp", 53, 5353, ANY[4])
    with socket_in(world.remote, 4, "udp") as client:
        client.connect((str(HOST[4]), 5353))
        client.send(b"before")
        first = world.join(driver, network, 2, port)
        with listening(first.where, 4, "udp", 53) as server:
            _send_until_heard(client, server)
        world.on_host(lambda: driver.revoke_external(network, first.endpoint, [port]))
        second = world.join(driver, network, 3, port)
        with listening(second.where, 4, "udp", 53) as server:
            _send_until_heard(client, server)


def _send_until_heard(client: socket.socket, server: socket.socket) -> None:
    with contextlib.suppress(OSError):  # an ICMP error of before
        client.send(b"x")
    client.send(b"x")
    assert server.recv(10) == b"x"
