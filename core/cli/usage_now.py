"""``top`` and ``stats``: what containers do just now."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import NotFound
from . import human
from .command import Command
from .context import Context
from .flags import Parsed, switch
from .image import FORMAT, NO_TRUNC
from .table import Listing, columns

if TYPE_CHECKING:
    from ..containers.model import ContainerRecord
    from ..containers.service import Containers
    from ..containers.stats import Stats

_TOP_MINIMUM_WIDTH = 20
_CLEAR_SCREEN = "\033[2J\033[H"
#: Between the two looks that CPU use needs, and between two pictures of the streaming form.
_FIRST_SECONDS, _NEXT_SECONDS = 0.5, 1.0


def _top(context: Context, parsed: Parsed) -> None:
    reference, *ps_arguments = parsed.arguments
    found = context.engine.containers.top(reference, ps_arguments)
    context.print(columns([found.titles, *found.processes], _TOP_MINIMUM_WIDTH))


STATS = Listing(
    {
        "Container": "CONTAINER",
        "ID": "CONTAINER ID",
        "Name": "NAME",
        "CPUPerc": "CPU %",
        "MemUsage": "MEM USAGE / LIMIT",
        "MemPerc": "MEM %",
        "NetIO": "NET I/O",
        "BlockIO": "BLOCK I/O",
        "PIDs": "PIDS",
    },
    ("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"),
    quiet="ID",
)


def stats_row(stats: Stats, *, asked: str = "", full: bool = False) -> Mapping[str, object]:
    """Return the row of *stats*; *asked* is how the user called the container."""
    return {
        "BlockIO": _pair(human.size(stats.read_bytes, 3), human.size(stats.written_bytes, 3)),
        "CPUPerc": f"{stats.cpu_percent:.2f}%",
        "Container": asked or (stats.id if full else human.short_id(stats.id)),
        "ID": stats.id if full else human.short_id(stats.id),
        "MemPerc": f"{stats.memory_percent:.2f}%",
        "MemUsage": _pair(
            human.binary_size(stats.memory_bytes), human.binary_size(stats.memory_limit_bytes)
        ),
        "Name": stats.name,
        "NetIO": _pair(human.size(stats.received_bytes, 3), human.size(stats.sent_bytes, 3)),
        "PIDs": str(stats.tasks),
    }


def _pair(one: str, other: str) -> str:
    return f"{one} / {other}"


def _stats(context: Context, parsed: Parsed) -> None:
    containers = context.engine.containers
    sampler = containers.sampler()
    names = {containers.get(name).id: name for name in parsed.arguments}

    def shown() -> Sequence[ContainerRecord]:
        return _chosen(containers, names, every=parsed.on("all"))

    def picture() -> str:
        records = shown()
        sampler.forget_others({record.id for record in records})
        rows = (
            stats_row(
                sampler.sample(record),
                asked=names.get(record.id, ""),
                full=parsed.on("no-trunc"),
            )
            for record in records
        )
        return STATS.show(rows, format=parsed.text("format"))

    for record in shown():
        sampler.sample(record)
    time.sleep(_FIRST_SECONDS)
    if parsed.on("no-stream"):
        context.print(picture())
        return
    while not names or shown():
        sys.stdout.write(f"{_CLEAR_SCREEN}{picture()}\n")
        sys.stdout.flush()
        context.engine.metastore.rest()
        time.sleep(_NEXT_SECONDS)


def _chosen(
    containers: Containers, names: Mapping[str, str], *, every: bool
) -> Sequence[ContainerRecord]:
    """Those that were named, in that order; else those that run, or all of them."""
    if not names:
        return [record for record in containers.list() if every or record.state.lives]
    found = []
    for container_id in names:
        try:
            found.append(containers.get(container_id))
        except NotFound:  # removed meanwhile
            continue
    return found


COMMANDS = {
    "container top": Command("CONTAINER [ps OPTIONS]", _top, interspersed=False),
    "container stats": Command(
        "[OPTIONS] [CONTAINER...]",
        _stats,
        (
            switch("all", "Show all containers (default shows just running)", "a"),
            FORMAT,
            switch("no-stream", "Disable streaming stats and only pull the first result"),
            NO_TRUNC,
        ),
    ),
}
