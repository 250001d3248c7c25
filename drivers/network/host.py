"""The network ``host``: the container uses the host's own network namespace.

::

    host
    ├── every link of the host, seen by the container as well
    └── no link, address or port of the container's own
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from stowage import hookimpl
from stowage.errors import InvalidArgument
from stowage.model import (
    API_VERSION,
    Endpoint,
    JoinResult,
    Network,
    NetworkCapabilities,
    NetworkProbe,
    Sandbox,
)
from stowage.options import Option, Options


class HostDriver:
    """Gives a container the host's network."""

    name = "host"
    api_version = API_VERSION
    options: Sequence[Option[object]] = ()

    def __init__(self, context: object, options: Options, logger: logging.Logger) -> None:
        pass

    @hookimpl
    def network_probe(self) -> NetworkProbe:
        """Nothing can be missing: the namespace is the one that asks."""
        return NetworkProbe(NetworkCapabilities(sandbox="host"))

    @hookimpl
    def network_validate(self, network: Network) -> None:
        if network.options or network.pools:
            raise InvalidArgument(f"network {network.name!r}: the driver 'host' takes no options")

    @hookimpl
    def network_join(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> JoinResult:
        return JoinResult()
