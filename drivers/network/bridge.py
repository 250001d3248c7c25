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

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from msgspec.structs import replace

from stowage import hookimpl
from stowage.errors import DataLoss, StowageError
from stowage.linux.namespaces import (
    CLONE_NEWNET,
    in_network_namespace,
    on_throwaway_thread,
    open_namespace,
    unshare,
)
from stowage.linux.netlink import Netlink
from stowage.linux.rtnetlink import (
    Link,
    create_bridge,
    create_veth,
    find_link,
    read_links,
)
from stowage.model import (
    API_VERSION,
    Address,
    Endpoint,
    Finding,
    Firewall,
    JoinResult,
    Network,
    NetworkCapabilities,
    NetworkContext,
    NetworkProbe,
    PortMapping,
    Recorded,
    Sandbox,
)
from stowage.options import Option, Options

from . import _bridge_device, _sysctl
from ._bridge_pair import Pair, check_inside, delete_links, link_group
from ._bridge_ports import check_reachable, firewall_endpoint, forget_flows
from ._bridge_settings import NETWORK_OPTIONS, BridgeSettings, read_settings
from ._lock import NetworkLock

_PREFIX = "stw"


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
        self._firewall.restore(known, [firewall_endpoint(endpoint) for endpoint in endpoints])

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
            pair = Pair(
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
                delete_links(netlink, [name], self._group)

    # --- ports -------------------------------------------------------------------------------

    @hookimpl
    def network_program_external(
        self, network: Network, endpoint: Endpoint, ports: Sequence[PortMapping]
    ) -> None:
        if not ports:
            return
        published = replace(endpoint, ports=tuple(ports))
        check_reachable(published)
        try:
            with self._lock.shared():
                self._firewall.add_endpoint(
                    self._settings(network).firewall, firewall_endpoint(published)
                )
        except DataLoss:
            self._restore_rules(network, published)
        mine = [interface.ip for interface in endpoint.addresses]
        forget_flows(ports, unless_answered_by=mine)

    @hookimpl
    def network_revoke_external(
        self, network: Network, endpoint: Endpoint, ports: Sequence[PortMapping]
    ) -> None:
        if not ports:
            return
        published = replace(endpoint, ports=tuple(ports))
        with self._lock.shared():
            self._firewall.remove_endpoint(
                self._settings(network).firewall, firewall_endpoint(published)
            )
        forget_flows(ports)

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
            [firewall_endpoint(known) for known in recorded.endpoints],
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
                sandbox.descriptor, lambda: check_inside(endpoint, gateways)
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
                delete_links(netlink, strays, self._group)

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
