"""What a cgroup has used: CPU, memory, block I/O, tasks; from v1 controllers or from v2.

On a hybrid machine each figure comes from the hierarchy that has its controller.
Sources: Documentation/admin-guide/cgroup-v1/{cpuacct,memory,blkio-controller,pids}.rst and
cgroup-v2.rst.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

_PAGE = os.sysconf("SC_PAGE_SIZE")
#: memory.limit_in_bytes of a cgroup without a limit (PAGE_COUNTER_MAX).
_NO_LIMIT = (1 << 63) - _PAGE


class CgroupUsage(Struct, frozen=True):
    """Counters of one instant; 0 where no hierarchy has the figure.

    *memory_bytes* leaves out page cache that can be dropped at once, as Docker does.
    *memory_limit_bytes* is None without a limit.
    """

    cpu_ns: int = 0
    memory_bytes: int = 0
    memory_limit_bytes: int | None = None
    read_bytes: int = 0
    written_bytes: int = 0
    tasks: int = 0


def cgroup_usage(directories: Iterable[str]) -> CgroupUsage:
    """Read a cgroup's counters; *directories* are its own in each hierarchy.

    Files that are not there, or go while they are read, count as nothing.
    """
    found = _Files(list(directories))
    read, written = _block_io(found)
    return CgroupUsage(
        cpu_ns=_cpu_ns(found),
        memory_bytes=_memory(found),
        memory_limit_bytes=_memory_limit(found),
        read_bytes=read,
        written_bytes=written,
        tasks=found.number("pids.current") or 0,
    )


class _Files:
    """The files of one cgroup, whichever hierarchy has them."""

    def __init__(self, directories: Sequence[str]) -> None:
        self._directories = directories

    def text(self, name: str) -> str | None:
        for directory in self._directories:
            try:
                return Path(directory, name).read_text()
            except OSError:  # not this controller's, or gone
                continue
        return None

    def number(self, name: str) -> int | None:
        text = (self.text(name) or "").strip()
        return int(text) if text.isdigit() else None

    def table(self, name: str) -> Mapping[str, int]:
        """A file of ``key value`` lines."""
        lines = [line.split() for line in (self.text(name) or "").splitlines()]
        return {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[1].isdigit()}


def _cpu_ns(found: _Files) -> int:
    used = found.number("cpuacct.usage")
    return used if used is not None else found.table("cpu.stat").get("usage_usec", 0) * 1000


def _memory(found: _Files) -> int:
    table = found.table("memory.stat")
    used, inactive = found.number("memory.usage_in_bytes"), table.get("total_inactive_file", 0)
    if used is None:
        used, inactive = found.number("memory.current") or 0, table.get("inactive_file", 0)
    return used - inactive if inactive < used else used


def _memory_limit(found: _Files) -> int | None:
    limit = found.number("memory.limit_in_bytes")
    if limit is None:
        return found.number("memory.max")  # "max" is no number
    return None if limit >= _NO_LIMIT else limit


def _block_io(found: _Files) -> tuple[int, int]:
    for name in (
        "blkio.bfq.io_service_bytes_recursive",
        "blkio.throttle.io_service_bytes_recursive",
    ):
        text = found.text(name)
        if text and any(len(line.split()) == 3 for line in text.splitlines()):
            return _of_kind(text, "Read"), _of_kind(text, "Write")
    text = found.text("io.stat") or ""
    pairs = [word.split("=") for word in text.split() if "=" in word]
    read, written = (
        sum(int(value) for key, value in pairs if key == wanted) for wanted in ("rbytes", "wbytes")
    )
    return read, written


def _of_kind(text: str, kind: str) -> int:
    """Sum the lines ``8:0 Read 4096``."""
    lines = [line.split() for line in text.splitlines()]
    return sum(int(line[2]) for line in lines if len(line) == 3 and line[1] == kind)
