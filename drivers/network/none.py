"""The network ``none``: a namespace of its own that holds ``lo`` and nothing else.

::

    sandbox (private)
    └── lo  127.0.0.1, ::1
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from stowage import hookimpl
from stowage.errors import InvalidArgument
from stowage.linux.namespaces import new_network_namespace
from stowage.model import (
    API_VERSION,
    Endpoint,
    Finding,
    JoinResult,
    Network,
    NetworkCapabilities,
    NetworkProbe,
    Sandbox,
)
from stowage.options import Option, Options


class NoneDriver:
    """Gives a container no network."""

    name = "none"
    api_version = API_VERSION
    options: Sequence[Option[object]] = ()

    def __init__(self, context: object, options: Options, logger: logging.Logger) -> None:
        pass

    @hookimpl
    def network_probe(self) -> NetworkProbe:
        try:
            os.close(new_network_namespace())
        except OSError as error:
            return NetworkProbe(
                findings=(
                    Finding(
                        f"a network namespace cannot be made: {error.strerror}",
                        "run as root with CAP_SYS_ADMIN, on a kernel with CONFIG_NET_NS",
                    ),
                )
            )
        return NetworkProbe(NetworkCapabilities(sandbox="private"))

    @hookimpl
    def network_validate(self, network: Network) -> None:
        if network.options or network.pools:
            raise InvalidArgument(f"network {network.name!r}: the driver 'none' takes no options")

    @hookimpl
    def network_join(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> JoinResult:
        return JoinResult()
