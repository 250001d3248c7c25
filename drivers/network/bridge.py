"""The network driver ``bridge``: containers on a bridge of the host, hidden behind its address.

::

    host                                     sandbox
    ┌───────────────────────────────┐        ┌─────────────────────────────┐
    │ eth0 ◄─ NAT ─► stowage0       │        │ eth0  172.17.0.2/16         │
    │                172.17.0.1/16  │        │       default via 172.17.0.1│
    │                └── stw<hash> ═╪═ veth ═╪═ lo                         │
    └───────────────────────────────┘        └─────────────────────────────┘

A join is three sends: the pair is made, its far end inside the sandbox from the start; it is
dressed there; the near end is plugged in. Who may talk to whom, and published ports, are the
firewall backend's. Links die with the sandbox; nothing has to be taken down for them.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_interface, ip_network

from stowage import effect, hookimpl
from stowage.errors import AlreadyExists, DataLoss, FailedPrecondition, NotSupported, StowageError
from stowage.linux.conntrack import forget_udp
from stowage.linux.namespaces import (
    CLONE_NEWNET,
    in_network_namespace,
    on_throwaway_thread,
    open_namespace,
    unshare,
)
from stowage.linux.netlink import Message, Netlink, NetlinkError
from stowage.linux.rtnetlink import (
    PORT_DISABLED,
    Link,
    add_address,
    add_route,
    create_bridge,
    create_veth,
    delete_group,
    delete_link,
    find_link,
    generate_no_address,
    read_addresses,
    read_links,
    read_routes,
    set_bridge_port,
    set_link,
)
from stowage.model import (
    API_VERSION,
    Address,
    Endpoint,
    Finding,
    Firewall,
    FirewallEndpoint,
    Interface,
    JoinResult,
    Network,
    NetworkCapabilities,
    NetworkContext,
    NetworkProbe,
    PortMapping,
    Recorded,
    Sandbox,
    Subnet,
)
from stowage.options import Option, Options

from . import _bridge_device, _sysctl
from ._bridge_settings import NETWORK_OPTIONS, BridgeSettings, read_settings
from ._lock import NetworkLock

_PREFIX = "stw"
_READY_SECONDS = 1.0


class BridgeDriver:
    """Docker's bridge networks: the default one and those that users make."""

    name = "bridge"
    api_version = API_VERSION
    options: Sequence[Option[object]] = ()
    per_network_options = NETWORK_OPTIONS
    priority = 50
    capabilities = NetworkCapabilities(
        sandbox="private", ipam=True, publish=True, user_defined=True, multi_network=True
    )

    def __init__(self, context: NetworkContext, options: Options, logger: logging.Logger) -> None:
        self._context = context
        self._root_id = context.root_id
        self._group = link_group(context.root_id)
        self._lock = NetworkLock(context.exec_root)
        self._logger = logger
        self._settings_by_network: dict[str, tuple[Network, BridgeSettings]] = {}

    @hookimpl
    def network_probe(self) -> NetworkProbe:
        try:
            on_throwaway_thread(_try_links)
        except OSError as error:
            remedy = "run as root with CAP_NET_ADMIN, on a kernel with bridge and veth"
            reason = f"a bridge with a port cannot be made: {error.strerror}"
            return NetworkProbe(findings=(Finding(reason, remedy),))
        return NetworkProbe(self.capabilities, notes=("links, addresses and routes by netlink",))

    @hookimpl
    def network_validate(self, network: Network) -> None:
        read_settings(network, self._context.settings)

    # --- networks ----------------------------------------------------------------------------

    @hookimpl
    def network_create(self, network: Network) -> None:
        with self._lock.shared():
            self._ensure_device(network)
        self._ensure_rules(network)

    def _ensure_device(self, network: Network) -> Link:
        settings = self._settings(network)
        self._forward_packets(network)
        with Netlink() as netlink:
            return _bridge_device.ensure(netlink, self._root_id, network, settings)

    def _forward_packets(self, network: Network) -> None:
        if not self._context.settings.get("ip-forward", True):
            return
        versions = {pool.subnet.version for pool in network.pools}
        if 4 in versions:
            _sysctl.write("ipv4/ip_forward", "1")
        if 6 in versions:
            _sysctl.write_optional("ipv6/conf/all/forwarding", "1")

    def _ensure_rules(self, network: Network) -> None:
        """Add the network's rules; where those of others are lost, write all anew."""
        try:
            with self._lock.shared():
                self._firewall.add_network(self._settings(network).firewall)
        except DataLoss:
            self._restore_rules(network)

    def _restore_rules(
        self, network: Network | None = None, endpoint: Endpoint | None = None
    ) -> None:
        """Write all rules of the root; *network* and *endpoint* count as recorded."""
        with self._lock.alone():
            recorded = self._recorded()
            networks = {known.id: known for known in recorded.networks}
            endpoints = {known.id: known for known in recorded.endpoints}
            if network is not None:
                networks[network.id] = network
            if endpoint is not None:
                endpoints[endpoint.id] = endpoint
            self._write_rules(list(networks.values()), list(endpoints.values()))

    def _write_rules(self, networks: Sequence[Network], endpoints: Sequence[Endpoint]) -> None:
        known = [self._settings(network).firewall for network in networks]
        self._firewall.restore(known, [_firewall_endpoint(endpoint) for endpoint in endpoints])

    def _recorded(self) -> Recorded:
        recorded = self._context.recorded()
        networks = [network for network in recorded.networks if network.driver == self.name]
        ids = {network.id for network in networks}
        return Recorded(networks, [e for e in recorded.endpoints if e.network_id in ids])

    @hookimpl
    def network_delete(self, network: Network) -> None:
        failures: list[Exception] = []
        settings = self._settings(network)
        with self._lock.alone():
            with _collecting(failures):
                self._firewall.remove_network(settings.firewall)
            with _collecting(failures), Netlink() as netlink:
                _bridge_device.delete(netlink, self._root_id, settings)
        self._settings_by_network.pop(network.id, None)
        if len(failures) == 1:
            raise failures[0]
        if failures:
            raise ExceptionGroup(f"network {network.name!r} could not be deleted", failures)

    # --- endpoints ---------------------------------------------------------------------------

    @hookimpl
    def network_join(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> JoinResult:
        settings = self._settings(network)
        if not self._firewall.intact:
            self._restore_rules(network)
        with self._lock.shared(), Netlink() as host:
            bridge = find_link(host, settings.device)
            if bridge is None or not bridge.up:
                bridge = self._ensure_device(network)
            pair = _Pair(
                self.host_interface(endpoint),
                endpoint,
                bridge,
                self._group,
                isolated=_bridge_device.isolates(settings),
            )
            gateways = () if settings.firewall.internal else _gateways(network, endpoint)
            pair.join(host, sandbox, gateways)
        return JoinResult(gateways=gateways)

    def host_interface(self, endpoint: Endpoint) -> str:
        """Return the name of the host's end: the recorded one, or one made of root and endpoint."""
        if endpoint.host_interface:
            return endpoint.host_interface
        text = f"{self._root_id} {endpoint.id}"
        return _PREFIX + hashlib.sha256(text.encode()).hexdigest()[:12]

    @hookimpl
    def network_leave(self, network: Network, endpoint: Endpoint, sandbox: Sandbox | None) -> None:
        if sandbox is None:
            return  # the kernel reaps the pair with the namespace
        name = self.host_interface(endpoint)
        with Netlink() as netlink:
            if find_link(netlink, name) is not None:
                _delete_links(netlink, [name], self._group)

    # --- ports -------------------------------------------------------------------------------

    @hookimpl
    def network_program_external(
        self, network: Network, endpoint: Endpoint, ports: Sequence[PortMapping]
    ) -> None:
        if not ports:
            return
        published = replace(endpoint, ports=tuple(ports))
        _check_reachable(published)
        try:
            with self._lock.shared():
                self._firewall.add_endpoint(
                    self._settings(network).firewall, _firewall_endpoint(published)
                )
        except DataLoss:
            self._restore_rules(network, published)
        mine = [interface.ip for interface in endpoint.addresses]
        _forget_flows(ports, unless_answered_by=mine)

    @hookimpl
    def network_revoke_external(
        self, network: Network, endpoint: Endpoint, ports: Sequence[PortMapping]
    ) -> None:
        if not ports:
            return
        published = replace(endpoint, ports=tuple(ports))
        with self._lock.shared():
            self._firewall.remove_endpoint(
                self._settings(network).firewall, _firewall_endpoint(published)
            )
        _forget_flows(ports)

    # --- reconcile ---------------------------------------------------------------------------

    @hookimpl
    def network_check(
        self, network: Network, endpoint: Endpoint | None, sandbox: Sandbox | None
    ) -> Sequence[str]:
        settings = self._settings(network)
        with Netlink() as netlink:
            if endpoint is not None:
                return self._check_endpoint(netlink, network, endpoint, sandbox)
            found = _bridge_device.check(netlink, self._root_id, network, settings)
        recorded = self._recorded()
        networks = {known.id: known for known in (*recorded.networks, network)}
        found += self._firewall.check(
            [self._settings(known).firewall for known in networks.values()],
            [_firewall_endpoint(known) for known in recorded.endpoints],
        )
        return found

    def _check_endpoint(
        self, host: Netlink, network: Network, endpoint: Endpoint, sandbox: Sandbox | None
    ) -> list[str]:
        settings = self._settings(network)
        name = self.host_interface(endpoint)
        link, bridge = find_link(host, name), find_link(host, settings.device)
        if link is None:
            return [f"the link {name} is missing"]
        found = []
        if bridge is None or link.master != bridge.index:
            found.append(f"the link {name} is no port of {settings.device}")
        if not link.up:
            found.append(f"the link {name} is down")
        if link.isolated != _bridge_device.isolates(settings):
            state = "isolated" if link.isolated else "not isolated"
            found.append(f"the link {name} is {state}")
        if sandbox is not None:
            gateways = () if settings.firewall.internal else _gateways(network, endpoint)
            found += in_network_namespace(
                sandbox.descriptor, lambda: _check_inside(endpoint, gateways)
            )
        return found

    @hookimpl
    def network_restore(self, networks: Sequence[Network], endpoints: Sequence[Endpoint]) -> None:
        failures: list[Exception] = []
        with self._lock.alone():
            recorded = self._recorded()
            if not recorded.networks:  # nobody to ask: what we were told
                recorded = Recorded([n for n in networks if n.driver == self.name], endpoints)
            self._remove_strays(recorded)
            for network in recorded.networks:
                with _collecting(failures):
                    self._ensure_device(network)
            with _collecting(failures):
                self._write_rules(recorded.networks, recorded.endpoints)
        if failures:
            raise ExceptionGroup("networks could not be restored", failures)

    def _remove_strays(self, recorded: Recorded) -> None:
        """Delete the links that carry this root's marks and belong to nothing recorded."""
        wanted = {self.host_interface(endpoint) for endpoint in recorded.endpoints}
        wanted |= {self._settings(network).device for network in recorded.networks}
        ours = _bridge_device.mark(self._root_id)
        with Netlink() as netlink:
            strays = [
                link.name
                for link in read_links(netlink)
                if link.name not in wanted
                and (link.group == self._group or link.alias.startswith(ours))
            ]
            if strays:
                self._logger.info("removing stray links: %s", ", ".join(strays))
                _delete_links(netlink, strays, self._group)

    # --- what users see ----------------------------------------------------------------------

    @hookimpl
    def network_warnings(self, network: Network, ports: Sequence[PortMapping]) -> Sequence[str]:
        settings = self._settings(network)
        found = list(self._firewall.warnings(settings.firewall))
        if ports and settings.firewall.internal:
            found.append(f"{network.name!r} is an internal network: its ports are not published")
        if not settings.firewall.internal and _sysctl.read("ipv4/ip_forward") == "0":
            found.append(
                "net.ipv4.ip_forward is 0: containers reach only this host and each other;"
                " set ip-forward to true"
            )
        return found

    @hookimpl
    def network_metadata(self, network: Network, endpoint: Endpoint | None) -> Mapping[str, str]:
        settings = self._settings(network)
        if endpoint is None:
            return {"bridge": settings.device}
        return {"bridge": settings.device, "host_interface": self.host_interface(endpoint)}

    # --- helpers -----------------------------------------------------------------------------

    @property
    def _firewall(self) -> Firewall:
        return self._context.firewall()

    def _settings(self, network: Network) -> BridgeSettings:
        known = self._settings_by_network.get(network.id)
        if known is None or known[0] != network:
            known = (network, read_settings(network, self._context.settings))
            self._settings_by_network[network.id] = known
        return known[1]


def link_group(root_id: str) -> int:
    """Return the link group (32 bits, never 0) that marks the links of a root."""
    return int.from_bytes(hashlib.sha256(root_id.encode()).digest()[:4], "big") >> 1 | 1


class _Pair:
    """The veth pair of one endpoint."""

    def __init__(
        self, name: str, endpoint: Endpoint, bridge: Link, group: int, *, isolated: bool
    ) -> None:
        self.name = name
        self.endpoint = endpoint
        self.bridge = bridge
        self.group = group
        self.isolated = isolated
        self.inner = endpoint.interface or "eth0"

    def join(self, host: Netlink, sandbox: Sandbox, gateways: Sequence[Address]) -> None:
        """Make the pair, dress the far end, plug the near one in; *host* is a socket outside.

        The host's end comes up last: the bridge then enables its port once, with the carrier
        on, instead of once without and once more from a work queue.
        """
        self._create(host, sandbox)
        # a port of a bridge speaks no IPv6 itself, and each that does slows all others down
        _sysctl.write_optional(f"ipv6/conf/{self.name}/disable_ipv6", "1")
        with in_network_namespace(sandbox.descriptor, Netlink) as inside:
            link = find_link(inside, self.inner)
            if link is None:
                raise FailedPrecondition(f"the link {self.inner} vanished from the sandbox")
            _dress(inside, link, self.endpoint, gateways)
            self._plug(host)
            _wait(inside, self.inner, lambda link: link.running)
            _wait(host, self.name, lambda link: link.port_state != PORT_DISABLED)
        if not self.bridge.running:  # a bridge without ports has no carrier
            _wait(host, self.bridge.name, lambda link: link.running)
        _announce(link, self.endpoint, sandbox)

    def _create(self, host: Netlink, sandbox: Sandbox) -> None:
        message = create_veth(
            self.name,
            self.inner,
            sandbox.descriptor,
            mtu=self.bridge.mtu,
            peer_mac_address=self.endpoint.mac_address,
            group=self.group,
        )
        try:
            host.change("link.create", [message], link=self.name)
        except NetlinkError as error:
            if error.errno != errno.EEXIST:
                raise
            self._replace(host, message)

    def _replace(self, host: Netlink, message: Message) -> None:
        """A link of ours with that name is what a kill left; inside, a name may be taken."""
        stale = find_link(host, self.name)
        if stale is None or stale.group != self.group:
            taken = self.name if stale else self.inner
            raise AlreadyExists("network device", taken)
        _delete_links(host, [self.name], self.group)
        try:
            host.change("link.create", [message], link=self.name)
        except NetlinkError as error:
            if error.errno == errno.EEXIST:
                raise AlreadyExists("network device", self.inner) from error
            raise

    def _plug(self, host: Netlink) -> None:
        """Make the host's end a port of the bridge and set it up, isolated before it is up."""
        messages = [set_link(self.name, master=self.bridge.index)]
        hairpin = _bridge_device.filters_bridged()
        if hairpin or self.isolated:
            messages.append(
                set_bridge_port(self.name, isolated=self.isolated, hairpin=hairpin, up=True)
            )
        else:
            messages[0] = set_link(self.name, master=self.bridge.index, up=True)
        host.change("link.plug", messages, link=self.name)


def _dress(inside: Netlink, link: Link, endpoint: Endpoint, gateways: Sequence[Address]) -> None:
    """Addresses, up, and the way out; a default route that is there already stays.

    By messages alone: a look at /proc/sys/net costs more with every namespace that there is.
    """
    tolerated = {0: errno.EAFNOSUPPORT}
    messages = [generate_no_address(link.name)]
    if any(interface.version == 6 for interface in endpoint.addresses):
        messages.append(add_address(link.index, _link_local(link.mac_address)))
    messages += [add_address(link.index, interface) for interface in endpoint.addresses]
    messages.append(set_link(link.name, up=True))
    for gateway in gateways:
        tolerated[len(messages)] = errno.EEXIST
        everything = _everything(gateway.version)
        messages.append(add_route(everything, link.index, gateway, replace=False))
    for index, number in inside.try_each("sandbox.dress", messages, link=link.name):
        if tolerated.get(index) != number:
            raise NetlinkError(number, f"dress {link.name}", "", index)


def _link_local(mac_address: str) -> Interface:
    """The address that the kernel would have made of the MAC, without its wait (RFC 4291, A)."""
    mac = bytes.fromhex(mac_address.replace(":", ""))
    identifier = bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:]
    return ip_interface((b"\xfe\x80" + bytes(6) + identifier, 64))


