"""Ending an exec: its process, what that started, and the runtime if it has not come so far.

The container lives on, so its cgroup cannot be killed. Who belongs to the exec is told by
ancestry, by the session that the runtime opens for it (setsid(2)) and by who holds its pipes; a
daemon that has left all three is not found.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec import Struct

from ..linux.cgroups import Cgroup
from ..linux.process import ProcessIdentity, boot_id, send_signal

_KILL_SECONDS = 1.0
_POLL_SECONDS = 0.005


class _Kin(Struct, frozen=True):
    """A live process, its parent and its session, as the host numbers them (proc_pid_stat(5))."""

    process: ProcessIdentity
    parent: int
    session: int


def kill_tree(runtime: subprocess.Popen[bytes], pid_file: Path, cgroup: Cgroup) -> None:
    """Kill all that an exec started; *runtime* is its ``exec`` command, which sees the end.

    Nothing but children of the runtime and processes of the container's *cgroup* is killed.

    A runtime that has not written its *pid_file* is killed as well: what it starts later would
    be started unseen.
    """
    first = _pid(pid_file)
    pipes = _pipes(runtime)
    sessions: set[int] = set()
    deadline = time.monotonic() + _KILL_SECONDS
    while True:
        table = _table()
        inside = cgroup.processes() & set(table)
        found = _descendants(table, {runtime.pid})
        kin = {pid for pid in inside if pid in found or pid == first or _holds(pid, pipes)}
        sessions |= {table[pid].session for pid in kin} - {0, os.getsid(0)}
        kin |= {pid for pid in inside if table[pid].session in sessions}
        found |= kin | _descendants(table, kin)
        if first is None:
            runtime.kill()
        for pid in found:
            send_signal(table[pid].process, signal.SIGKILL)
        if not found or time.monotonic() > deadline:
            return
        time.sleep(_POLL_SECONDS)


def _pipes(runtime: subprocess.Popen[bytes]) -> set[str]:
    """Return our pipes to and from an exec that are still open, by their kernel's names."""
    files = (runtime.stdin, runtime.stdout, runtime.stderr)
    return {
        os.readlink(f"/proc/self/fd/{file.fileno()}")
        for file in files
        if file is not None and not file.closed
    }


def _holds(pid: int, pipes: set[str]) -> bool:
    try:
        links = {os.readlink(entry.path) for entry in os.scandir(f"/proc/{pid}/fd")}
    except OSError:  # ended meanwhile
        return False
    return bool(links & pipes)


def _descendants(table: Mapping[int, _Kin], ancestors: set[int]) -> set[int]:
    found: set[int] = set()
    fresh = ancestors
    while fresh:
        fresh = {pid for pid, kin in table.items() if kin.parent in fresh} - found
        found |= fresh
    return found


def _table() -> Mapping[int, _Kin]:
    return {kin.process.pid: kin for kin in _living()}


def _living() -> Iterator[_Kin]:
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            raw = Path(f"/proc/{name}/stat").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        fields = raw[raw.rindex(b")") + 2 :].split()
        if fields[0] not in (b"Z", b"X"):
            process = ProcessIdentity(int(name), int(fields[19]), boot_id())
            yield _Kin(process, int(fields[1]), int(fields[3]))


def _pid(pid_file: Path) -> int | None:
    try:
        return int(pid_file.read_text())
    except (FileNotFoundError, ValueError):  # not written yet, or not to its end
        return None
