"""Recipes on disk (tar-split): an archive without the contents that a tree holds anyway.

A recipe is one zstd stream::

    frame           magic, then records in the archive's order, the end record last
    …               a trailer, if there is one (``recipe_trailer``)

Records are ``R`` (bytes as they were: headers, padding, what is in no file), ``F`` (the contents of
a file: path, size, sha256, and the extents of a sparse one) and ``E`` (digest and size of the
whole). Numbers are little endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from ..effects import effectful
from ..errors import DataLoss
from .recipe_trailer import new_frame, parse_places, read_trailer

Bytes = bytes | bytearray | memoryview
Extents = tuple[tuple[int, int], ...]

_MAGIC = b"stowage recipe 1\n"
_RAW = struct.Struct("<cI")  # size
_FILE = struct.Struct("<cHIQQ32s")  # path length, extents, payload size, file size, sha256
_NOT_SPARSE = 0xFFFFFFFF
_END = struct.Struct("<32sQ")
_EXTENT = struct.Struct("<QQ")
_FLUSH_BYTES = 1 << 18
_CHUNK = 1 << 20


class Reference(NamedTuple):
    """The contents of a file in an archive; *extents* (offset, length) if it is sparse.

    *size* counts the bytes in the archive, *file_size* those of the file.
    """

    number: int
    path: bytes
    size: int
    file_size: int
    sha256: bytes
    extents: Extents | None


class End(NamedTuple):
    """The last record: sha256 and size of the whole archive."""

    sha256: bytes
    size: int


class RecipeWriter:
    """Writes the records of a recipe to *out* while an archive goes by; *out* stays the
    caller's."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self.written = 0
        """How many bytes *out* has got."""
        self._frame = new_frame()
        self._buffer = bytearray(_MAGIC)

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

    def finish(self, sha256: bytes, size: int) -> None:
        """Write the rest; *sha256* and *size* are those of the whole archive."""
        self._buffer += b"E" + _END.pack(sha256, size)
        self._write(self._frame.compress(self._buffer) + self._frame.flush())

    def _flush(self) -> None:
        self._write(self._frame.compress(self._buffer))
        self._buffer.clear()

    @effectful("recipe.write")
    def _write(self, data: bytes) -> None:
        self._out.write(data)
        self.written += len(data)


class RecipeReader:
    """The records of a recipe; *recipe* must be able to seek and stays the caller's.

    Raises:
        DataLoss: from any method, if the recipe is damaged.
    """

    def __init__(self, recipe: BinaryIO) -> None:
        self._recipe = recipe
        trailer = read_trailer(recipe)
        self._replaced = trailer.replaced
        self._places: dict[int, bytes] = {}
        if trailer.moved is not None:
            self._places = parse_places(b"".join(self._payload(*trailer.moved)))

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
        place = self._replaced.get(number)
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
        path = self._places.get(number, path)
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
