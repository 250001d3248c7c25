"""The uncompressed archive as it goes by: cut into buffers, and digested once they are used.

The recipe gets a digest for each payload that was marked, and everything else as it was.
"""

from __future__ import annotations

import hashlib
from collections import deque
from contextlib import AbstractContextManager
from io import RawIOBase
from typing import BinaryIO, cast

from ..errors import InvalidArchive
from .recipe_format import Extents, RecipeWriter
from .tarheader import BLOCK

BUFFER_BYTES = 1 << 18

#: Where a payload begins on the tape, its size there, the path and size of its file, its extents.
_Mark = tuple[int, int, bytes, int, Extents | None]


class Tape(AbstractContextManager["Tape"]):
    """A stream cut into buffers.

    :attr:`view` is the current buffer, of which ``view[at:end]`` has not been used yet; users
    move :attr:`at` and call :meth:`fill` when it meets :attr:`end`. Buffers begin at multiples of
    512 bytes of the stream and hold whole tar blocks, but for the last.
    """

    def __init__(self, stream: BinaryIO, recipe: RecipeWriter | None = None) -> None:
        self._stream = cast(RawIOBase, stream)
        self._recipe = recipe
        self.view = memoryview(b"")
        self.at = 0
        self.end = 0
        self._begin = 0
        self._ended = False
        self._whole = hashlib.sha256()
        self._marks: deque[_Mark] = deque()
        self._current: _Mark | None = None
        self._left = 0
        self._digest = hashlib.sha256()

    def __exit__(self, *exc: object) -> None:
        self.view = memoryview(b"")

    @property
    def position(self) -> int:
        """How many bytes of the stream have been used."""
        return self._begin + self.at

    def fill(self) -> None:
        """Go on to the next buffer.

        Raises:
            InvalidArchive: at the end of the stream, or for what is wrong with its compression.
            OSError: if the stream cannot be read.
        """
        if not self._next():
            raise InvalidArchive("The archive ends too early", details="it was cut off on the way")

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
        padding = -size % BLOCK
        if size <= self.end - self.at:
            taken = self.view[self.at : self.at + size].tobytes()
            self.at += size
        else:
            taken = self._take_across(size)
        self.skip(padding)
        return taken

    def _take_across(self, size: int) -> bytes:
        taken = bytearray()
        while size > 0:
            if self.at == self.end:
                self.fill()
            step = min(size, self.end - self.at)
            taken += self.view[self.at : self.at + step]
            self.at += step
            size -= step
        return bytes(taken)

    def skip(self, size: int) -> None:
        """Pass over *size* bytes."""
        while size > 0:
            if self.at == self.end:
                self.fill()
            step = min(size, self.end - self.at)
            self.at += step
            size -= step

    def mark(self, size: int, path: bytes, file_size: int, extents: Extents | None = None) -> None:
        """Say that the next *size* bytes are the contents of *path* (before they are used)."""
        if self._recipe is not None:
            self._marks.append((self.position, size, path, file_size, extents))

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

    def digest(self) -> tuple[bytes, int]:
        """Complete the recipe; return sha256 and size of everything, read to the end."""
        sha256, size = self._whole.digest(), self._begin
        if self._recipe is not None:
            self._recipe.finish(sha256, size)
        return sha256, size

    # --- buffers -----------------------------------------------------------------------------

    def _next(self) -> bool:
        if self.end:
            self._leave(self.view[: self.end])
            self._begin += self.end
            self.at = self.end = 0
        if not self._ended:
            self.view = self._buffer()
            self.end = self._read(self.view)
            self._ended = not self.end  # nothing is read behind the end
        return self.end > 0

    def _buffer(self) -> memoryview:
        """Return a buffer to read into."""
        return self.view if len(self.view) else memoryview(bytearray(BUFFER_BYTES))

    def _read(self, view: memoryview) -> int:
        size = 0
        while size < len(view):
            more = self._stream.readinto(view[size:])
            if not more:
                break
            size += more
            if not size % BLOCK:
                break  # a pipe gave less than asked for: use it
        return size

    def _leave(self, used: memoryview) -> None:
        """Digest a buffer that has been used."""
        self._whole.update(used)
        if self._recipe is not None:
            self._cut(used, self._recipe)

    def _cut(self, used: memoryview, recipe: RecipeWriter) -> None:
        """Share out a buffer between raw bytes and the payloads that were marked in it."""
        at, end, begin, marks = 0, len(used), self._begin, self._marks
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
