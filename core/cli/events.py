"""``events``: what happens in a root, as Docker tells it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from . import human
from .command import Command
from .context import Context
from .filters import accept, label_matches, pairs_of
from .flags import Flag, Parsed
from .image import FILTER
from .template import Template
from .template_functions import compact_json

if TYPE_CHECKING:
    from ..store.events import Event

#: What Docker's ``events`` tells of; the journal has more, which is shown if it is asked for.
_TYPES = ("container", "image", "network", "volume", "daemon")
_FILTERS = ("container", "daemon", "event", "image", "label", "network", "scope", "type", "volume")
#: Their actions go on after a colon; a filter need not.
_LONG_ACTIONS = ("exec_create", "exec_start", "health_status")
_NS = 1_000_000_000


def _events(context: Context, parsed: Parsed) -> None:
    since, until = parsed.text("since"), parsed.text("until")
    pairs = pairs_of(parsed, _FILTERS)
    show = _shower(parsed.text("format"))
    types = {value for key, value in pairs if key == "type"} or set(_TYPES)
    events = context.engine.events(
        since_ns=human.parse_when(since) if since else None,
        until_ns=human.parse_when(until) if until else None,
    )
    for event in events:
        if event.type in types and accept(pairs, _tests(event)):
            sys.stdout.write(show(event) + "\n")
            sys.stdout.flush()


def _tests(event: Event) -> Mapping[str, Callable[[str], bool]]:
    """Say for each filter whether a value fits, as Docker does (daemon/events/filter.go)."""
    name = event.attributes.get("name", "")
    image = name if event.type == "image" else event.attributes.get("image", "")
    images = {event.actor, image, event.actor.partition(":")[0], _untagged(image)}

    def begins(value: str) -> bool:
        return event.actor.startswith(value) or name.startswith(value)

    def happened(value: str) -> bool:
        if value in _LONG_ACTIONS:
            return event.action.startswith(value)
        return event.action == value

    return {
        "container": begins,
        "network": begins,
        "volume": begins,
        "daemon": begins,
        "event": happened,
        "image": images.__contains__,
        "label": lambda wanted: label_matches(event.attributes, wanted),
        "scope": "local".__eq__,
        "type": event.type.__eq__,
    }


def _untagged(name: str) -> str:
    head, colon, tag = name.rpartition(":")
    return head if colon and "/" not in tag else name


def _shower(form: str | None) -> Callable[[Event], str]:
    if not form:
        return _line
    if form.replace(" ", "") == "{{json.}}":
        return lambda event: compact_json(_message(event))
    template = Template(form)
    return lambda event: template.render(_fields(event))


def _line(event: Event) -> str:
    attributes = ", ".join(f"{key}={event.attributes[key]}" for key in sorted(event.attributes))
    shown = f" ({attributes})" if attributes else ""
    return f"{_time(event.time_ns)} {event.type} {event.action} {event.actor}{shown}"


def _time(time_ns: int) -> str:
    """As Docker: RFC 3339 with nine decimals, in the local zone."""
    seconds, fraction = divmod(time_ns, _NS)
    moment = time.localtime(seconds)
    zone = time.strftime("%z", moment)
    zone = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    return time.strftime("%Y-%m-%dT%H:%M:%S", moment) + f".{fraction:09d}{zone}"


def _message(event: Event) -> dict[str, object]:
    """Return an event as Docker's API does, with the old keys of containers and images."""
    old: dict[str, object] = {}
    if event.type in ("container", "image"):
        old = {"status": event.action, "id": event.actor}
    if event.type == "container":
        old["from"] = event.attributes.get("image", "")
    return {
        **old,
        "Type": event.type,
        "Action": event.action,
        "Actor": {"ID": event.actor, "Attributes": dict(event.attributes)},
        "scope": "local",
        "time": event.time_ns // _NS,
        "timeNano": event.time_ns,
    }


class _Attributes(dict[str, str]):
    """A Go map of strings: what it lacks is the empty one."""

    def __contains__(self, key: object) -> bool:
        return True

    def __missing__(self, key: str) -> str:
        return ""


def _fields(event: Event) -> dict[str, object]:
    """Return an event by the names of its fields, for templates."""
    message = _message(event)
    return {
        "Status": message.get("status", ""),
        "ID": message.get("id", ""),
        "From": message.get("from", ""),
        "Type": event.type,
        "Action": event.action,
        "Actor": {"ID": event.actor, "Attributes": _Attributes(event.attributes)},
        "Scope": "local",
        "Time": message["time"],
        "TimeNano": message["timeNano"],
    }


COMMANDS = {
    "system events": Command(
        "[OPTIONS]",
        _events,
        (
            FILTER,
            Flag("format", "Format the output using the given Go template"),
            Flag("since", "Show all events created since timestamp"),
            Flag("until", "Stream events until this timestamp"),
        ),
    ),
}
