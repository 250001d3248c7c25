"""Moving bytes between us and a container, both ways at once, until one side is done.

Nothing blocks on the container: what it does not take yet waits here, and no more is read
meanwhile, so that a container that waits for us to read cannot wait for ever.
"""

from __future__ import annotations

import errno
import os
import select
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from enum import Enum
from typing import Protocol

from ..effects import effect
from .detach_keys import KeyWatch
from .terminals import is_terminal, raw_terminal, window_changes, window_size

STDOUT, STDERR = 1, 2
#: Where a chunk of the container's output goes.
Sink = Callable[[bytes], object]
CHUNK_BYTES = 8192


class Ending(Enum):
    """Why a pump stopped."""

    ENDED = "the container's side is closed"
    DETACHED = "the detach keys were typed"
    TIMED_OUT = "the deadline has passed"


class Peer(Protocol):
    """The container's side of a connection."""

    def sources(self) -> Sequence[int]:
        """Return what is to be read from; nothing is left once its side is closed."""
        ...

    def receive(self, source: int) -> Iterable[tuple[int, bytes]]:
        """Read from a *source* that is ready; give what is to be written to which stream."""
        ...

    def pause_seconds(self) -> float | None:
        """Return when :meth:`later` is to be asked; None for never."""
        ...

    def later(self) -> Iterable[tuple[int, bytes]]:
        """Give output that was held back before."""
        ...

    def sink(self) -> int | None:
        """Return what takes input; None if nothing does any more."""
        ...

    def send(self, chunk: bytes) -> int:
        """Hand over what goes without waiting; returns how much that was.

        Raises:
            OSError: if it takes none now (BlockingIOError) or never will.
        """
        ...

    def end_input(self) -> None:
        """Say that no more input comes."""
        ...

    def resize(self, rows: int, columns: int) -> None:
        """Give the container's terminal this size."""
        ...


def writer(descriptor: int | None) -> Sink | None:
    """Return a sink that writes to *descriptor*; None for None."""
    return None if descriptor is None else lambda chunk: write_all(descriptor, chunk)


def pump(
    peer: Peer,
    stdin: int | bytes | None,
    stdout: Sink | None,
    stderr: Sink | None,
    *,
    terminal: int | None = None,
    keys: bytes = b"",
    deadline: float | None = None,
) -> Ending:
    """Move bytes until the container's side is closed, or *keys* come, or *deadline* (monotonic).

    *stdin* is read from a descriptor, or fed. None as a sink drops that stream; with neither of
    them, the end of the input is the end. *terminal* is ours, for a container that has one: its
    size is followed. If *stdin* is a terminal as well it is raw meanwhile, and *keys* count.

    Raises:
        BrokenPipeError: if who reads what the container writes has gone.
    """
    raw_side = stdin if terminal is not None and isinstance(stdin, int) else None
    with ExitStack() as stack:
        raw = stack.enter_context(raw_terminal(raw_side))
        extra: dict[int, Callable[[], None]] = {}
        if terminal is not None:
            extra = stack.enter_context(_followed(terminal, peer))
        watch = KeyWatch(keys) if raw and keys else None
        return _Pump(peer, stdin, stdout, stderr, watch, extra).run(deadline)


def terminal_of(*descriptors: object) -> int | None:
    """Return the first of *descriptors* that is a terminal."""
    numbers = (one for one in descriptors if isinstance(one, int))
    return next((number for number in numbers if is_terminal(number)), None)


def terminal_size(*descriptors: object) -> tuple[int, int] | None:
    """Return rows and columns of the first of *descriptors* that is a terminal."""
    ours = terminal_of(*descriptors)
    return None if ours is None else window_size(ours)


@contextmanager
def _followed(terminal: int, peer: Peer) -> Iterator[dict[int, Callable[[], None]]]:
    def adopt() -> None:
        size = window_size(terminal)
        if size is not None:
            peer.resize(*size)

    with window_changes() as changes:

        def changed() -> None:
            os.read(changes, 512)
            adopt()

        adopt()
        yield {changes: changed}