def _wait(netlink: Netlink, name: str, ready: Callable[[Link], bool]) -> None:
    """Wait until a link of a pair passes packets on, a moment after both ends are up.

    The kernel acts on the carrier from a work queue (linkwatch), or at once when it is asked for
    the link (6.8). A container that spoke before would lose its first packet and, with it, a
    second. After a second all the same we go on: a bridge may have its reasons.
    """
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        link = find_link(netlink, name)
        if link is None or ready(link):
            return
        time.sleep(0.0005)


def _announce(link: Link, endpoint: Endpoint, sandbox: Sandbox) -> None:
    """Tell neighbours who may know another MAC for the address (RFC 5227, section 3).

    One that is made of the address, as the IPAM's are, cannot be another.
    """
    mac = bytes.fromhex(link.mac_address.replace(":", ""))
    for interface in endpoint.addresses:
        packed = interface.ip.packed
        if interface.version != 4 or mac[2:] == packed:
            continue
        request = b"\0\1\x08\0\6\4\0\1" + mac + packed + bytes(6) + packed
        frame = b"\xff" * 6 + mac + b"\x08\x06" + request
        with (
            effect("address.announce", address=str(interface.ip)),
            in_network_namespace(sandbox.descriptor, _raw_socket) as wire,
        ):
            wire.bind((link.name, 0))
            wire.send(frame)


