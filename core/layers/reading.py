"""The members of an archive and their payloads, read here or, if it is large, by a process."""

from __future__ import annotations

import io
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol, Self, cast

from .compression import decompressed
from .names import is_mark, normal
from .recipe_format import RecipeWriter
from .tape import Tape
from .tarreader import FILE, Member, TarReader

APART_BYTES = 8 << 20
"""From here on the start of a process (25 ms of a second core) costs less than it saves."""
_MAGIC_BYTES = 6
"""Enough to tell a compression."""

#: Descriptor of a regular file, and where the archive begins in it.
PlainFile = tuple[int, int]


class Archive(AbstractContextManager["Archive"], Protocol):
    """An archive on its way; used like a :class:`~.tape.Tape`."""

    view: memoryview
    at: int
    end: int

    def fill(self) -> None:
        """Go on to the next buffer."""

    def skip(self, size: int) -> None:
        """Pass over *size* bytes."""

    def members(self) -> Iterator[Member]:
        """Yield each member while the archive stands at its payload, which is to be used up
        before the next; read on to the end of the stream after the last.

        Raises:
            InvalidArchive: for damage, and if the end marker is missing.
        """

    def finish(self) -> tuple[bytes, int, int]:
        """Return sha256 and size of the archive, and the size of the recipe's records."""


def open_archive(stream: BinaryIO, recipe: BinaryIO | None, drain_limit: int | None) -> Archive:
    """Begin to read an archive; the recipe's records are written to *recipe* on the way.

    More than *drain_limit* bytes after its end are refused.
    """
    may_be_apart = bool(sys.executable) and _has_second_core()
    file = _large_file(stream) if may_be_apart else None
    head = _head(stream, APART_BYTES if file is None else _MAGIC_BYTES)
    whole = file is None and len(head) < APART_BYTES
    if may_be_apart and not whole:
        from .apart import Apart

        return Apart(head, stream, recipe, drain_limit, file)
    rest = io.BytesIO(head) if whole else _Joined(head, stream)
    return _Here(cast(BinaryIO, rest), recipe, drain_limit)


def members_of(tape: Tape) -> Iterator[Member]:
    """Yield the members with clean names, and mark the payloads of files for the recipe."""
    payloads = 0
    for member in TarReader(tape):
        member.name = path = normal(member.name)
        if member.type == FILE and not is_mark(path):
            tape.mark(member.size, path, member.file_size, member.extents)
            member.payload = payloads
            payloads += 1
        yield member


class _Here(Tape):
    """Read by the thread that unpacks."""

    def __init__(self, stream: BinaryIO, recipe: BinaryIO | None, drain_limit: int | None) -> None:
        self._writer = None if recipe is None else RecipeWriter(recipe)
        super().__init__(decompressed(stream), self._writer)
        self._drain_limit = drain_limit

    def __enter__(self) -> Self:
        return self

    def members(self) -> Iterator[Member]:
        yield from members_of(self)
        self.drain(self._drain_limit)

    def finish(self) -> tuple[bytes, int, int]:
        sha256, size = self.digest()
        return sha256, size, self._writer.written if self._writer else 0


class _Joined(io.RawIOBase):
    """*head*, and then what *stream* still holds."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head = io.BytesIO(head)
        self._stream = stream

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._head.read(size) or self._stream.read(size)


def _large_file(stream: BinaryIO) -> PlainFile | None:
    """Return what is left of *stream* if it is a plain file for :mod:`~.apart`."""
    if type(stream) not in (io.BufferedReader, io.FileIO):
        return None
    try:
        descriptor, offset = stream.fileno(), stream.tell()
        status = os.fstat(descriptor)
    except (OSError, ValueError):
        return None
    large = stat.S_ISREG(status.st_mode) and status.st_size - offset >= APART_BYTES
    return (descriptor, offset) if large else None


def _head(stream: BinaryIO, size: int) -> bytes:
    """Return the first *size* bytes of a stream, fewer only at its end."""
    first = stream.read(size)
    if len(first) == size:
        return first
    head = bytearray(first or b"")
    while len(head) < size and (more := stream.read(size - len(head))):
        head += more
    return bytes(head)


def _has_second_core() -> bool:
    return len(os.sched_getaffinity(0)) > 1
