"""``update``: other limits for containers that exist."""

from __future__ import annotations

from ..containers.restarts import parse_restart_policy
from ..errors import InvalidArgument
from .command import Command
from .context import Context
from .flags import Flag, Parsed
from .resource_flags import UPDATE_FLAGS, changes


def _update(context: Context, parsed: Parsed) -> int:
    limits, restart = changes(parsed), parsed.text("restart")
    if not limits and restart is None:
        raise InvalidArgument("you must provide one or more flags when using this command")
    wishes = {} if restart is None else {"restart": parse_restart_policy(restart)}
    containers = context.engine.containers

    def update(name: str) -> None:
        containers.update(name, limits, **wishes)

    return context.each(parsed.arguments, update)


COMMANDS = {
    "container update": Command(
        "[OPTIONS] CONTAINER [CONTAINER...]",
        _update,
        (*UPDATE_FLAGS, Flag("restart", "Restart policy to apply when a container exits")),
        needs_root=True,
    ),
}
