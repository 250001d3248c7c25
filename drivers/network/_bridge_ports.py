"""Published ports as the firewall backend and the connection tracker are told of them."""

from __future__ import annotations

from collections.abc import Sequence

from stowage.errors import NotSupported
from stowage.linux.conntrack import forget_udp
from stowage.model import (
    Address,
    Endpoint,
    FirewallEndpoint,
    PortMapping,
)


def firewall_endpoint(endpoint: Endpoint) -> FirewallEndpoint:
    addresses = tuple(interface.ip for interface in endpoint.addresses)
    return FirewallEndpoint(endpoint.id, endpoint.network_id, addresses, endpoint.ports)


def check_reachable(endpoint: Endpoint) -> None:
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


def forget_flows(ports: Sequence[PortMapping], unless_answered_by: Sequence[Address] = ()) -> None:
    for port, version in {
        (port.host_port, port.host_address.version) for port in ports if port.protocol == "udp"
    }:
        forget_udp(port, version, unless_answered_by=unless_answered_by)
