"""The uncompressed archive as it goes by, on up to three threads.

A reader decompresses into buffers and computes the diffID; who unpacks looks straight at
:attr:`Tape.view`; with a recipe, a third thread computes a digest per file of what has been used.
hashlib and the decompressors work without the interpreter's lock, so unpacking waits for none
of it; the number of buffers bounds how far the threads drift apart.
"""

from __future__ import annotations

import hashlib
from collections import deque
from contextlib import AbstractContextManager
from io import RawIOBase
from queue import SimpleQueue
from threading import Thread
from typing import BinaryIO, cast

from ..errors import InvalidArchive
from .recipe_format import Extents, RecipeWriter
from .tarheader import BLOCK

_BUFFER_BYTES = 1 << 18
_BUFFERS = 6
_STALLED_SECONDS = 2.0

#: Where a payload begins on the tape, its size there, and the file that got it.
_Mark = tuple[int, int, bytes, int, Extents | None]
_Filled = tuple[memoryview, int]


class Tape(AbstractContextManager["Tape"]):
    """A stream cut into buffers.

    :attr:`view` is the current buffer, of which ``view[at:end]`` has not been used yet; users
    move :attr:`at` and call :meth:`fill` when it meets :attr:`end`. Buffers begin at multiples of
    512 bytes of the stream and hold whole tar blocks, but for the last.
    """

    def __init__(self, stream: BinaryIO, recipe: RecipeWriter | None) -> None:
        self._reader = _Reader(stream)
        self._digester = _Digester(recipe, self._reader.free) if recipe is not None else None
        self.view = memoryview(b"")
        self.at = 0
        self.end = 0
        self._begin = 0

    def __exit__(self, *exc: object) -> None:
        self._reader.close()
        if self._digester is not None:
            self._digester.close()

    def fill(self) -> None:
        """Go on to the next buffer.

        Raises:
            InvalidArchive: at the end of the stream, or for what is wrong with its compression.
            OSError: if the stream cannot be read.
        """
        if not self._next():
            raise InvalidArchive("The archive ends too early", details="it was cut off on the way")

    def _next(self) -> bool:
        if self.end:
            if self._digester is not None:
                self._digester.take(self.view, self.end)
            else:
                self._reader.free.put(self.view)
            self._begin += self.end
            self.end = self.at = 0
        self.view, self.end = self._reader.take()
        return self.end > 0

    def block(self) -> bytes:
        """Return the next 512 bytes."""
        at = self.at
        if at == self.end:
            self.fill()
            at = 0
        if self.end - at < BLOCK:
            raise InvalidArchive("The archive ends too early", details="in the middle of a block")
        self.at = at + BLOCK
        return self.view[at : at + BLOCK].tobytes()

    def take(self, size: int) -> bytes:
        """Return the next *size* bytes; what rounds them up to whole blocks is passed over."""
        taken = bytearray()
        padding = -size % BLOCK
        while size > 0:
            if self.at == self.end:
                self.fill()
            step = min(size, self.end - self.at)
            taken += self.view[self.at : self.at + step]
            self.at += step
            size -= step
        self.skip(padding)
        return bytes(taken)

    def skip(self, size: int) -> None:
        """Pass over *size* bytes."""
        while size > 0:
            if self.at == self.end:
                self.fill()
            step = min(size, self.end - self.at)
            self.at += step
            size -= step

    def payload(
        self, size: int, path: bytes, file_size: int, extents: Extents | None = None
    ) -> None:
        """Say that the next *size* bytes are the contents of *path* (before they are used)."""
        if self._digester is not None:
            self._digester.marks.append((self._begin + self.at, size, path, file_size, extents))

    def drain(self, limit: int | None) -> None:
        """Read on to the end of the stream.

        Raises:
            InvalidArchive: if more than *limit* bytes follow.
        """
        drained = self.end - self.at
        self.at = self.end
        while self._next():
            drained += self.end
            self.at = self.end
            if limit is not None and drained > limit:
                raise InvalidArchive(f"The archive goes on for more than {limit} bytes at its end")

    def finish(self) -> tuple[bytes, int]:
        """Return sha256 and size of all that was read; the recipe is complete then."""
        sha256, size = self._reader.whole.digest(), self._begin
        if self._digester is not None:
            self._digester.finish(sha256, size)
        return sha256, size


