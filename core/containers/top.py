"""A container's processes as the host's ps(1) shows them (``top``)."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Collection, Iterator, Sequence

from msgspec import Struct

from ..effects import effect
from ..errors import CommandFailed, FailedPrecondition, InvalidArgument
from .context import Context
from .freezing import require_settled
from .model import ContainerRecord
from .runtime import find_program

_DEFAULT_ARGUMENTS = ("-ef",)
#: ``-o user=PID`` would make another column look like the pids.
_RENAMED = re.compile(r"\s+([^\s]*)=\s*(PID[^\s]*)")
_FAILED = 1


class ProcessList(Struct, frozen=True):
    """What ps printed: the words of its heading, and a line of as many cells per process."""

    titles: tuple[str, ...]
    processes: tuple[tuple[str, ...], ...]


def top(context: Context, record: ContainerRecord, arguments: Sequence[str] = ()) -> ProcessList:
    """Run ps with *arguments* (default ``-ef``) and return what it says of a container.

    Raises:
        FailedPrecondition: in Docker's words, if it does not run.
        InvalidArgument: if ps is asked to call another column PID, or not to show it.
        CommandFailed: with what ps says against *arguments*.
    """
    words = list(arguments) or list(_DEFAULT_ARGUMENTS)
    for name, title in _RENAMED.findall(" ".join(words)):
        if name != "pid":
            raise InvalidArgument(f'specifying "{name}={title}" is not allowed')
    if not record.state.lives:
        raise FailedPrecondition(f"Container {record.id} is not running")
    require_settled(record)
    pids = context.cgroup(record).processes()
    if not pids:  # it has just ended, and nobody has noted it yet
        raise FailedPrecondition(f"Container {record.id} is not running")
    found = read_ps_output(_ps(words, pids), pids)
    context.rows.record_event(record, "top")
    return found


def _ps(arguments: Sequence[str], pids: Collection[int]) -> str:
    program = find_program("ps", "procps")
    chosen = "-q" + ",".join(map(str, sorted(pids)))
    done = _run([program, *arguments, chosen]) if pids else None
    if done is None or done.returncode:  # some options (f) do not go with -q
        done = _run([program, *arguments])
    if done.returncode:
        reason = done.stderr.strip().partition("\n")[0]
        raise CommandFailed(f"ps: {reason or f'exit status {done.returncode}'}", _FAILED)
    return done.stdout


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    with effect("process.run", command=command):
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            check=False,
        )  # fmt: skip


def read_ps_output(text: str, pids: Collection[int]) -> ProcessList:
    """Return the lines of ps's *text* that are about *pids*, threads of them included.

    Raises:
        InvalidArgument: "Couldn't find PID field in ps output".
    """
    first, *lines = text.split("\n")
    titles = tuple(first.split())
    if "PID" not in titles:
        raise InvalidArgument("Couldn't find PID field in ps output")
    return ProcessList(titles, tuple(_matching(lines, titles, pids)))


def _matching(
    lines: Sequence[str], titles: Sequence[str], pids: Collection[int]
) -> Iterator[tuple[str, ...]]:
    column, last = titles.index("PID"), len(titles) - 1
    inside = False
    for line in lines:
        cells = line.split()
        if len(cells) <= column:
            continue
        if cells[column] != "-":  # "-": a thread of the process above
            inside = cells[column].isdigit() and int(cells[column]) in pids
        if inside:
            yield (*cells[:last], " ".join(cells[last:]))
