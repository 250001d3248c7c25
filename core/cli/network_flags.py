"""The flags of ``run`` and ``create`` that are about ports, names and addresses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import cast

from ..containers.networking import HOST_GATEWAY, Networking
from ..errors import InvalidArgument
from ..model import Address
from ..net.port_specs import parse_expose, parse_publishes
from .flags import Flag, Parsed, many, switch

#: docker/cli's patterns of a domain.
_LETTERED = re.compile(r"[a-zA-Z]")
_DOMAIN = re.compile(
    r"(?::?(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9\-]*[a-zA-Z0-9]))"
    r"(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9\-]*[a-zA-Z0-9]))*\.?\s*"
)
_MAC = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")


def _address(text: str) -> Address:
    try:
        return ip_address(text.strip())
    except ValueError:
        raise ValueError(f"{text} is not an ip address") from None


def _four(text: str) -> Address:
    return IPv4Address(text)


def _six(text: str) -> Address:
    return IPv6Address(text)


def _search(text: str) -> str:
    domain = text.strip()
    if domain != "." and not (_LETTERED.search(domain) and _DOMAIN.fullmatch(domain)):
        raise ValueError(f"{text} is not a valid domain")
    return domain


def _extra_host(text: str) -> str:
    """``name:address``, with the address as it was written; IPv6 may stand in brackets."""
    name, colon, address = text.partition(":")
    if not colon or not name:
        raise ValueError(f'bad format for add-host: "{text}"')
    if address == HOST_GATEWAY:
        return text
    bare = address[1:-1] if address.startswith("[") and address.endswith("]") else address
    try:
        ip_address(bare)
    except ValueError:
        raise ValueError(f'invalid IP address in add-host: "{address}"') from None
    return f"{name}:{bare}"


FLAGS: Sequence[Flag] = (
    many("publish", "Publish a container's port(s) to the host", "p"),
    switch("publish-all", "Publish all exposed ports to random ports", "P"),
    many("expose", "Expose a port or a range of ports"),
    many("dns", "Set custom DNS servers", parse=_address),
    many("dns-search", "Set custom DNS search domains", parse=_search),
    many("dns-option", "Set DNS options"),
    many("dns-opt", ""),
    many("add-host", "Add a custom host-to-IP mapping (host:ip)", parse=_extra_host),
    Flag("ip", "IPv4 address (e.g., 172.30.100.104)", value="ip", parse=_four),
    Flag("ip6", "IPv6 address (e.g., 2001:db8::33)", value="ip", parse=_six),
    Flag("mac-address", "Container MAC address (e.g., 92:d0:c6:0a:29:33)"),
)


def requested_networking(parsed: Parsed) -> Networking:
    """Return what the flags ask of the container's network.

    Raises:
        InvalidArgument: in Docker's words, if a value is wrong.
    """
    exposed = [
        f"{port}/{protocol}"
        for text in parsed.texts("expose")
        for port, protocol in parse_expose(text)
    ]
    addresses = [cast(Address, parsed.typed(name, object)) for name in ("ip", "ip6")
                 if name in parsed.given]  # fmt: skip
    return Networking(
        ports=parse_publishes(parsed.texts("publish")),
        publish_all=parsed.on("publish-all"),
        exposed=tuple(dict.fromkeys(exposed)),
        dns=parsed.typed("dns", tuple),
        dns_search=parsed.texts("dns-search"),
        dns_options=(*parsed.texts("dns-option"), *parsed.texts("dns-opt")),
        extra_hosts=parsed.texts("add-host"),
        addresses=tuple(addresses),
        mac_address=mac_address(parsed.text("mac-address") or ""),
    )


def mac_address(text: str) -> str:
    """Return a MAC address with colons in lower case; empty for none.

    Raises:
        InvalidArgument: in Docker's words; also for one that no single link can have.
    """
    if not text:
        return ""
    if not _MAC.fullmatch(text.strip()):
        raise InvalidArgument(f"{text} is not a valid mac address")
    plain = text.strip().replace("-", ":").lower()
    if int(plain[:2], 16) & 1:
        raise InvalidArgument(
            f"{text} is not a valid mac address", details="it is that of a group (multicast)"
        )
    return plain
