"""Killing one of the processes that work for a root, and what must be true afterwards."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from stowage.containers.model import ContainerState
from stowage.engine import Engine
from stowage.errors import NotFound
from stowage.linux.cgroups import Cgroup

_RUNTIMES = ("crun", "runc", "nsenter")
_PATIENCE_SECONDS, _LONGEST_SECONDS = 0.3, 3.0
_SETTLING_SECONDS = 20.0


def wait_until_true(engine: Engine, container_id: str) -> None:
    """Wait until what is recorded of a container is so: it has ended; or it has a monitor and a
    process, which stands still if it is paused; or somebody waits to restart it."""
    deadline = time.monotonic() + _SETTLING_SECONDS
    while True:
        try:
            record = engine.containers.get(container_id)
        except NotFound:
            return
        owner = record.runtime.monitor_process
        owned = owner is not None and owner.alive
        if not record.state.lives and record.state is not ContainerState.REMOVING:
            return
        if record.state is ContainerState.RESTARTING and owned:
            return
        if owned and engine.containers.pid(container_id):
            frozen = engine.containers._context.cgroup(record).frozen
            assert frozen is (record.state is ContainerState.PAUSED), record
            return
        assert time.monotonic() < deadline, record
        time.sleep(0.02)


class Targets:
    """The processes of *root* by what they are; *command* is the pid of the user's command."""

    def __init__(self, root: Path, root_id: str, command: int | None) -> None:
        self._root = os.fsencode(root)
        self._cgroup = Cgroup(f"/stowage/{root_id}")
        self._command = command
        self.kinds: Mapping[str, Callable[[], list[int]]] = {
            "us": lambda: [] if self._command is None else [self._command],
            "conmon": lambda: self._called(lambda words: words[0].endswith(b"conmon")),
            "container": lambda: sorted(self._cgroup.processes())[:1],
            "runtime": lambda: self._called(
                lambda words: os.path.basename(words[0]).decode() in _RUNTIMES
            ),
            "finish": lambda: self._called(
                lambda words: b"finish" in words and not words[0].endswith(b"conmon")
            ),
        }

    def kill(self, kind: str, *, going_on: Callable[[], bool]) -> bool:
        """Kill the first process of that kind that is seen; False if none was seen as long as it
        was *going_on*, and a little longer."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        latest = time.monotonic() + _LONGEST_SECONDS
        while True:
            for pid in self.kinds[kind]():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
                return True
            if going_on() and time.monotonic() < latest:
                deadline = time.monotonic() + _PATIENCE_SECONDS
            elif time.monotonic() > deadline:
                return False
            time.sleep(0.002)

    def _called(self, fits: Callable[[list[bytes]], bool]) -> list[int]:
        found = []
        for name in os.listdir("/proc"):
            if not name.isdigit() or int(name) in (os.getpid(), self._command):
                continue
            try:
                raw = Path(f"/proc/{name}/cmdline").read_bytes()
            except OSError:  # ended meanwhile
                continue
            if self._root in raw and fits(raw.split(b"\0")):
                found.append(int(name))
        return found
