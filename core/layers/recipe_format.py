"""Recipes on disk (tar-split): an archive without the contents that a tree holds anyway.

A recipe is one zstd stream::

    frame           magic, then records in the archive's order, the end record last
    frame …         the payload of an earlier entry that a later one of the same path replaced
    skippable frame where those frames begin, by the number of their reference

Records are ``R`` (bytes as they were: headers, padding, what is in no file), ``F`` (the contents of
a file: path, size, sha256, and the extents of a sparse one) and ``E`` (digest and size of the
whole). Numbers are little endian.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from struct import Struct
from typing import IO, TYPE_CHECKING, BinaryIO

from ..effects import effectful
from ..errors import DataLoss

if TYPE_CHECKING:
    import zstandard

Bytes = bytes | bytearray | memoryview
Extents = tuple[tuple[int, int], ...]

_MAGIC = b"stowage recipe 1\n"
_RAW = Struct("<cI")  # size
_FILE = Struct("<cHIQQ32s")  # path length, extents, payload size, file size, sha256
_NOT_SPARSE = 0xFFFFFFFF
_END = Struct("<32sQ")
_EXTENT = Struct("<QQ")
_REPLACED = Struct("<IQQ")  # number of the reference, where its frame begins, payload size
_SKIPPABLE = Struct("<II")
_SKIPPABLE_MAGIC = 0x184D2A5E
_TRAILER = Struct("<QI4s")  # where the skippable frame begins, its entries
_TRAILER_MAGIC = b"stwg"
_LEVEL = 1
_FLUSH_BYTES = 1 << 18
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Reference:
    """The contents of a file in an archive; *extents* (offset, length) if it is sparse.

    *size* counts the bytes in the archive, *file_size* those of the file.
    """

    number: int
    path: bytes
    size: int
    file_size: int
    sha256: bytes
    extents: Extents | None


@dataclass(frozen=True, slots=True)
class End:
    """The last record: sha256 and size of the whole archive."""

    sha256: bytes
    size: int


class RecipeWriter(AbstractContextManager["RecipeWriter"]):
    """Writes a recipe to *out* while an archive goes by; *out* stays the caller's."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._written = 0
        self._frame = self._new_frame()
        self._buffer = bytearray(_MAGIC)
        self._replaced: list[tuple[int, int, int]] = []
        self._payloads: IO[bytes] | None = None

    def raw(self, data: Bytes) -> None:
        """Record bytes as they are."""
        if data:
            buffer = self._buffer
            buffer += _RAW.pack(b"R", len(data))
            buffer += data
            if len(buffer) > _FLUSH_BYTES:
                self._flush()

    def reference(
        self, path: bytes, size: int, file_size: int, sha256: bytes, extents: Extents | None = None
    ) -> None:
        """Record that the contents of *path* come here."""
        buffer = self._buffer
        count = _NOT_SPARSE if extents is None else len(extents)
        buffer += _FILE.pack(b"F", len(path), count, size, file_size, sha256)
        buffer += path
        if extents:
            for extent in extents:
                buffer += _EXTENT.pack(*extent)

    def replaced(self, number: int, contents: Iterator[bytes]) -> None:
        """Keep the payload of reference *number*, whose file is about to be replaced.

        May be called from another thread than the one that records.
        """
        if self._payloads is None:
            self._payloads = tempfile.SpooledTemporaryFile(max_size=_CHUNK)  # noqa: SIM115
        begin, size = self._payloads.tell(), 0
        frame = self._new_frame()
        for chunk in contents:
            size += len(chunk)
            self._payloads.write(frame.compress(chunk))
        self._payloads.write(frame.flush())
        self._replaced.append((number, begin, size))

    def finish(self, sha256: bytes, size: int) -> None:
        """Write the rest; *sha256* and *size* are those of the whole archive."""
        self._buffer += b"E" + _END.pack(sha256, size)
        self._write(self._frame.compress(self._buffer) + self._frame.flush())
        if self._payloads is not None:
            self._append_replaced(self._payloads)

    def __exit__(self, *exc: object) -> None:
        if self._payloads is not None:
            self._payloads.close()

    def _append_replaced(self, payloads: IO[bytes]) -> None:
        base = self._written
        payloads.seek(0)
        while chunk := payloads.read(_CHUNK):
            self._write(chunk)
        table = b"".join(
            _REPLACED.pack(number, base + begin, size) for number, begin, size in self._replaced
        )
        table += _TRAILER.pack(self._written, len(self._replaced), _TRAILER_MAGIC)
        self._write(_SKIPPABLE.pack(_SKIPPABLE_MAGIC, len(table)) + table)

    def _new_frame(self) -> zstandard.ZstdCompressionObj:
        import zstandard

        return zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compressobj()

    def _flush(self) -> None:
        self._write(self._frame.compress(self._buffer))
        self._buffer.clear()

    @effectful("recipe.write")
    def _write(self, data: bytes) -> None:
        self._out.write(data)
        self._written += len(data)


