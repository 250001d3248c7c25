"""``-p`` and ``--expose``: Docker's grammar, its errors, and back to text.

::

    [address:][host port[-last]:]container port[-last][/tcp|/udp|/sctp]
    target=80,published=8080,protocol=udp          the long form

An IPv6 address stands in brackets, or bare before the last two colons. Ranges of equal length are
paired; a host range before one container port means any one of its ports.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from typing import cast, get_args

from msgspec import Struct

from ..errors import InvalidArgument
from ..model import Address, PortMapping, Transport

TRANSPORTS: tuple[Transport, ...] = get_args(Transport)


class PortRequest(Struct, frozen=True):
    """One container port to publish.

    *host_ports* are the first and last host port to choose from: None means any free one, two
    equal ones mean that one. *host_address* None means the default of the network.
    """

    protocol: Transport
    container_port: int
    host_address: Address | None = None
    host_ports: tuple[int, int] | None = None

    @property
    def fixed(self) -> bool:
        """Whether only one host port will do."""
        return self.host_ports is not None and self.host_ports[0] == self.host_ports[1]

    def __str__(self) -> str:
        """As ``-p`` takes it, in its shortest form with the protocol."""
        container = f"{self.container_port}/{self.protocol}"
        ports = "" if self.host_ports is None else _range_text(*self.host_ports)
        if self.host_address is not None:
            shown = str(self.host_address)
            shown = f"[{shown}]" if self.host_address.version == 6 else shown
            return f"{shown}:{ports}:{container}"
        return f"{ports}:{container}" if ports else container


def _range_text(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def parse_publish(text: str) -> tuple[PortRequest, ...]:
    """Return what one ``-p`` asks for, in ascending container ports.

    Raises:
        InvalidArgument: in Docker's words.
    """
    spec = _standard_form(text) if "=" in text else text
    address_text, host_text, container_text = _split(spec)
    container_text, protocol = _protocol(container_text)
    address = _address(address_text)
    if not container_text:
        raise InvalidArgument(f"No port specified: {spec}<empty>")
    first, last = _port_range(container_text, "containerPort")
    if first == 0:
        raise InvalidArgument(f"Invalid containerPort: {container_text}")
    host = _port_range(host_text, "hostPort") if host_text else None
    if host is not None and host[1] - host[0] != last - first and first != last:
        raise InvalidArgument(
            "Invalid ranges specified for container and host Ports:"
            f" {container_text} and {host_text}"
        )
    if first == last:
        return (PortRequest(protocol, first, address, _any(host)),)
    return tuple(
        PortRequest(protocol, first + offset, address, _paired(host, offset))
        for offset in range(last - first + 1)
    )


def _any(host: tuple[int, int] | None) -> tuple[int, int] | None:
    return None if host == (0, 0) else host


def _paired(host: tuple[int, int] | None, offset: int) -> tuple[int, int] | None:
    if host is None:
        return None
    return host[0] + offset, host[0] + offset


def parse_publishes(texts: Iterable[str]) -> tuple[PortRequest, ...]:
    """Return what several ``-p`` ask for, each thing once."""
    requests = (request for text in texts for request in parse_publish(text))
    return tuple(dict.fromkeys(requests))


def parse_expose(text: str) -> tuple[tuple[int, Transport], ...]:
    """Return the ports of one ``--expose`` or EXPOSE: ``80``, ``80/udp``, ``7000-7010/tcp``.

    Raises:
        InvalidArgument: in Docker's words.
    """
    ports, protocol = _protocol(text)
    try:
        first, last = _port_range(ports, "containerPort")
    except InvalidArgument:
        raise InvalidArgument(
            f"invalid range format for --expose: {text}",
            resolution="write a port or a range such as 7000-7010, and /tcp, /udp or /sctp",
        ) from None
    return tuple((port, protocol) for port in range(first, last + 1))


def publish_all(
    exposed: Iterable[tuple[int, Transport]], requests: Sequence[PortRequest] = ()
) -> tuple[PortRequest, ...]:
    """Return *requests* and (``-P``) a free host port for each exposed port not among them."""
    asked = {(request.container_port, request.protocol) for request in requests}
    more = sorted(port for port in set(exposed) if port not in asked)
    return (*requests, *(PortRequest(protocol, port) for port, protocol in more))


def conflicts(one: PortMapping, other: PortMapping) -> bool:
    """Whether two mappings cannot exist together on one host."""
    if (one.protocol, one.host_port) != (other.protocol, other.host_port):
        return False
    a, b = one.host_address, other.host_address
    return a.version == b.version and (a == b or a.is_unspecified or b.is_unspecified)


def _standard_form(text: str) -> str:
    """Turn the long form into the short one, as the docker command line does."""
    values = {}
    for field in text.split(","):
        key, equals, value = field.partition("=")
        if not equals:
            raise InvalidArgument(
                f"invalid publish opts format (should be name=value but got '{field}')"
            )
        values[key] = value
    published, target = values.get("published", ""), values.get("target", "")
    return f"{published}:{target}/{values.get('protocol', 'tcp')}"


def _split(spec: str) -> tuple[str, str, str]:
    """Return (address, host ports, container ports)."""
    *rest, container = spec.split(":")
    if not rest:
        return "", "", container
    *address, host = rest
    return ":".join(address), host, container


def _protocol(text: str) -> tuple[str, Transport]:
    ports, slash, name = text.partition("/")
    name = name.partition("/")[0].lower() or "tcp"
    if not ports:  # docker looks at the port first
        return "", "tcp"
    if slash and name not in TRANSPORTS:
        raise InvalidArgument(f"Invalid proto: {name}")
    return ports, cast(Transport, name)


def _address(text: str) -> Address | None:
    if not text:
        return None
    bare = text
    if text.startswith("["):
        if not text.endswith("]"):
            raise InvalidArgument(
                f"Invalid ip address {text}: address {text}:: missing ']' in address"
            )
        bare = text[1:-1]
    try:
        if "%" in bare:  # a zone means something on one host's link only
            raise ValueError
        return ip_address(bare)
    except ValueError:
        raise InvalidArgument(f"Invalid ip address: {text}") from None


def _port_range(text: str, what: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    numbers = (_port(first), _port(last if dash else first))
    if None in numbers or cast(int, numbers[1]) < cast(int, numbers[0]):
        raise InvalidArgument(f"Invalid {what}: {text}")
    return cast(tuple[int, int], numbers)


def _port(text: str) -> int | None:
    if not (text.isascii() and text.isdigit()):
        return None
    number = int(text)
    return number if number <= 65535 else None
