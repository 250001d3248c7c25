"""The firewall backend ``none``: no rule is written, for those who bring their own.

Containers reach the host and, where the host routes and masquerades for them, what is beyond.
Nothing can be published: a port that leads nowhere would be worse than an error.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from stowage import hookimpl
from stowage.errors import NotSupported
from stowage.model import (
    API_VERSION,
    FirewallEndpoint,
    FirewallNetwork,
    NetworkCapabilities,
    NetworkContext,
    NetworkProbe,
)
from stowage.options import Option, Options

_BACKENDS = "with a backend that writes rules (firewall-backend: nftables)"


class NoneBackend:
    """Writes nothing, and says so where rules were asked for."""

    name = "none"
    api_version = API_VERSION
    options: Sequence[Option[object]] = ()
    priority = 0

    def __init__(self, context: NetworkContext, options: Options, logger: logging.Logger) -> None:
        pass

    @hookimpl
    def firewall_probe(self) -> NetworkProbe:
        return NetworkProbe(NetworkCapabilities(publish=False), notes=("no rule is written",))

    @hookimpl
    def firewall_intact(self) -> bool:
        return True

    @hookimpl
    def firewall_add_network(self, network: FirewallNetwork) -> None:
        if network.internal:
            raise NotSupported(
                f"an internal network on {network.bridge} needs firewall rules",
                details="the firewall backend 'none' writes no rules",
                resolution=f"make it {_BACKENDS}",
            )

    @hookimpl
    def firewall_add_endpoint(self, network: FirewallNetwork, endpoint: FirewallEndpoint) -> None:
        if endpoint.ports:
            ports = ", ".join(str(port) for port in endpoint.ports)
            raise NotSupported(
                f"cannot publish {ports}",
                details="the firewall backend 'none' writes no rules",
                resolution=f"publish {_BACKENDS}, or use --network host",
            )

    @hookimpl
    def firewall_warnings(self, network: FirewallNetwork) -> Sequence[str]:
        return (
            f"no firewall rules are written for {network.bridge} (backend 'none'): nothing is"
            " masqueraded and no port can be published",
        )
