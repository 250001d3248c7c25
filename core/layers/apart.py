"""An archive read by a process of its own, on another core, while this one makes the files.

The process (:mod:`~.apart_reader`) decompresses, parses, digests and writes the recipe. It gets
the archive through a pipe and fills buffers in memory that both share; for each it sends a message
with the members whose headers ended in it. A buffer is given back by its number once it is used.

Until it has started, members of a plain archive are parsed here, from the bytes at hand.
"""

from __future__ import annotations

import fcntl
import io
import marshal
import mmap
import os
import select
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from threading import Thread
from typing import Any, BinaryIO, Self, cast

from .. import __path__ as package_path
from .. import errors
from ..effects import effect
from ..errors import InvalidArchive, StowageError, Unavailable
from .apart_reader import HEADER, RING_BYTES, PartOfFile
from .compression import is_compressed
from .reading import PlainFile, members_of
from .tape import BUFFER_BYTES, Tape
from .tarreader import Member

_PIPE_BYTES = 1 << 20
_STALLED_SECONDS = 2.0

_PROGRAM = """
import sys
package = sys.modules["stowage"] = type(sys)("stowage")
package.__path__, sys.path = sys.argv[1].splitlines(), sys.argv[2].splitlines()
from stowage.layers.apart_reader import main
main(*map(int, sys.argv[3:]))
"""
"""Starts :mod:`~.apart_reader` in a third of the time that ``python -m`` takes, most of which goes
into ``site``; where this package is, which ``site`` may be needed to find out, is known."""


class Apart(AbstractContextManager["Apart"]):
    """See :class:`~.reading.Archive`."""

    def __init__(
        self,
        head: bytes,
        stream: BinaryIO,
        recipe: BinaryIO | None,
        drain_limit: int | None,
        file: PlainFile | None,
    ) -> None:
        self.view = memoryview(b"")
        self.at = 0
        self.end = 0
        self._begin = 0
        self._buffer: int | None = None
        self._recipe = recipe
        self._written = 0
        self._waiting: deque[tuple[Any, ...]] = deque()
        self._finished: tuple[bytes, int] | None = None
        self._process = _Process(recipe is not None, drain_limit, file)
        self._feeder = None if file else _Feeder(head, stream, self._process.input)
        self._at_hand = len(head)
        self._early: Tape | None = None
        if not is_compressed(head):
            first: io.IOBase = io.BytesIO(head)
            if file is not None:
                first, self._at_hand = PartOfFile(*file), sys.maxsize
            self._early = _UndigestedTape(cast(BinaryIO, first))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.view = memoryview(b"")
        self._process.close(finished=self._finished is not None)
        if self._feeder is not None:
            self._feeder.close()

    def fill(self) -> None:
        """Go on to the next buffer.

        Raises:
            InvalidArchive: at the end of the stream, or for what is wrong with its compression.
            OSError: if the stream cannot be read.
        """
        early = self._early
        if early is not None:
            early.at = self.at
            early.fill()
            self._take_from(early)
        elif not self._next():
            raise InvalidArchive("The archive ends too early", details="it was cut off on the way")

    def skip(self, size: int) -> None:
        """Pass over *size* bytes."""
        while size > 0:
            if self.at == self.end:
                self.fill()
            step = min(size, self.end - self.at)
            self.at += step
            size -= step

    def members(self) -> Iterator[Member]:
        """Yield the members; the first ones are parsed here, while the process starts."""
        known = 0
        if self._early is not None:
            for member in self._first_members(self._early):
                known += 1
                yield member
            self._early = None
            self.at = self.end = 0
        while self._next():
            while self._waiting:
                *fields, position = self._waiting.popleft()
                if known:
                    known -= 1
                    continue
                while position > self._begin + self.end:
                    self.fill()
                self.at = position - self._begin
                yield Member(*fields)

    def finish(self) -> tuple[bytes, int, int]:
        assert self._finished is not None  # members() has come to its end
        return *self._finished, self._written

    def _first_members(self, tape: Tape) -> Iterator[Member]:
        """Yield members that are wholly at hand, until the process has something."""
        members = members_of(tape)
        while not self._process.has_message():
            try:
                member = next(members, None)
            except InvalidArchive:  # or only the bytes at hand end: the process knows
                return
            if member is None or tape.position + member.size > self._at_hand:
                return
            self._take_from(tape)
            yield member
            tape.at = self.at

    def _take_from(self, tape: Tape) -> None:
        self.view, self.at, self.end = tape.view, tape.at, tape.end

    def _next(self) -> bool:
        if self._buffer is not None:
            self._process.give_back(self._buffer)
            self._buffer = None
            self._begin += self.end
            self.at = self.end = 0
        while self._finished is None:
            kind, *facts = self._receive()
            if kind == "buffer":
                self._buffer, self.end, members = facts
                self._waiting.extend(members)
                self.view = self._process.buffers[self._buffer]
                return True
            if kind == "recipe":
                self._record(*facts)
            elif kind == "end":
                self._finished = facts[0], facts[1]
            else:
                raise _raised(kind, facts)
        return False

    def _receive(self) -> tuple[Any, ...]:
        message = self._process.receive()
        failure = self._feeder.failure if self._feeder else None
        if failure is not None and (message is None or message[0] != "buffer"):
            raise failure
        if message is None:
            raise Unavailable("The process that reads the archive was killed")
        return message

    def _record(self, data: bytes) -> None:
        assert self._recipe is not None
        with effect("recipe.write", size_bytes=len(data)):
            self._recipe.write(data)
        self._written += len(data)


