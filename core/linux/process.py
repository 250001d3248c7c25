"""Naming processes so that a recycled pid is never taken for the one that was meant."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from msgspec import Struct

from ..effects import effect
from .pids import boot_id as boot_id
from .pids import start_time as start_time


class ProcessIdentity(Struct, frozen=True):
    """A process of this machine: pid, start time (clock ticks since boot) and boot id."""

    pid: int
    start_time: int
    boot_id: str

    @property
    def alive(self) -> bool:
        """Whether that very process still runs (a zombie does not)."""
        return self.boot_id == boot_id() and start_time(self.pid) == self.start_time


def identity(pid: int | None = None) -> ProcessIdentity:
    """Return the identity of a live process (default: this one).

    Raises:
        ProcessLookupError: if there is none.
    """
    pid = pid or os.getpid()
    started = start_time(pid)
    if started is None:
        raise ProcessLookupError(pid)
    return ProcessIdentity(pid, started, boot_id())


def describe(pid: int) -> str:
    """Return ``"1234 (sleep 10)"`` for messages."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        command = b" ".join(words).decode(errors="replace")
        command = command or Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        command = "gone"
    return f"{pid} ({command[:80]})"


def open_process(process: ProcessIdentity) -> int | None:
    """Return a pidfd of that very process, or None if it is gone (pidfd_open(2))."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    if process.alive:  # looked at while the pidfd pins the pid
        return descriptor
    os.close(descriptor)
    return None


def send_signal(process: ProcessIdentity, number: int) -> bool:
    """Signal that very process; False if it is gone."""
    descriptor = open_process(process)
    if descriptor is None:
        return False
    try:
        with effect("process.signal", pid=process.pid, signal=number):
            signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def wait_gone(process: ProcessIdentity, timeout_seconds: float | None = None) -> bool:
    """Wait until that very process has ended; False if it still runs after that time."""
    return wait_any_gone((process,), timeout_seconds)


def wait_any_gone(
    processes: Iterable[ProcessIdentity], timeout_seconds: float | None = None
) -> bool:
    """Wait until one of these very processes has ended; False if all run after that time."""
    poller = select.poll()
    with ExitStack() as stack:
        for process in processes:
            descriptor = open_process(process)
            if descriptor is None:
                return True
            stack.callback(os.close, descriptor)
            poller.register(descriptor, select.POLLIN)
        milliseconds = None if timeout_seconds is None else max(0, int(timeout_seconds * 1000))
        return bool(poller.poll(milliseconds))
