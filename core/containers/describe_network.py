"""What ``inspect`` shows of a container's network: asked for, and had."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from ..model import Endpoint, Interface, Network, PortMapping
from ..net.ipam import ways_out
from .model import ContainerRecord, ContainerSpec


class Attached(Struct, frozen=True):
    """The network of a container, and its endpoint while it runs."""

    network: Network | None = None
    endpoint: Endpoint | None = None


NOT_ATTACHED = Attached()


def host_networking(spec: ContainerSpec, mode: str) -> dict[str, object]:
    """Return the keys of ``HostConfig``; *mode* is what ``--network`` said, or ``default``."""
    wanted = spec.networking
    bindings: dict[str, list[dict[str, str]]] = {}
    for request in wanted.ports:
        first, last = request.host_ports or (None, None)
        text = "" if first is None else str(first) if first == last else f"{first}-{last}"
        bindings.setdefault(f"{request.container_port}/{request.protocol}", []).append(
            {"HostIp": str(request.host_address or ""), "HostPort": text}
        )
    return {
        "NetworkMode": mode,
        "PortBindings": dict(sorted(bindings.items())),
        "PublishAllPorts": wanted.publish_all,
        "Dns": [str(address) for address in wanted.dns],
        "DnsOptions": list(wanted.dns_options),
        "DnsSearch": list(wanted.dns_search),
        "ExtraHosts": list(wanted.extra_hosts) or None,
    }


def exposed_ports(spec: ContainerSpec) -> dict[str, object]:
    """Return ``Config.ExposedPorts``, as a key of its own where there are some."""
    ports = sorted(spec.networking.exposed_ports)
    return {"ExposedPorts": {port: {} for port in ports}} if ports else {}


def network_settings(record: ContainerRecord, attached: Attached) -> dict[str, object]:
    """Return ``NetworkSettings``; ``SandboxKey`` is the caller's to fill."""
    endpoint, network = attached.endpoint, attached.network
    shown = _endpoint(endpoint, network)
    top = _in_docker_order(shown)
    networks = {}
    if network is not None:
        networks[network.name] = {
            "IPAMConfig": None,
            "Links": None,
            "Aliases": None,
            "NetworkID": network.id,
            **shown,
            "DriverOpts": None,
        }
    return {
        "Bridge": "",
        "SandboxID": "",
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "Ports": _ports(record.spec, endpoint),
        "SandboxKey": "",
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        **(top if endpoint and endpoint.addresses else _in_docker_order(_endpoint(None, None))),
        "Networks": networks,
    }


def _endpoint(endpoint: Endpoint | None, network: Network | None) -> dict[str, object]:
    addresses = endpoint.addresses if endpoint else ()
    gateways = {way.version: str(way) for way in ways_out(network.pools)} if network else {}
    four, six = (_of_version(addresses, version) for version in (4, 6))
    return {
        "EndpointID": endpoint.id if endpoint else "",
        "Gateway": gateways.get(4, "") if four else "",
        "IPAddress": str(four.ip) if four else "",
        "IPPrefixLen": four.network.prefixlen if four else 0,
        "IPv6Gateway": gateways.get(6, "") if six else "",
        "GlobalIPv6Address": str(six.ip) if six else "",
        "GlobalIPv6PrefixLen": six.network.prefixlen if six else 0,
        "MacAddress": (endpoint.mac_address or "") if endpoint else "",
    }


def _in_docker_order(shown: dict[str, object]) -> dict[str, object]:
    """At the top the same keys stand in the order of their names."""
    return {key: shown[key] for key in sorted(shown)}


def _of_version(addresses: Sequence[Interface], version: int) -> Interface | None:
    return next((one for one in addresses if one.version == version), None)


def _ports(spec: ContainerSpec, endpoint: Endpoint | None) -> dict[str, object]:
    """Every exposed port of a container that runs; null where it is not published."""
    if endpoint is None or not endpoint.addresses:
        return {}
    shown: dict[str, object] = dict.fromkeys(sorted(spec.networking.exposed_ports))
    for name in shown:
        bound = [_binding(port) for port in endpoint.ports if _inside(port) == name]
        if bound:
            shown[name] = bound
    return shown


def _inside(port: PortMapping) -> str:
    return f"{port.container_port}/{port.protocol}"


def _binding(port: PortMapping) -> dict[str, str]:
    return {"HostIp": str(port.host_address), "HostPort": str(port.host_port)}
