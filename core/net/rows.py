"""Networks and endpoints as the metastore's JSON columns have them, and back."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from ipaddress import ip_address, ip_interface
from typing import Any

from ..model import Endpoint, Network, PortMapping
from .ipam import pools_from_json, pools_to_json


def network_config(network: Network, **more: object) -> str:
    """Return the column ``config`` of a network; *more* is recorded beside what it holds."""
    return json.dumps(
        {
            "pools": pools_to_json(network.pools),
            "options": dict(network.options),
            "labels": dict(network.labels),
            "internal": network.internal,
            **more,
        }
    )


def network_of(row: sqlite3.Row) -> Network:
    """Return the network that a row of ``networks`` records."""
    config: Mapping[str, Any] = json.loads(row["config"])
    return Network(
        row["id"],
        row["name"],
        row["driver"],
        pools=pools_from_json(config.get("pools", ())),
        options=dict(config.get("options", {})),
        labels=dict(config.get("labels", {})),
        internal=bool(config.get("internal", False)),
    )


def endpoint_config(endpoint: Endpoint) -> str:
    """Return the column ``config`` of an endpoint."""
    return json.dumps(
        {
            "options": dict(endpoint.options),
            "interface": endpoint.interface,
            "addresses": [str(interface) for interface in endpoint.addresses],
            "mac_address": endpoint.mac_address,
            "ports": [_port_to_json(port) for port in endpoint.ports],
        }
    )


def endpoint_of(row: sqlite3.Row) -> Endpoint:
    """Return the endpoint that a row of ``endpoints`` records."""
    config: Mapping[str, Any] = json.loads(row["config"])
    return Endpoint(
        row["id"],
        row["network_id"],
        row["container_id"],
        addresses=tuple(ip_interface(text) for text in config.get("addresses", ())),
        mac_address=config.get("mac_address"),
        interface=config.get("interface", ""),
        options=dict(config.get("options", {})),
        ports=tuple(_port_of(port) for port in config.get("ports", ())),
    )


def _port_to_json(port: PortMapping) -> list[object]:
    return [port.protocol, port.container_port, port.host_port, str(port.host_address)]


def _port_of(plain: list[Any]) -> PortMapping:
    protocol, container_port, host_port, address = plain
    return PortMapping(protocol, container_port, host_port, ip_address(address))
