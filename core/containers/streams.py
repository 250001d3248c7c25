"""The stdio of a process that somebody waits for: fed, collected or handed through, all at once."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import IO, Any

from msgspec import Struct

from ..effects import effect
from .runtime import helper_environment

_CHUNK = 1 << 16
#: How long a killed process's pipes are read on, and how long its end is waited for: what it
#: wrote is there already, and who else holds them open may never end.
DRAIN_SECONDS = 0.5
_END_SECONDS = 5.0


class Streams(Struct, frozen=True):
    """What a process reads and writes: *stdin* is bytes to feed, a descriptor, or None for
    nothing; *stdout* and *stderr* are descriptors, or None to collect what is written."""

    stdin: bytes | int | None = None
    stdout: int | None = None
    stderr: int | None = None

    @property
    def feed(self) -> bytes:
        return self.stdin if isinstance(self.stdin, bytes) else b""


class Collected(Struct, frozen=True):
    """What a process wrote to pipes of ours, and how it ended (128+n for a signal)."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    timed_out: bool
    detached: bool = False
    """The detach keys were typed: it runs on, and *exit_code* is 0."""


def spawn(
    name: str, command: Sequence[str], streams: Streams, *, own_group: bool = False
) -> subprocess.Popen[bytes]:
    """Start a process with these streams; *name* is the effect's. It inherits nothing else.

    With *own_group*, what is typed on our terminal does not signal it.
    """
    stdin: int = subprocess.DEVNULL
    if streams.stdin is not None:
        stdin = streams.stdin if isinstance(streams.stdin, int) else subprocess.PIPE
    with effect(name, command=command):
        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=subprocess.PIPE if streams.stdout is None else streams.stdout,
            stderr=subprocess.PIPE if streams.stderr is None else streams.stderr,
            env=helper_environment(),
            process_group=0 if own_group else None,
        )


def communicate(
    process: subprocess.Popen[bytes],
    feed: bytes,
    *,
    timeout_seconds: float | None,
    kill: Callable[[], None],
) -> Collected:
    """Feed and collect until the process has ended.

    *kill* ends what it works for: it is called after the time-out, and when anything is raised.
    After it, pipes that somebody else still holds open are given up.
    """
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    timed_out = False
    with process:
        try:
            pump = _Pump(process, feed)
            if not pump.run(deadline):
                timed_out = True
                kill()
                pump.run(time.monotonic() + DRAIN_SECONDS)
                end(process)
            try:
                process.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                timed_out = True
                kill()
                end(process)
        except BaseException:  # KeyboardInterrupt, too: leaving the block waits for its end
            try:
                kill()
            finally:
                process.kill()
            raise
    code = process.returncode
    return Collected(
        code if code >= 0 else 128 - code, bytes(pump.stdout), bytes(pump.stderr), timed_out
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process whose work was killed, and kill it if it does not notice."""
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        with effect("process.kill", pid=process.pid):
            process.kill()
        process.wait()


class _Pump:
    """Feeds a process's stdin and collects its stdout and stderr, all at once."""

    def __init__(self, process: subprocess.Popen[bytes], feed: bytes) -> None:
        self.stdout = bytearray()
        self.stderr = bytearray()
        self._selector = selectors.DefaultSelector()
        self._feed = memoryview(feed)
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)
            self._selector.register(process.stdin, selectors.EVENT_WRITE)
        for pipe, into in ((process.stdout, self.stdout), (process.stderr, self.stderr)):
            if pipe is not None:
                self._selector.register(pipe, selectors.EVENT_READ, into)

    def run(self, deadline: float | None) -> bool:
        """Go on until every pipe is closed; False at the *deadline*."""
        while self._selector.get_map():
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            for key, _ in self._selector.select(left):
                pipe: IO[bytes] = key.fileobj  # type: ignore[assignment]  # we registered files
                if not self._step(pipe, key.data):
                    self._selector.unregister(pipe)
                    pipe.close()
        self._selector.close()
        return True

    def _step(self, pipe: IO[bytes], into: Any) -> bool:
        """Move one chunk; False when that pipe is done."""
        if into is not None:
            chunk = os.read(pipe.fileno(), _CHUNK)
            into += chunk
            return bool(chunk)
        try:
            self._feed = self._feed[os.write(pipe.fileno(), self._feed[:_CHUNK]) :]
        except BlockingIOError:
            return True
        except BrokenPipeError:  # it does not read its stdin to the end
            return False
        return bool(self._feed)