class _UndigestedTape(Tape):
    """What is read here is read again by the process, which digests it."""

    def _leave(self, used: memoryview) -> None:
        pass


class _Process:
    """The process, and what it shares with this one."""

    def __init__(self, wants_recipe: bool, drain_limit: int | None, file: PlainFile | None) -> None:
        ring = os.memfd_create("stowage-archive", os.MFD_CLOEXEC)
        try:
            with effect("memory.size", size_bytes=RING_BYTES):
                os.ftruncate(ring, RING_BYTES)
            self._ring = mmap.mmap(ring, RING_BYTES)
            self._whole = whole = memoryview(self._ring)
            self.buffers = [
                whole[at : at + BUFFER_BYTES] for at in range(0, RING_BYTES, BUFFER_BYTES)
            ]
            self._start(ring, [int(wants_recipe), -1 if drain_limit is None else drain_limit], file)
        finally:
            os.close(ring)
        assert self._process.stdout is not None
        self._messages = self._process.stdout
        self._poll = select.poll()
        self._poll.register(self._messages, select.POLLIN)

    def _start(self, ring: int, wishes: list[int], file: PlainFile | None) -> None:
        """Start it, with the pipes on which it gets buffers back and, without *file*, the
        archive (:attr:`input`)."""
        theirs, self._credits = os.pipe()
        archive, self.input = os.pipe()
        with suppress(PermissionError):  # beyond a user's limit: it works with less
            fcntl.fcntl(self.input, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        arguments = [ring, theirs, *wishes, *(file or ())]
        try:
            with effect("process.run", path=sys.executable):
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", _PROGRAM, *_paths(), *map(str, arguments)],
                    stdin=archive,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    pass_fds=(ring, theirs, *(file[:1] if file else ())),
                )
        except BaseException:
            os.close(self._credits)
            os.close(self.input)
            raise
        finally:
            os.close(theirs)
            os.close(archive)
        if file is not None:
            os.close(self.input)

    def has_message(self) -> bool:
        """Whether the first message has come."""
        return bool(self._poll.poll(0))

    def receive(self) -> tuple[Any, ...] | None:
        """Return the next message; None if there is none any more."""
        header = self._messages.read(HEADER.size)
        if len(header) < HEADER.size:
            return None
        (size,) = HEADER.unpack(header)
        body = self._messages.read(size)
        if len(body) < size:
            return None
        message: tuple[Any, ...] = marshal.loads(body)  # by our own process
        return message

    def give_back(self, buffer: int) -> None:
        """Let the process fill a buffer again."""
        with suppress(BrokenPipeError):
            os.write(self._credits, bytes((buffer,)))

    def close(self, *, finished: bool) -> None:
        """Wait for its end; unless it has *finished* its work, end it."""
        os.close(self._credits)
        if not finished:
            with effect("process.kill", pid=self._process.pid):
                self._process.kill()
        self._process.wait()
        self._messages.close()
        for view in (*self.buffers, self._whole):
            view.release()
        with suppress(BufferError):  # an error that is on its way still shows a piece of it
            self._ring.close()


class _Feeder:
    """The thread that gives the process the stream."""

    def __init__(self, head: bytes, stream: BinaryIO, pipe: int) -> None:
        self._head = head
        self._stream = stream
        self._pipe = pipe
        self.failure: BaseException | None = None
        self._thread = Thread(target=self._run, name="stowage-feeder", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Wait until it has ended; one that waits for a stalled stream ends when that goes on."""
        self._thread.join(_STALLED_SECONDS)

    def _run(self) -> None:
        try:
            chunk: bytes = self._head
            while chunk:
                left = memoryview(chunk)
                while left:
                    left = left[os.write(self._pipe, left) :]
                chunk = self._stream.read(_PIPE_BYTES)
        except BrokenPipeError:
            pass
        except BaseException as error:  # noqa: BLE001  # raised again by who unpacks
            self.failure = error
        finally:
            os.close(self._pipe)


def _paths() -> tuple[str, str]:
    """Return the search paths of this package and of all others."""
    return "\n".join(package_path), "\n".join(filter(os.path.isabs, sys.path))


def _raised(kind: str, facts: list[Any]) -> BaseException:
    """Return what the process raised."""
    if kind == "os":
        return OSError(*facts)
    if kind == "value":
        return ValueError(*facts)
    name, brief, details, resolution = facts
    found = getattr(errors, name, StowageError)
    error: BaseException = found(brief, details=details, resolution=resolution)
    return error