def _raw_socket() -> socket.socket:
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC)


def _everything(version: int) -> Subnet:
    return ip_network("0.0.0.0/0" if version == 4 else "::/0")


def _gateways(network: Network, endpoint: Endpoint) -> tuple[Address, ...]:
    """The ways out: the bridge's own addresses, or what the network names instead."""
    versions = {interface.version for interface in endpoint.addresses}
    found = []
    for pool in network.pools:
        named = pool.auxiliary.get(f"DefaultGatewayIPv{pool.subnet.version}")
        gateway = named or pool.gateway
        if gateway is not None and gateway.version in versions:
            found.append(gateway)
    return tuple(found)


def _check_inside(endpoint: Endpoint, gateways: Sequence[Address]) -> list[str]:
    name = endpoint.interface or "eth0"
    with Netlink() as inside:
        link = find_link(inside, name)
        if link is None:
            return [f"the sandbox lacks the link {name}"]
        there = read_addresses(inside, link.index)
        routes = {route.gateway for route in read_routes(inside)
                  if route.destination.prefixlen == 0}  # fmt: skip
    found = [] if link.up else [f"{name} is down in the sandbox"]
    found += [f"{name} lacks {i} in the sandbox" for i in endpoint.addresses if i not in there]
    for gateway in gateways:
        if not any(via and via.version == gateway.version for via in routes):
            found.append(f"the sandbox lacks a default route via {gateway}")
    return found


