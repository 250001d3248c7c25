"""The process that an exec starts, as its caller sees it: by pipes, or by a terminal of its own.

crun (as of 1.8) can leave unread what a terminal's process wrote right before its end, so it
hands us the terminal's other side over a socket (``--console-socket``) and copies nothing. runc
hands it over only to callers that do not wait; it copies well, so it is given a terminal of ours.

What a runtime itself says before it has started the process comes on the same stderr: it is held
back until the process is known to run, and dropped if it never does.
"""

from __future__ import annotations

import errno
import os
import pty
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..effects import effect
from .pump import CHUNK_BYTES, STDERR, STDOUT
from .terminals import set_window_size

_HELD_SECONDS = 0.005
_CONSOLE_SECONDS = 30.0
_READ_BYTES = 1 << 16


class PipePeer:
    """A process whose stdio are pipes of ours; *started* tells whether it runs yet.

    Its side is closed when the process has ended, whoever else still holds the pipes open.
    *held* is what came on stderr before it ran.
    """

    def __init__(self, process: subprocess.Popen[bytes], started: Callable[[], bool]) -> None:
        self._process = process
        self._started = started
        self.held = b""
        self._streams: dict[int, int] = {}
        for file, stream in ((process.stdout, STDOUT), (process.stderr, STDERR)):
            if file is not None:
                self._streams[file.fileno()] = stream
        for file in (process.stdin, process.stdout, process.stderr):
            if file is not None:
                os.set_blocking(file.fileno(), False)
        self._end = os.pidfd_open(process.pid)
        self._ended = False

    def close(self) -> None:
        """Close our ends."""
        os.close(self._end)
        for file in (self._process.stdin, self._process.stdout, self._process.stderr):
            if file is not None:
                file.close()

    def sources(self) -> Sequence[int]:
        return () if self._ended else (*self._streams, self._end)

    def receive(self, source: int) -> Iterable[tuple[int, bytes]]:
        if source != self._end:
            yield from self._read_all(source)
            return
        self._ended = True
        for descriptor in list(self._streams):  # what it wrote is in the pipes by now
            yield from self._read_all(descriptor)
        yield from self.later()

    def _read_all(self, source: int) -> Iterator[tuple[int, bytes]]:
        stream = self._streams[source]
        while True:
            try:
                chunk = os.read(source, _READ_BYTES)
            except BlockingIOError:
                return
            if not chunk:
                del self._streams[source]
                return
            if stream == STDERR and (self.held or not self._started()):
                self.held += chunk
            else:
                yield stream, chunk

    def pause_seconds(self) -> float | None:
        return _HELD_SECONDS if self.held else None

    def later(self) -> Iterable[tuple[int, bytes]]:
        if self.held and self._started():
            held, self.held = self.held, b""
            yield STDERR, held

    def sink(self) -> int | None:
        stdin = self._process.stdin
        return None if stdin is None or stdin.closed else stdin.fileno()

    def send(self, chunk: bytes) -> int:
        stdin = self._process.stdin
        assert stdin is not None
        try:
            return os.write(stdin.fileno(), chunk)
        except BrokenPipeError:
            stdin.close()
            raise

    def end_input(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()

    def resize(self, rows: int, columns: int) -> None:
        """Pipes have no size."""


class TerminalPeer:
    """A process on a terminal whose other side, *master*, is ours.

    Its side is closed once its session has ended: then the kernel hangs the terminal up, and
    reading gives EIO after the last byte (tty_io.c, disassociate_ctty).
    """

    def __init__(self, master: int, resized: Callable[[], object] = lambda: None) -> None:
        os.set_blocking(master, False)
        self.master = master
        self._resized = resized
        self._open = True

    def sources(self) -> Sequence[int]:
        return (self.master,) if self._open else ()

    def receive(self, source: int) -> Iterable[tuple[int, bytes]]:
        try:
            chunk = os.read(self.master, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            chunk = b""
        if chunk:
            yield STDOUT, chunk
        else:
            self._open = False

    def pause_seconds(self) -> float | None:
        return None

    def later(self) -> Iterable[tuple[int, bytes]]:
        return ()

    def sink(self) -> int | None:
        return self.master if self._open else None

    def send(self, chunk: bytes) -> int:
        return os.write(self.master, chunk[:CHUNK_BYTES])

    def end_input(self) -> None:
        """A terminal has no half-close; Docker does nothing either."""

    def resize(self, rows: int, columns: int) -> None:
        try:
            set_window_size(self.master, rows, columns)
        except OSError:
            return
        self._resized()


class ConsoleSocket:
    """Where a runtime connects to hand over a terminal; *path* is short wherever the root is."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._file = directory / name
        self.path = f"/proc/{os.getpid()}/fd/{self._directory}/{name}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            with effect("exec.listen", path=self._file):
                self._socket.bind(self.path)
                self._socket.listen(1)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._socket.close()
        os.close(self._directory)
        with effect("exec.remove_socket", path=self._file):
            self._file.unlink(missing_ok=True)

    def receive(self, runtime: subprocess.Popen[bytes]) -> int | None:
        """Wait for the terminal's master; None if the *runtime* ended without giving it."""
        end = os.pidfd_open(runtime.pid)
        try:
            if not _either(self._socket.fileno(), end):
                return None
            connection, _ = self._socket.accept()
            with connection:
                if not _either(connection.fileno(), end):
                    return None
                _, descriptors, _, _ = socket.recv_fds(connection, 4096, 1)
        finally:
            os.close(end)
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        return descriptors[0] if descriptors else None


def _either(awaited: int, end: int) -> bool:
    """Wait for *awaited*; False if *end* comes without it, or neither in time."""
    poller = select.poll()
    for descriptor in (awaited, end):
        poller.register(descriptor, select.POLLIN)
    deadline = time.monotonic() + _CONSOLE_SECONDS
    ready = {one for one, _ in poller.poll(max(0.0, deadline - time.monotonic()) * 1000)}
    return awaited in ready


@contextmanager
def own_terminal(size: tuple[int, int] | None) -> Iterator[tuple[int, int]]:
    """Give a new terminal's two sides, master and slave; the caller closes the master."""
    master, slave = pty.openpty()
    try:
        if size is not None:
            set_window_size(master, *size)
        yield master, slave
    finally:
        os.close(slave)


def tell_resized(process: subprocess.Popen[bytes]) -> None:
    """Have a runtime that copies a terminal of ours look at its size again."""
    if process.poll() is None:
        process.send_signal(signal.SIGWINCH)