class _Pump:
    def __init__(
        self, peer: Peer, stdin: int | bytes | None, stdout: Sink | None, stderr: Sink | None,
        keys: KeyWatch | None, extra: dict[int, Callable[[], None]],
    ) -> None:  # fmt: skip
        self._peer = peer
        self._sinks = {STDOUT: stdout, STDERR: stderr}
        self._keys = keys
        self._extra = extra
        self._stdin = stdin if isinstance(stdin, int) else None
        self._pending = memoryview(stdin) if isinstance(stdin, bytes) else memoryview(b"")
        self._ending = isinstance(stdin, bytes)
        self._poller = select.poll()  # select(2) takes no descriptor from 1024 on, epoll no files
        self._polled: dict[int, int] = {}

    def run(self, deadline: float | None) -> Ending:
        while self._peer.sources():
            self._settle_input()
            if self._only_input and self._input_done:
                return Ending.ENDED
            for descriptor, events in self._wait(deadline):
                if descriptor in self._extra:
                    self._extra[descriptor]()
                elif descriptor == self._stdin:
                    if not self._read_input(descriptor):
                        return Ending.DETACHED
                else:
                    self._serve(descriptor, events)
            self._write(self._peer.later())
            if deadline is not None and time.monotonic() >= deadline and self._peer.sources():
                return Ending.TIMED_OUT
        return Ending.ENDED

    @property
    def _only_input(self) -> bool:
        return self._sinks[STDOUT] is None and self._sinks[STDERR] is None

    @property
    def _input_done(self) -> bool:
        return self._stdin is None and not self._pending and not self._ending

    def _wait(self, deadline: float | None) -> list[tuple[int, int]]:
        wanted = dict.fromkeys([*self._peer.sources(), *self._extra], select.POLLIN)
        sink = self._peer.sink()
        if self._pending and sink is not None:
            wanted[sink] = wanted.get(sink, 0) | select.POLLOUT
        elif self._stdin is not None:
            wanted[self._stdin] = select.POLLIN
        for descriptor in self._polled.keys() - wanted.keys():
            self._poller.unregister(descriptor)
        for descriptor, events in wanted.items():
            if self._polled.get(descriptor) != events:
                self._poller.register(descriptor, events)
        self._polled = wanted
        pauses = [pause for pause in (self._peer.pause_seconds(),) if pause is not None]
        if deadline is not None:
            pauses.append(max(0.0, deadline - time.monotonic()))
        return self._poller.poll(min(pauses) * 1000 if pauses else None)

    def _serve(self, descriptor: int, events: int) -> None:
        if descriptor == self._peer.sink() and events & ~select.POLLIN:
            self._send()
        if descriptor in self._peer.sources() and events & ~select.POLLOUT:
            self._write(self._peer.receive(descriptor))

    def _write(self, received: Iterable[tuple[int, bytes]]) -> None:
        for stream, chunk in received:
            sink = self._sinks[stream]
            if sink is not None:
                sink(chunk)

    # --- input -------------------------------------------------------------------------------

    def _read_input(self, stdin: int) -> bool:
        """Take what *stdin* has; False after the detach keys."""
        try:
            chunk = os.read(stdin, CHUNK_BYTES)
        except OSError as error:
            if error.errno not in (errno.EIO, errno.EBADF):  # hung up; closed
                raise
            chunk = b""
        if not chunk:
            self._stdin, self._ending = None, True
        elif self._keys is not None:
            chunk = self._keys.filter(chunk)
        self._pending = memoryview(chunk)
        if self._pending:
            self._send()
        return self._keys is None or not self._keys.seen

    def _send(self) -> None:
        try:
            while self._pending:
                sent = self._peer.send(bytes(self._pending[:CHUNK_BYTES]))
                self._pending = self._pending[sent:]
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EIO):
                raise
            self._give_up_input()

    def _settle_input(self) -> None:
        if self._peer.sink() is None:
            self._give_up_input()
        elif self._ending and not self._pending:
            self._ending = False
            self._peer.end_input()

    def _give_up_input(self) -> None:
        """Nobody takes it: what was typed goes nowhere, but the detach keys still count."""
        self._pending, self._ending = memoryview(b""), False
        if self._keys is None:
            self._stdin = None


def write_all(target: int, rest: bytes) -> None:
    """Write all of it, waiting where the reader is slow; a terminal that hung up is no error.

    Raises:
        BrokenPipeError: if the reader has gone.
    """
    while rest:
        try:
            rest = rest[os.write(target, rest) :]
        except BlockingIOError:
            poller = select.poll()
            poller.register(target, select.POLLOUT)
            poller.poll()
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return


def drain(source: int) -> None:
    """Leave a small process behind that reads a terminal or socket to its end: who writes to it
    must not come to a halt, or see us go."""
    os.set_blocking(source, True)
    with effect("container.drain"):
        subprocess.Popen(
            ["cat"],
            stdin=source,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
