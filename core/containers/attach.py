"""A client of conmon's attach socket: a terminal or pipes on one side, the container on the other.

The socket is ``attach`` in the bundle, SOCK_SEQPACKET; each packet from conmon begins with a byte
that says the stream (2 stdout, 3 stderr), what we send is the container's stdin, and a half-close
ends it. Window sizes go to the fifo ``ctl`` as ``1 ROWS COLUMNS`` (conmon's src/conn_sock.c and
src/ctrl.c).
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import socket
import struct
import termios
import time
import tty as terminals
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..effects import effect
from ..errors import Unavailable
from ..linux.process import ProcessIdentity

_STDOUT, _STDERR = 2, 3
_PACKET_BYTES = 8193
_SEND_BYTES = 8192
_ACCEPT_SECONDS = 2.0
#: Docker's keys to leave a container running: ctrl-p ctrl-q.
DETACH_KEYS = b"\x10\x11"


class AttachedClient:
    """One connection to a container's stdio.

    Raises:
        Unavailable: if nothing listens (the container has ended).
    """

    def __init__(self, bundle: Path, monitor: ProcessIdentity | None, *, tty: bool) -> None:
        self._bundle = bundle
        self._tty = tty
        self._socket = _connect(bundle, monitor)
        self.detached = False

    def close(self) -> None:
        """Drop the connection; the container runs on. Idempotent."""
        self._socket.close()

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of the container's terminal."""
        try:
            control = os.open(self._bundle / "ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # the container has ended
            return
        try:
            with effect("container.resize", rows=rows, columns=columns):
                os.write(control, f"1 {rows} {columns}\n".encode())
        except OSError:
            pass
        finally:
            os.close(control)

    def pump(self, stdin: int | None, stdout: int | None, stderr: int | None) -> None:
        """Move bytes both ways until the container closes its side or the user detaches.

        None means nothing to read from, or nowhere to write to. With a terminal on *stdin* and
        a tty in the container, the terminal is raw meanwhile and its size is followed.
        """
        with self._socket, _raw_terminal(stdin if self._tty else None) as raw:
            if raw:
                self._follow_size(stdin)
            with _window_changes(raw) as changes:
                self._loop(stdin, stdout, stderr, changes, raw)

    def _loop(
        self, stdin: int | None, stdout: int | None, stderr: int | None,
        changes: int | None, raw: bool,
    ) -> None:  # fmt: skip
        connection = self._socket.fileno()
        poller = select.poll()  # select(2) takes no descriptor from 1024 on, epoll(7) no files
        for source in (connection, stdin, changes):
            if source is not None:
                poller.register(source, select.POLLIN)
        keys = _DetachKeys()
        while True:
            ready = {descriptor for descriptor, _ in poller.poll()}
            if changes is not None and changes in ready:
                os.read(changes, 512)
                self._follow_size(stdin)
            if stdin is not None and stdin in ready and not self._feed(stdin, keys, raw):
                if self.detached:
                    return
                poller.unregister(stdin)
            if connection in ready and not self._receive(stdout, stderr):
                return

    def _feed(self, stdin: int, keys: _DetachKeys, raw: bool) -> bool:
        """Send what *stdin* has; False at its end (the container's stdin is closed then)."""
        try:
            chunk = os.read(stdin, _SEND_BYTES)
        except OSError as error:
            if error.errno != errno.EIO:  # the terminal hung up
                raise
            chunk = b""
        ended = not chunk
        if raw:
            chunk, self.detached = keys.filter(chunk), keys.seen
            if self.detached:
                return False
        try:
            if not ended:
                if chunk:  # else the first of the detach keys, which waits for the second
                    self._socket.sendall(chunk)
                return True
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN):
                raise
        return False

    def _receive(self, stdout: int | None, stderr: int | None) -> bool:
        try:
            packet = self._socket.recv(_PACKET_BYTES)
        except ConnectionResetError:
            packet = b""
        if not packet:
            return False
        target = stderr if packet[0] == _STDERR else stdout
        if target is not None:
            _write_all(target, packet[1:])
        return True

    def _follow_size(self, terminal: int | None) -> None:
        if terminal is None:
            return
        packed = fcntl.ioctl(terminal, termios.TIOCGWINSZ, bytes(8))
        rows, columns = struct.unpack_from("HH", packed)
        if rows and columns:
            self.resize(rows, columns)


class _DetachKeys:
    """Watches what is typed for the detach keys, which never reach the container."""

    def __init__(self) -> None:
        self.pending = b""
        self.seen = False

    def filter(self, chunk: bytes) -> bytes:
        """Return what of *chunk* is to be sent."""
        passed = bytearray()
        for number in chunk:
            key = bytes([number])
            if DETACH_KEYS.startswith(self.pending + key):
                self.pending += key
                if self.pending == DETACH_KEYS:
                    self.seen = True
                    break
                continue
            passed += self.pending + key
            self.pending = b""
        return bytes(passed)


def _write_all(target: int, rest: bytes) -> None:
    while rest:
        try:
            rest = rest[os.write(target, rest) :]
        except BlockingIOError:
            poller = select.poll()
            poller.register(target, select.POLLOUT)
            poller.poll()
        except BrokenPipeError:  # who reads our output has gone; the container must not block
            return


def _connect(bundle: Path, monitor: ProcessIdentity | None) -> socket.socket:
    """Connect, and wait until conmon has accepted: else the first bytes could be lost.

    The socket is reached through a descriptor of its directory, for a path may be longer than
    the 107 bytes that fit into an address.
    """
    before = _open_files(monitor)
    directory = os.open(bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        with effect("container.attach", path=bundle):
            client.connect(f"/proc/self/fd/{directory}/attach")
    except OSError as error:
        client.close()
        raise Unavailable("the container's stdio cannot be attached to", details=str(error)) from (
            error
        )
    finally:
        os.close(directory)
    deadline = time.monotonic() + _ACCEPT_SECONDS
    while 0 < _open_files(monitor) <= before and time.monotonic() < deadline:
        time.sleep(0.0005)
    return client


def _open_files(monitor: ProcessIdentity | None) -> int:
    if monitor is None:
        return 0
    try:
        return len(os.listdir(f"/proc/{monitor.pid}/fd"))
    except OSError:
        return 0


@contextmanager
def _raw_terminal(terminal: int | None) -> Iterator[bool]:
    """Make a terminal raw for the time of the ``with``; gives False where there is none."""
    if terminal is None or not os.isatty(terminal):
        yield False
        return
    before = termios.tcgetattr(terminal)
    with effect("terminal.raw"):
        terminals.setraw(terminal, termios.TCSANOW)  # what is typed ahead stays
    try:
        yield True
    finally:
        with effect("terminal.restore"):
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)


@contextmanager
def _window_changes(wanted: bool) -> Iterator[int | None]:
    """Give a descriptor that becomes readable on SIGWINCH; None outside of the main thread."""
    if not wanted:
        yield None
        return
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def changed(number: int, frame: object) -> None:
        try:
            os.write(writer, b"w")
        except BlockingIOError:
            pass

    try:
        previous = signal.signal(signal.SIGWINCH, changed)
    except ValueError:  # only the main thread may set handlers
        previous = None
    try:
        yield reader
    finally:
        if previous is not None:
            signal.signal(signal.SIGWINCH, previous)
        os.close(reader)
        os.close(writer)
