"""A small world in namespaces: a host with a way out, a stranger beyond it, sandboxes.

::

    remote 192.0.2.2, 2001:db8::2 ── veth ── host 192.0.2.1, 2001:db8::1 ── bridges ── sandboxes
"""

from __future__ import annotations

import hashlib
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import TypeVar

import pytest
from msgspec.structs import replace

from stowage.handle import FirewallHandle, NetworkHandle
from stowage.linux.namespaces import in_network_namespace, network_cookie, new_network_namespace
from stowage.linux.netlink import Netlink
from stowage.linux.rtnetlink import (
    add_address,
    add_route,
    create_veth,
    find_link,
    read_links,
    set_link,
)
from stowage.model import (
    Address,
    Endpoint,
    Network,
    NetworkContext,
    Pool,
    PortMapping,
    Recorded,
    Sandbox,
)
from stowage.net import ipam
from stowage.options import Options
from stowage_drivers.network.bridge import BridgeDriver
from stowage_drivers.network.firewall.nftables import NftablesBackend
from stowage_drivers.network.firewall.none import NoneBackend

R = TypeVar("R")
LOGGER = logging.getLogger("test")
REMOTE = {4: ip_address("192.0.2.2"), 6: ip_address("2001:db8::2")}
HOST = {4: ip_address("192.0.2.1"), 6: ip_address("2001:db8::1")}
PATIENCE_SECONDS = 5.0  # of who will be answered
DISBELIEF_SECONDS = 0.3  # of who will not


