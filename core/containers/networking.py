"""What a container asks of its network, beyond which one, and what cannot be asked together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ..errors import InvalidArgument
from ..model import Address, Transport
from ..net.port_specs import PortRequest, parse_expose, parse_publishes, publish_all
from ..records import field_names

SHARED_PREFIX = "container:"
#: What stands for the address of the host's end in ``--add-host``.
HOST_GATEWAY = "host-gateway"
#: docker/cli's patterns of a domain.
_LETTERED = re.compile(r"[a-zA-Z]")
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9\-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf":?{_LABEL}(?:\.{_LABEL})*\.?")
_MAC = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")
_USER_DEFINED_ONLY = "user specified IP address is supported on user defined networks only"


class Networking(Struct, frozen=True):
    """Ports, names and addresses of a container.

    *exposed* are ``80/tcp``, the image's among them once the container is made. *extra_hosts* are
    ``name:address``. Empty *dns*, *dns_search* and *dns_options* mean the configuration's, else
    the host's.
    """

    ports: tuple[PortRequest, ...] = ()
    publish_all: bool = False
    exposed: tuple[str, ...] = ()
    dns: tuple[Address, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    addresses: tuple[Address, ...] = ()
    mac_address: str = ""

    @property
    def requests(self) -> tuple[PortRequest, ...]:
        """All ports to publish, those of ``-P`` among them."""
        if not self.publish_all:
            return self.ports
        exposed: list[tuple[int, Transport]] = []
        for text in self.exposed:
            exposed += parse_expose(text)
        return publish_all(exposed, self.ports)

    @property
    def exposed_ports(self) -> tuple[str, ...]:
        """Every exposed port as ``80/tcp``, those that are published among them, each once."""
        found: list[tuple[int, Transport]] = []
        for text in self.exposed:
            found += parse_expose(text)
        found += [(request.container_port, request.protocol) for request in self.ports]
        return tuple(f"{port}/{protocol}" for port, protocol in dict.fromkeys(found))

    def with_image(self, exposed: tuple[str, ...]) -> Networking:
        """Return it with what an image exposes."""
        return replace(self, exposed=tuple(dict.fromkeys((*self.exposed, *exposed))))

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        plain = {name: getattr(self, name) for name in field_names(self)}
        for name in ("ports", "dns", "addresses"):
            plain[name] = [str(item) for item in plain[name]]
        return {key: list(v) if isinstance(v, tuple) else v for key, v in plain.items()}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Networking:
        """Read what :meth:`to_json` gave; unknown keys are ignored."""
        known = {name: plain[name] for name in field_names(cls) if name in plain}
        for name, value in known.items():
            if isinstance(value, list):
                known[name] = tuple(value)
        for name in ("dns", "addresses"):
            known[name] = tuple(ip_address(text) for text in known.get(name, ()))
        known["ports"] = parse_publishes(known.get("ports", ()))
        return cls(**known)


# --- as text --------------------------------------------------------------------------------------


def requested(
    *,
    ports: Iterable[str] = (),
    publish_all: bool = False,
    exposed: Iterable[str] = (),
    dns: Iterable[str] = (),
    dns_search: Iterable[str] = (),
    dns_options: Iterable[str] = (),
    extra_hosts: Iterable[str] = (),
    addresses: Sequence[Address] = (),
    mac_address: str = "",
) -> Networking:
    """Return what was asked for in words.

    Raises:
        InvalidArgument: in Docker's words, naming what is wrong.
    """
    opened = [f"{port}/{protocol}" for text in exposed for port, protocol in parse_expose(text)]
    try:
        return Networking(
            ports=parse_publishes(ports),
            publish_all=publish_all,
            exposed=tuple(dict.fromkeys(opened)),
            dns=tuple(ip_address(name_server(text)) for text in dns),
            dns_search=tuple(search_domain(text) for text in dns_search),
            dns_options=tuple(dns_options),
            extra_hosts=tuple(extra_host(text) for text in extra_hosts),
            addresses=tuple(addresses),
            mac_address=_mac_address(mac_address),
        )
    except ValueError as error:
        raise InvalidArgument(str(error)) from None


def name_server(text: str) -> str:
    """Return a name server's address. Raises ValueError in Docker's words."""
    try:
        return str(ip_address(text.strip()))
    except ValueError:
        raise ValueError(f"{text} is not an ip address") from None


def search_domain(text: str) -> str:
    """Return a domain to search; ``.`` means none. Raises ValueError in Docker's words."""
    domain = text.strip()
    if domain != "." and not (_LETTERED.search(domain) and _DOMAIN.fullmatch(domain)):
        raise ValueError(f"{text} is not a valid domain")
    return domain


def extra_host(text: str) -> str:
    """Return ``name:address``; IPv6 may stand in brackets. Raises ValueError in Docker's words."""
    name, colon, address = text.partition(":")
    if not colon or not name or any(character.isspace() for character in name):
        raise ValueError(f'bad format for add-host: "{text}"')
    if address == HOST_GATEWAY:
        return text
    bare = address[1:-1] if address.startswith("[") and address.endswith("]") else address
    try:
        return f"{name}:{ip_address(bare)}"
    except ValueError:
        raise ValueError(f'invalid IP address in add-host: "{address}"') from None


def _mac_address(text: str) -> str:
    """With colons, in lower case; empty for none. One of a group can be no link's."""
    if not text:
        return ""
    if not _MAC.fullmatch(text.strip()):
        raise ValueError(f"{text} is not a valid mac address")
    plain = text.strip().replace("-", ":").lower()
    if int(plain[:2], 16) & 1:
        raise ValueError(f"{text} is not a valid mac address: it is that of a group (multicast)")
    return plain


# --- which network --------------------------------------------------------------------------------


def shared_with(network: str | None) -> str | None:
    """Return whose network ``container:<name|id>`` names, or None for every other mode."""
    if network is None or not network.startswith(SHARED_PREFIX):
        return None
    return network.removeprefix(SHARED_PREFIX)


def check_networking(wanted: Networking, network: str | None, hostname: str) -> None:
    """Refuse what the network mode cannot give.

    Raises:
        InvalidArgument: in Docker's words.
    """
    target = shared_with(network)
    if target is not None:
        _check_shared(wanted, target, hostname)
    if wanted.mac_address and (target is not None or network == "host"):
        raise InvalidArgument("conflicting options: mac-address and the network mode")
    if wanted.addresses and network in (None, "default", "bridge", "host", "none"):
        raise InvalidArgument(_USER_DEFINED_ONLY)


def _check_shared(wanted: Networking, target: str, hostname: str) -> None:
    if not target:
        raise InvalidArgument("invalid network mode: invalid container format container:<name|id>")
    conflicts = (
        (hostname, "hostname and the network mode"),
        (wanted.dns, "dns and the network mode"),
        (wanted.extra_hosts, "custom host-to-IP mapping and the network mode"),
        (
            wanted.ports or wanted.publish_all,
            "port publishing and the container type network mode",
        ),
        (wanted.exposed, "port exposing and the container type network mode"),
        (wanted.addresses, "static IP and the container type network mode"),
    )
    for given, words in conflicts:
        if given:
            raise InvalidArgument(f"conflicting options: {words}")
