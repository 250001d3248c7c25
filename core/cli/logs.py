"""``logs``: what a container wrote."""

from __future__ import annotations

import sys

from . import human
from .command import Command
from .context import Context
from .flags import Flag, Parsed, integer, switch


def tail_lines(text: str) -> int | None:
    """Read ``--tail``: so many lines; all of them (None) for ``all`` and for less than none.

    Raises:
        ValueError: if it is neither.
    """
    lines = -1 if text == "all" else integer(text)
    return None if lines < 0 else lines


def _logs(context: Context, parsed: Parsed) -> None:
    since, until = parsed.text("since"), parsed.text("until")
    containers = context.engine.containers
    record = containers.get(parsed.arguments[0])
    details = containers.log_details(record.id) + " " if parsed.on("details") else ""
    entries = containers.logs(
        record.id,
        follow=parsed.on("follow"),
        tail=parsed.number("tail"),
        since_ns=human.parse_when(since, flag="since") if since else None,
        until_ns=human.parse_when(until, flag="until") if until else None,
    )
    goes_on: dict[str, bool] = {}
    for entry in entries:
        stream = sys.stderr.buffer if entry.stream == "stderr" else sys.stdout.buffer
        if not goes_on.get(entry.stream):
            time = f"{human.rfc3339(entry.time_ns)} " if parsed.on("timestamps") else ""
            stream.write(f"{time}{details}".encode())
        stream.write(entry.text)
        stream.flush()
        goes_on[entry.stream] = entry.partial


COMMANDS = {
    "container logs": Command(
        "[OPTIONS] CONTAINER",
        _logs,
        (
            switch("details", "Show extra details provided to logs"),
            switch("follow", "Follow log output", "f"),
            Flag(
                "tail",
                "Number of lines to show from the end of the logs, or all (default all)",
                "n",
                parse=tail_lines,
            ),
            Flag("since", "Show logs since timestamp or relative (e.g. 42m for 42 minutes)"),
            Flag("until", "Show logs before a timestamp or relative (e.g. 42m for 42 minutes)"),
            switch("timestamps", "Show timestamps", "t"),
        ),
    ),
}