class RecipeReader:
    """The records of a recipe; *recipe* must be able to seek and stays the caller's.

    Raises:
        DataLoss: from any method, if the recipe is damaged.
    """

    def __init__(self, recipe: BinaryIO) -> None:
        self._recipe = recipe
        self._frame_by_number = self._replaced_frames()

    def records(self) -> Iterator[bytes | Reference | End]:
        """Yield raw bytes and references in order, and the end record last."""
        number = 0
        with self._frame(0) as frame:
            if _exactly(frame, len(_MAGIC)) != _MAGIC:
                raise _damaged("it does not begin as one")
            while True:
                kind = _exactly(frame, 1)
                if kind == b"R":
                    _, size = _RAW.unpack(kind + _exactly(frame, _RAW.size - 1))
                    yield _exactly(frame, size)
                elif kind == b"F":
                    yield self._read_reference(frame, number)
                    number += 1
                elif kind == b"E":
                    yield End(*_END.unpack(_exactly(frame, _END.size)))
                    return
                else:
                    raise _damaged(f"it has a record {kind!r}")

    def replaced(self, number: int) -> Iterator[bytes] | None:
        """Return the payload of a reference whose file was replaced in the same archive."""
        place = self._frame_by_number.get(number)
        return None if place is None else self._payload(*place)

    def _payload(self, begin: int, size: int) -> Iterator[bytes]:
        position = self._recipe.tell()  # the records' frame is read from the same file
        with self._frame(begin) as frame:
            while size:
                chunk = _exactly(frame, min(size, _CHUNK))
                size -= len(chunk)
                yield chunk
        self._recipe.seek(position)

    def _read_reference(self, frame: BinaryIO, number: int) -> Reference:
        fixed = b"F" + _exactly(frame, _FILE.size - 1)
        _, length, count, size, file_size, sha256 = _FILE.unpack(fixed)
        path = _exactly(frame, length)
        if not path or b"\0" in path:
            raise _damaged(f"it names the file {path!r}")
        extents = None
        if count != _NOT_SPARSE:
            table = _exactly(frame, count * _EXTENT.size)
            extents = tuple(_EXTENT.iter_unpack(table))
        return Reference(number, path, size, file_size, sha256, extents)

    def _frame(self, offset: int) -> BinaryIO:
        import zstandard

        self._recipe.seek(offset)
        return zstandard.ZstdDecompressor().stream_reader(self._recipe, closefd=False)

    def _replaced_frames(self) -> dict[int, tuple[int, int]]:
        end = self._recipe.seek(0, 2)
        if end < _TRAILER.size:
            raise _damaged("it is empty")
        self._recipe.seek(end - _TRAILER.size)
        begin, count, magic = _TRAILER.unpack(self._recipe.read(_TRAILER.size))
        if magic != _TRAILER_MAGIC:
            return {}
        size = count * _REPLACED.size
        if begin + _SKIPPABLE.size + size + _TRAILER.size != end:
            return {}  # four bytes of a checksum that look like ours
        self._recipe.seek(begin + _SKIPPABLE.size)
        table = _REPLACED.iter_unpack(self._recipe.read(size))
        return {number: (where, length) for number, where, length in table}


def _damaged(details: str) -> DataLoss:
    return DataLoss("The recipe of a layer is damaged", details=details)


def _read(frame: BinaryIO, size: int) -> bytes:
    import zstandard

    try:
        return frame.read(size)
    except zstandard.ZstdError as error:
        raise _damaged(str(error)) from error


def _exactly(frame: BinaryIO, size: int) -> bytes:
    parts = []
    while size:
        part = _read(frame, min(size, _CHUNK))  # a damaged size shall not take memory
        if not part:
            raise _damaged("it ends too early")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
