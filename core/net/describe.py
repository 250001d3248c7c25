"""What users are shown of a network: Docker's ``network inspect`` document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..model import Endpoint, Network, Pool

#: Docker's name of the driver behind the network ``none``.
_DRIVER_NAMES = {"none": "null"}


def driver_name(network: Network) -> str:
    """Return the driver as Docker calls it."""
    return _DRIVER_NAMES.get(network.driver, network.driver)


def network_document(
    network: Network, created: str, endpoints: Sequence[Endpoint], names: Mapping[str, str]
) -> dict[str, object]:
    """Return what ``docker network inspect`` shows; *created* is its time as text, *names* are of
    containers by id."""
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": created,
        "Scope": "local",
        "Driver": driver_name(network),
        "EnableIPv6": any(pool.subnet.version == 6 for pool in network.pools),
        "IPAM": {
            "Driver": "default",
            "Options": None,
            "Config": [_pool(pool) for pool in network.pools],
        },
        "Internal": network.internal,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {
            endpoint.container_id: _container(endpoint, names.get(endpoint.container_id, ""))
            for endpoint in endpoints
        },
        "Options": dict(sorted(network.options.items())),
        "Labels": dict(network.labels),
    }


def _pool(pool: Pool) -> dict[str, object]:
    shown: dict[str, object] = {"Subnet": str(pool.subnet)}
    if pool.ip_range is not None:
        shown["IPRange"] = str(pool.ip_range)
    if pool.gateway is not None:
        shown["Gateway"] = str(pool.gateway)
    if pool.auxiliary:
        shown["AuxiliaryAddresses"] = {n: str(address) for n, address in pool.auxiliary.items()}
    return shown


def _container(endpoint: Endpoint, name: str) -> dict[str, str]:
    addresses = {interface.version: str(interface) for interface in endpoint.addresses}
    return {
        "Name": name,
        "EndpointID": endpoint.id,
        "MacAddress": endpoint.mac_address or "",
        "IPv4Address": addresses.get(4, ""),
        "IPv6Address": addresses.get(6, ""),
    }
