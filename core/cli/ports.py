"""``port``, and the column PORTS of ``ps``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..errors import InvalidArgument, NotFound
from .command import Command
from .context import Context
from .flags import Parsed

if TYPE_CHECKING:
    from ..model import PortMapping


def displayed_ports(ports: Iterable[PortMapping], exposed: Iterable[str]) -> str:
    """Return Docker's cell: neighbours as a range where both sides have the same numbers, then
    the others; what is only *exposed* (``80/tcp``) has no arrow."""
    public = [
        (one.container_port, str(one.host_address), one.host_port, one.protocol) for one in ports
    ]
    published = {f"{port}/{protocol}" for port, _, _, protocol in public}
    bare = [text.partition("/") for text in exposed if text not in published]
    alone = [(int(port), "", 0, protocol) for port, _, protocol in bare]
    groups: dict[tuple[str, str], list[int]] = {}
    done: list[str] = []
    mapped: list[str] = []
    for inside, address, outside, protocol in sorted([*public, *alone]):
        if address and outside != inside:
            mapped.append(f"{address}:{outside}->{inside}/{protocol}")
            continue
        group = groups.setdefault((address, protocol), [inside, inside])
        if inside not in (group[1], group[1] + 1):
            done.append(_group(address, protocol, group))
            group[0] = inside
        group[1] = inside
    done += [_group(address, protocol, group) for (address, protocol), group in groups.items()]
    return ", ".join([*done, *mapped])


def _group(address: str, protocol: str, group: Sequence[int]) -> str:
    first, last = group
    text = str(first) if first == last else f"{first}-{last}"
    return f"{address}:{text}->{text}/{protocol}" if address else f"{text}/{protocol}"


def _port(context: Context, parsed: Parsed) -> None:
    reference, *rest = parsed.arguments
    engine = context.engine
    record = engine.containers.get(reference)
    ports = [port for one in engine.networks.endpoints(record.id) for port in one.ports]
    if not rest:
        shown = [
            f"{port.container_port}/{port.protocol} -> {_host(port)}"
            for port in sorted(ports, key=_as_listed)
        ]
    else:
        number, protocol = _private(rest[0])
        shown = [
            _host(port) for port in sorted(ports, key=_as_listed)
            if (port.container_port, port.protocol) == (number, protocol)
        ]  # fmt: skip
        if not shown:
            brief = f"No public port '{number}/{protocol}' published for {reference}"
            raise NotFound("port", rest[0], brief=brief)
    context.print("\n".join(shown))


def _as_listed(port: PortMapping) -> tuple[str, int, int]:
    inside = f"{port.container_port}/{port.protocol}"
    return inside, port.host_address.version, port.host_port


def _host(port: PortMapping) -> str:
    return f"{port.host_address}:{port.host_port}"


def _private(text: str) -> tuple[int, str]:
    number, _, protocol = text.partition("/")
    if not (number.isascii() and number.isdigit() and 0 < int(number) < 65536):
        raise InvalidArgument(f"Invalid port: {text}")
    return int(number), protocol or "tcp"


COMMANDS = {
    "container port": Command("CONTAINER [PRIVATE_PORT[/PROTO]]", _port),
}