class _Reader:
    """The thread that fills buffers and digests all of them."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = cast(RawIOBase, stream)
        self.free: SimpleQueue[memoryview | None] = SimpleQueue()
        self._full: SimpleQueue[_Filled | BaseException] = SimpleQueue()
        self.whole = hashlib.sha256()
        self._stop = False
        for _ in range(_BUFFERS):
            self.free.put(memoryview(bytearray(_BUFFER_BYTES)))
        self._thread = Thread(target=self._run, name="stowage-read", daemon=True)
        self._thread.start()

    def take(self) -> _Filled:
        """Return the next buffer and how much is in it; nothing at the end of the stream."""
        item = self._full.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        """End the thread; one that waits for a stalled stream ends when that is closed."""
        self._stop = True
        self.free.put(None)
        self._thread.join(_STALLED_SECONDS)

    def _run(self) -> None:
        try:
            while (view := self.free.get()) is not None and not self._stop:
                size = self._fill(view)
                self.whole.update(view[:size])
                self._full.put((view, size))
                if not size:
                    return
        except BaseException as error:  # noqa: BLE001  # raised again by take()
            self._full.put(error)

    def _fill(self, view: memoryview) -> int:
        size = 0
        while size < _BUFFER_BYTES:
            more = self._stream.readinto(view[size:])
            if not more:
                break
            size += more
            if not size % BLOCK:
                break  # a pipe gave less than asked for: use it
        return size


class _Digester:
    """The thread that writes the recipe."""

    def __init__(self, recipe: RecipeWriter, free: SimpleQueue[memoryview | None]) -> None:
        self._recipe = recipe
        self._used: SimpleQueue[_Filled | None] = SimpleQueue()
        self._free = free
        self.marks: deque[_Mark] = deque()
        self._position = 0
        self._failure: BaseException | None = None
        self._current: _Mark | None = None
        self._left = 0
        self._digest = hashlib.sha256()
        self._thread = Thread(target=self._run, name="stowage-recipe", daemon=True)
        self._thread.start()

    def take(self, view: memoryview, size: int) -> None:
        """Digest a used buffer and let it be filled again. Raises what went wrong before."""
        if self._failure is not None:
            raise self._failure
        self._used.put((view, size))

    def finish(self, sha256: bytes, size: int) -> None:
        """Complete the recipe."""
        self.close()
        if self._failure is not None:
            raise self._failure
        self._recipe.finish(sha256, size)

    def close(self) -> None:
        self._used.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (item := self._used.get()) is not None:
            view, size = item
            if self._failure is None:
                try:
                    self._cut(view[:size])
                except BaseException as error:  # noqa: BLE001  # raised again by take()
                    self._failure = error
            self._free.put(view)

    def _cut(self, used: memoryview) -> None:
        """Share out a buffer between raw bytes and the payloads that were marked in it."""
        at, end, begin, marks = 0, len(used), self._position, self.marks
        self._position += end
        while True:
            if self._current is not None:
                step = min(self._left, end - at)
                self._digest.update(used[at : at + step])
                at += step
                self._left -= step
                if self._left:
                    return
                _, size, path, file_size, extents = self._current
                self._current = None
                self._recipe.reference(path, size, file_size, self._digest.digest(), extents)
            stop = min(marks[0][0] - begin, end) if marks else end
            if stop > at:
                self._recipe.raw(used[at:stop])
                at = stop
            if not marks or marks[0][0] - begin >= end:
                return
            self._current = marks.popleft()
            self._left = self._current[1]
            self._digest = hashlib.sha256()
