"""``update``: other limits for containers that exist."""

from __future__ import annotations

from ..errors import InvalidArgument
from .command import Command
from .context import Context
from .flags import Parsed
from .resource_flags import UPDATE_FLAGS, changes


def _update(context: Context, parsed: Parsed) -> int:
    limits = changes(parsed)
    if not limits:
        raise InvalidArgument("you must provide one or more flags when using this command")
    containers = context.engine.containers

    def update(name: str) -> None:
        containers.update(name, limits)

    return context.each(parsed.arguments, update)


COMMANDS = {
    "container update": Command(
        "[OPTIONS] CONTAINER [CONTAINER...]", _update, UPDATE_FLAGS, needs_root=True
    ),
}
