"""Seeing that the kernel killed for want of memory, although the cgroup is gone by then.

``crun run`` removes the cgroup before it returns, and its counts with it. On cgroup v1 an eventfd
is told of each shortage, and once more when the cgroup goes (Documentation/admin-guide/cgroup-v1/
memory.rst, section 10); on v2 the parent's ``memory.events`` counts for all below it.
"""

from __future__ import annotations

import os
import select
from pathlib import Path
from types import TracebackType

from ..effects import effect
from .cgroups import Cgroup

_GONE_SECONDS = 0.5


class OomWatch:
    """Watches *cgroup*, which exists, for the time of the ``with``."""

    def __init__(self, cgroup: Cgroup) -> None:
        self._cgroup = cgroup
        self._eventfd: int | None = None
        self._counts: Path | None = None
        self._before = 0

    def __enter__(self) -> OomWatch:
        for directory in self._cgroup.directories():
            if os.path.exists(f"{directory}/memory.oom_control"):
                self._subscribe(directory)
            elif os.path.exists(f"{directory}/memory.events"):
                self._counts = Path(os.path.dirname(directory), "memory.events")
                self._before = _oom_kills(self._counts)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._eventfd is not None:
            os.close(self._eventfd)

    def _subscribe(self, directory: str) -> None:
        self._eventfd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        control = os.open(f"{directory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        try:
            with effect("cgroup.watch_oom", path=directory):
                place = Path(directory, "cgroup.event_control")
                place.write_text(f"{self._eventfd} {control}")
        finally:
            os.close(control)

    def killed(self, exit_code: int) -> bool:
        """Return whether memory ran out in the cgroup, whose first process has ended so."""
        if exit_code == 0:
            return False
        if self._counts is not None:
            return exit_code == 137 and _oom_kills(self._counts) > self._before
        if self._eventfd is None:
            return False
        told = self._read()
        if told == 1 and not any(self._cgroup.directories()):
            # a shortage, or that the cgroup went: then there is no second one
            poll = select.poll()
            poll.register(self._eventfd, select.POLLIN)
            return bool(poll.poll(_GONE_SECONDS * 1000))
        return told > 0

    def _read(self) -> int:
        assert self._eventfd is not None
        try:
            return os.eventfd_read(self._eventfd)
        except BlockingIOError:
            return 0


def _oom_kills(counts: Path) -> int:
    try:
        lines = counts.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
