"""The uncompressed archive as it goes by, read and digested by a second thread.

The thread decompresses into buffers and computes the diffID and, for the recipe, a digest per file
of what has been used; who unpacks looks straight at :attr:`Tape.view`. hashlib and the
decompressors work without the interpreter's lock, so both run at once. One thread and not several:
on two cores a third would take turns with the one that unpacks, which is the slowest.
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
        self._helper = _Helper(stream, recipe)
        self._marks = self._helper.marks if recipe is not None else None
        self.view = memoryview(b"")
        self.at = 0
        self.end = 0
        self._begin = 0

    def __exit__(self, *exc: object) -> None:
        self._helper.close()

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
            self._begin += self.end
            self._helper.used.put((self.view, self.end))
            self.end = self.at = 0
        self.view, self.end = self._helper.take()
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
        if self._marks is not None:
            self._marks.append((self._begin + self.at, size, path, file_size, extents))

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
        return self._helper.finish(), self._begin


class _Helper:
    """The second thread: digests a used buffer, fills it again, hands it over."""

    def __init__(self, stream: BinaryIO, recipe: RecipeWriter | None) -> None:
        self._stream = cast(RawIOBase, stream)
        self._recipe = recipe
        self.used: SimpleQueue[_Filled | None] = SimpleQueue()
        self._full: SimpleQueue[_Filled | BaseException] = SimpleQueue()
        self.marks: deque[_Mark] = deque()
        self._whole = hashlib.sha256()
        self._filled = 0
        self._position = 0
        self._current: _Mark | None = None
        self._left = 0
        self._digest = hashlib.sha256()
        self._failure: BaseException | None = None
        self._stop = False
        for _ in range(_BUFFERS):
            self.used.put((memoryview(bytearray(_BUFFER_BYTES)), 0))
        self._thread = Thread(target=self._run, name="stowage-tape", daemon=True)
        self._thread.start()

    def take(self) -> _Filled:
        """Return the next buffer and how much is in it (0 at the end); raise what went wrong."""
        item = self._full.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def finish(self) -> bytes:
        """Return the digest of everything; the recipe is complete then."""
        self.used.put(None)
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        sha256 = self._whole.digest()
        if self._recipe is not None:
            self._recipe.finish(sha256, self._filled)
        return sha256

    def close(self) -> None:
        """End the thread; one that waits for a stalled stream ends when that is closed."""
        self._stop = True
        self.used.put(None)
        self._thread.join(_STALLED_SECONDS)

    def _run(self) -> None:
        try:
            while (item := self.used.get()) is not None:
                view, size = item
                if size and self._recipe is not None:
                    self._cut(view[:size], self._recipe)
                if not self._stop:
                    self._fill(view)
        except BaseException as error:  # noqa: BLE001  # raised again by take() and finish()
            self._failure = error
            self._full.put(error)

    def _fill(self, view: memoryview) -> None:
        size = 0
        while size < _BUFFER_BYTES:
            more = self._stream.readinto(view[size:])
            if not more:
                break
            size += more
            if not size % BLOCK:
                break  # a pipe gave less than asked for: use it
        self._whole.update(view[:size])
        self._filled += size
        if not size:
            self._stop = True  # nothing is read behind the end
        self._full.put((view, size))

    def _cut(self, used: memoryview, recipe: RecipeWriter) -> None:
        """Share out a buffer between raw bytes and the payloads that were marked in it.

        Whoever unpacks waits for the interpreter's lock while this has it: it is to be brief.
        """
        at, end, begin, marks = 0, len(used), self._position, self.marks
        self._position += end
        if self._current is not None:
            at = self._go_on(used, 0, recipe)
        while marks and (start := marks[0][0] - begin) < end:
            if start > at:
                recipe.raw(used[at:start])
            mark = marks.popleft()
            size = mark[1]
            at = start + size
            if at > end:
                self._current, self._left, self._digest = mark, size, hashlib.sha256()
                at = self._go_on(used, start, recipe)
            else:
                digest = hashlib.sha256(used[start:at]).digest()
                recipe.reference(mark[2], size, mark[3], digest, mark[4])
        if at < end:
            recipe.raw(used[at:end])

    def _go_on(self, used: memoryview, at: int, recipe: RecipeWriter) -> int:
        """Digest more of a payload that lies in several buffers; return where it ends."""
        assert self._current is not None
        step = min(self._left, len(used) - at)
        self._digest.update(used[at : at + step])
        self._left -= step
        if not self._left:
            _, size, path, file_size, extents = self._current
            self._current = None
            recipe.reference(path, size, file_size, self._digest.digest(), extents)
        return at + step
