"""The flags of ``run`` and ``create`` that are about ports, names and addresses."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import cast

from ..containers.networking import (
    Networking,
    extra_host,
    name_server,
    requested,
    search_domain,
)
from ..model import Address
from .flags import Flag, Parsed, many, switch


def _four(text: str) -> Address:
    return IPv4Address(text)


def _six(text: str) -> Address:
    return IPv6Address(text)


FLAGS: Sequence[Flag] = (
    many("publish", "Publish a container's port(s) to the host", "p"),
    switch("publish-all", "Publish all exposed ports to random ports", "P"),
    many("expose", "Expose a port or a range of ports"),
    many("dns", "Set custom DNS servers", parse=name_server),
    many("dns-search", "Set custom DNS search domains", parse=search_domain),
    many("dns-option", "Set DNS options"),
    many("dns-opt", ""),
    many("add-host", "Add a custom host-to-IP mapping (host:ip)", parse=extra_host),
    Flag("ip", "IPv4 address (e.g., 172.30.100.104)", value="ip", parse=_four),
    Flag("ip6", "IPv6 address (e.g., 2001:db8::33)", value="ip", parse=_six),
    Flag("mac-address", "Container MAC address (e.g., 92:d0:c6:0a:29:33)"),
)


def requested_networking(parsed: Parsed) -> Networking:
    """Return what the flags ask of the container's network.

    Raises:
        InvalidArgument: in Docker's words, if a value is wrong.
    """
    addresses = [cast(Address, parsed.typed(name, object)) for name in ("ip", "ip6")
                 if name in parsed.given]  # fmt: skip
    return requested(
        ports=parsed.texts("publish"),
        publish_all=parsed.on("publish-all"),
        exposed=parsed.texts("expose"),
        dns=parsed.texts("dns"),
        dns_search=parsed.texts("dns-search"),
        dns_options=(*parsed.texts("dns-option"), *parsed.texts("dns-opt")),
        extra_hosts=parsed.texts("add-host"),
        addresses=addresses,
        mac_address=parsed.text("mac-address") or "",
    )
