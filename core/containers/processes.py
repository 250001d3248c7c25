"""A container's processes as the host sees them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..linux.process import ProcessIdentity, identity
from .context import Context
from .model import ContainerRecord


def first_process(context: Context, record: ContainerRecord) -> ProcessIdentity | None:
    """Return a container's first process as the host sees it; None if it is not known."""
    if record.runtime.process is not None:
        return record.runtime.process
    # a direct run: the runtime writes the file a moment after it has started the process
    inside = context.cgroup(record).processes()
    written = context.files(record.id).pid()  # may be old, and another process's by now
    if record.spec.namespaces.pid:  # it is process 1 of nothing
        return _identity(written) if written in inside else None
    for pid in sorted(inside, key=lambda pid: (pid != written, pid)):
        try:
            if _first_in_namespace(pid):
                return identity(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return None


def _identity(pid: int | None) -> ProcessIdentity | None:
    try:
        return identity(pid) if pid else None
    except ProcessLookupError:
        return None


def _first_in_namespace(pid: int) -> bool:
    """Whether it is process 1 of a PID namespace (``NSpid`` in proc(5))."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("NSpid:"):
            return line.split()[-1] == "1"
    return False


@contextmanager
def mount_namespace(context: Context, record: ContainerRecord) -> Iterator[int | None]:
    """Give a descriptor of a running container's mount namespace; None if it does not run."""
    process = first_process(context, record) if record.state.lives else None
    if process is None or not process.alive:
        yield None
        return
    try:
        namespace = os.open(f"/proc/{process.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # ended meanwhile
        yield None
        return
    try:
        yield namespace
    finally:
        os.close(namespace)
