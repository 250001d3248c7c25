"""Giving back an archive byte for byte from its recipe and the tree that it was unpacked into."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

from ..errors import DataLoss
from ..linux.paths import open_beneath
from .digests import digest_of
from .recipe_format import End, RecipeReader, Reference
from .tree import MISSING, open_file, read_range, shown, split


def reassemble(recipe: BinaryIO, root: int, out: BinaryIO) -> str:
    """Write the archive that *recipe* is of to *out* and return its diffID.

    *root* is the directory of a tree that shows the layer's files: the layer's own, or the merged
    one that has the layer on top. No symlink of it is followed.

    Raises:
        DataLoss: names the first file that is gone or has changed, or says that the recipe is
            damaged. What was written to *out* by then is worthless.
    """
    reader = RecipeReader(recipe)
    whole, size = hashlib.sha256(), 0
    with _Payloads(reader, root) as payloads:
        for record in reader.records():
            if isinstance(record, End):
                if (record.sha256, record.size) != (whole.digest(), size):
                    raise DataLoss("The archive does not come out as it was")
                break
            chunks = payloads.read(record) if isinstance(record, Reference) else (record,)
            for chunk in chunks:
                whole.update(chunk)
                size += len(chunk)
                out.write(chunk)
    return digest_of(whole.digest())


def verify(recipe: BinaryIO, root: int) -> Iterator[str]:
    """Yield the path of every file of the layer that is gone or has changed.

    Raises:
        DataLoss: if the recipe itself is damaged.
    """
    reader = RecipeReader(recipe)
    with _Payloads(reader, root) as payloads:
        for record in reader.records():
            if not isinstance(record, Reference):
                continue
            try:
                for _ in payloads.read(record):
                    pass
            except _Differs:
                yield shown(record.path)


class _Differs(DataLoss):
    def __init__(self, path: bytes, details: str) -> None:
        super().__init__(f"{shown(path)} is not as it was stored", details=details)


class _Payloads:
    """Reads the contents of files and holds each against its digest."""

    def __init__(self, reader: RecipeReader, root: int) -> None:
        self._reader = reader
        self._root = root
        self._directory: tuple[bytes, int] | None = None

    def __enter__(self) -> _Payloads:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._directory is not None:
            os.close(self._directory[1])
            self._directory = None

    def read(self, reference: Reference) -> Iterator[bytes]:
        """Yield the payload; the last thing is _Differs if it is not what was recorded."""
        digest, size = hashlib.sha256(), 0
        kept = self._reader.replaced(reference.number)
        for chunk in kept if kept is not None else self._from_file(reference):
            digest.update(chunk)
            size += len(chunk)
            yield chunk
        if size != reference.size or digest.digest() != reference.sha256:
            raise _Differs(reference.path, "its contents have another digest")

    def _from_file(self, reference: Reference) -> Iterator[bytes]:
        try:
            parent, name = split(reference.path)
            descriptor = open_file(self._enter(parent), name)
        except OSError as error:
            if error.errno in MISSING:
                raise _Differs(reference.path, "it is gone or no longer a file") from None
            raise
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise _Differs(reference.path, "it is no longer a file")
            if status.st_size != reference.file_size:
                raise _Differs(reference.path, f"it has {status.st_size} bytes")
            extents = reference.extents
            if extents is None:
                extents = ((0, reference.size),)
            elif not _only_holes_between(descriptor, extents, status.st_size):
                raise _Differs(reference.path, "there are data where it had holes")
            for start, length in extents:
                yield from read_range(descriptor, start, length)
        finally:
            os.close(descriptor)

    def _enter(self, parent: bytes) -> int:
        if self._directory is not None:
            if self._directory[0] == parent:
                return self._directory[1]
            os.close(self._directory[1])
            self._directory = None
        descriptor = open_beneath(self._root, parent or b".", os.O_PATH | os.O_DIRECTORY)
        self._directory = (parent, descriptor)
        return descriptor


def _only_holes_between(
    descriptor: int, extents: tuple[tuple[int, int], ...], file_size: int
) -> bool:
    """Tell whether nothing but zeros lies outside *extents*; real holes are not read."""
    at = 0
    for start, length in (*extents, (file_size, 0)):
        with suppress(OSError):  # ENXIO: nothing but a hole follows
            while at < start and (at := os.lseek(descriptor, at, os.SEEK_DATA)) < start:
                stop = min(os.lseek(descriptor, at, os.SEEK_HOLE), start)
                if any(chunk.strip(b"\0") for chunk in read_range(descriptor, at, stop - at)):
                    return False
                at = stop
        at = max(at, start + length)
    return True