def _delete_links(netlink: Netlink, names: Sequence[str], group: int) -> None:
    """Delete links; several go as one group, for each alone costs a grace period of RCU."""
    if len(names) == 1:
        results = netlink.try_each("link.delete", [delete_link(names[0])], link=names[0])
        _raise_unless_gone(results)
        return
    doomed = group ^ 0x40000000
    moved = [set_link(name, group=doomed) for name in names]
    _raise_unless_gone(netlink.try_each("link.regroup", moved, names=names))
    _raise_unless_gone(netlink.try_each("link.delete", [delete_group(doomed)], names=names))


def _raise_unless_gone(failures: Sequence[tuple[int, int]]) -> None:
    for index, number in failures:
        if number != errno.ENODEV:
            raise NetlinkError(number, "delete links", "", index)


def _firewall_endpoint(endpoint: Endpoint) -> FirewallEndpoint:
    addresses = tuple(interface.ip for interface in endpoint.addresses)
    return FirewallEndpoint(endpoint.id, endpoint.network_id, addresses, endpoint.ports)


def _check_reachable(endpoint: Endpoint) -> None:
    versions = {interface.version for interface in endpoint.addresses}
    for port in endpoint.ports:
        if port.host_address.version not in versions:
            family = f"IPv{port.host_address.version}"
            raise NotSupported(
                f"cannot publish {port}",
                details=f"the container has no {family} address on this network",
                resolution=f"give the network an {family} subnet, or publish on another address",
            )
        if port.host_address.version == 6 and port.host_address.is_loopback:
            raise NotSupported(
                f"cannot publish {port}",
                details="the kernel takes packets for ::1 from its own loopback alone",
                resolution="publish on 127.0.0.1",
            )


def _forget_flows(ports: Sequence[PortMapping], unless_answered_by: Sequence[Address] = ()) -> None:
    for port, version in {
        (port.host_port, port.host_address.version) for port in ports if port.protocol == "udp"
    }:
        forget_udp(port, version, unless_answered_by=unless_answered_by)


@contextmanager
def _collecting(failures: list[Exception]) -> Iterator[None]:
    """Keep an error for later, so that what follows is done all the same."""
    try:
        yield
    except (StowageError, OSError) as error:
        failures.append(error)


def _try_links() -> None:
    """Make a bridge and a pair in a namespace made for it."""
    unshare(CLONE_NEWNET)
    here = open_namespace("net")
    try:
        with Netlink() as netlink:
            netlink.change("link.create", [create_bridge("probe0")])
            netlink.change("link.create", [create_veth("probe1", "probe2", here)])
    finally:
        os.close(here)