def token(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class World:
    """Namespaces, and what a metastore would know."""

    directory: Path
    stack: ExitStack
    networks: dict[str, Network] = field(default_factory=dict)
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    sandboxes: dict[str, Sandbox] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.host = self.namespace()
        self.remote = self.namespace()
        self._wire(self.host, self.remote, "eth0", HOST)
        self._dress(self.remote, "eth0", REMOTE)

    # --- namespaces ------------------------------------------------------------------------

    def namespace(self) -> int:
        descriptor = new_network_namespace()
        self.stack.callback(os.close, descriptor)
        return descriptor

    def on_host(self, function: Callable[[], R]) -> R:
        return in_network_namespace(self.host, function)

    def _wire(self, near: int, far: int, name: str, addresses: dict[int, Address]) -> None:
        def run() -> None:
            with Netlink() as netlink:
                netlink.change("t", [create_veth(name, "eth0", far)])

        in_network_namespace(near, run)
        self._dress(near, name, addresses)

    def _dress(self, where: int, name: str, addresses: dict[int, Address]) -> None:
        def run() -> None:
            with Netlink() as netlink:
                link = find_link(netlink, name)
                assert link
                for version, address in addresses.items():
                    length = 24 if version == 4 else 64
                    netlink.change(
                        "t", [add_address(link.index, ip_interface(f"{address}/{length}"))]
                    )
                netlink.change("t", [set_link(name, up=True)])

        in_network_namespace(where, run)

    def route_from_remote(self, subnet: str) -> None:
        """Let the stranger send to containers directly, by way of the host."""

        def run() -> None:
            with Netlink() as netlink:
                link = find_link(netlink, "eth0")
                assert link
                network = ip_network(subnet)
                netlink.change("t", [add_route(network, link.index, HOST[network.version])])

        in_network_namespace(self.remote, run)

    # --- drivers ---------------------------------------------------------------------------

    def context(
        self, root_id: str = "0a1b2c3d", settings: Mapping[str, object] | None = None
    ) -> NetworkContext:
        context = NetworkContext(
            root_id, self.directory / root_id, settings or {}, recorded=self.recorded
        )
        firewall = FirewallHandle(NftablesBackend(context, Options({}), LOGGER), "test")
        self.stack.callback(firewall.close)
        return replace(context, firewall=lambda: firewall)

    def driver(
        self, root_id: str = "0a1b2c3d", settings: Mapping[str, object] | None = None
    ) -> NetworkHandle:
        context = self.context(root_id, settings)
        return NetworkHandle(BridgeDriver(context, Options({}), LOGGER), "test")

    def bare_driver(self) -> NetworkHandle:
        """A driver whose firewall backend writes nothing."""
        context = NetworkContext("0a1b2c3d", self.directory, recorded=self.recorded)
        firewall = FirewallHandle(NoneBackend(context, Options({}), LOGGER), "test")
        context = replace(context, firewall=lambda: firewall)
        return NetworkHandle(BridgeDriver(context, Options({}), LOGGER), "test")

    def recorded(self) -> Recorded:
        return Recorded(list(self.networks.values()), list(self.endpoints.values()))

    # --- networks and endpoints --------------------------------------------------------------

    def network(self, name: str = "net", *subnets: str, **options: object) -> Network:
        pools = []
        for text in subnets or ("172.17.0.0/16",):
            subnet = ip_network(text)
            pools.append(Pool(subnet, gateway=subnet.network_address + 1))
        internal = bool(options.pop("internal", False))
        words = {key: str(value) for key, value in options.items()}
        words.setdefault("com.docker.network.bridge.name", f"b-{name}")
        network = Network(
            token(name), name, "bridge", tuple(pools), options=words, internal=internal
        )
        self.networks[network.id] = network
        return network

    def endpoint(self, network: Network, number: int, *ports: PortMapping) -> Endpoint:
        addresses = [
            ip_interface(f"{pool.subnet.network_address + number}/{pool.subnet.prefixlen}")
            for pool in network.pools
        ]
        name = f"{network.name}-{number}"
        endpoint = Endpoint(
            token(name), network.id, token("c" + name), tuple(addresses),
            mac_address=ipam.mac_address(addresses), ports=ports,
        )  # fmt: skip
        self.endpoints[endpoint.id] = endpoint
        return endpoint

    def sandbox(self, endpoint: Endpoint) -> Sandbox:
        if endpoint.id not in self.sandboxes:
            descriptor = self.namespace()
            self.sandboxes[endpoint.id] = Sandbox(
                endpoint.container_id, descriptor, network_cookie(descriptor)
            )
        return self.sandboxes[endpoint.id]

    def join(
        self, driver: NetworkHandle, network: Network, number: int, *ports: PortMapping
    ) -> Container:
        """Bring an endpoint all the way up."""
        endpoint = self.endpoint(network, number, *ports)
        sandbox = self.sandbox(endpoint)
        self.on_host(lambda: driver.create(network))
        self.on_host(lambda: driver.join(network, endpoint, sandbox))
        self.on_host(lambda: driver.program_external(network, endpoint, ports))
        return Container(endpoint, sandbox)

    def links(self) -> set[str]:
        def run() -> set[str]:
            with Netlink() as netlink:
                return {link.name for link in read_links(netlink)}

        return self.on_host(run) - {"lo", "eth0"}


@dataclass(frozen=True)
class Container:
    endpoint: Endpoint
    sandbox: Sandbox

    @property
    def where(self) -> int:
        return self.sandbox.descriptor

    def address(self, version: int = 4) -> Address:
        return next(i.ip for i in self.endpoint.addresses if i.version == version)


def socket_in(where: int, version: int, protocol: str) -> socket.socket:
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    made = in_network_namespace(where, lambda: socket.socket(family, kind))
    made.settimeout(PATIENCE_SECONDS)
    return made


def listening(where: int, version: int, protocol: str, port: int) -> socket.socket:
    server = socket_in(where, version, protocol)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("" if version == 4 else "::", port))
    if protocol == "tcp":
        server.listen(16)
    return server


def blocked(client: int, target: Address, port: int, server: socket.socket, protocol: str) -> bool:
    """Whether nothing gets through."""
    return reach(client, target, port, server, protocol, DISBELIEF_SECONDS) is None


def reach(
    client: int,
    target: Address,
    port: int,
    server: socket.socket,
    protocol: str,
    patience_seconds: float = PATIENCE_SECONDS,
) -> Address | None:
    """Send a word there and back; return the client's address as the server saw it, or None."""
    server.settimeout(patience_seconds)
    with socket_in(client, target.version, protocol) as near:
        near.settimeout(patience_seconds)
        try:
            near.connect((str(target), port))
            if protocol == "tcp":
                far, peer = server.accept()
                with far:
                    far.settimeout(patience_seconds)
                    near.sendall(b"ping")
                    assert far.recv(10) == b"ping"
                    far.sendall(b"pong")
            else:
                near.send(b"ping")
                word, peer = server.recvfrom(10)
                assert word == b"ping"
                server.sendto(b"pong", peer)
            assert near.recv(10) == b"pong"
        except OSError:
            return None
    return ip_address(peer[0])


@pytest.fixture
def world(shm_dir: Path, requires_root: None) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(shm_dir, stack)
