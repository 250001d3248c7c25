"""What follows the records of a recipe: facts that depend on the tree, known only at the end.

::

    frame …         the payload of an earlier entry that a later one of the same path replaced
    frame           where files lie that are not where the archive says: a symlink was on the way
    skippable frame where those frames begin

A recipe that needs none of it ends with its records.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import IO, TYPE_CHECKING, BinaryIO, NamedTuple

from ..effects import effectful
from ..errors import DataLoss

if TYPE_CHECKING:
    import zstandard

_ENTRY = struct.Struct("<IQQ")  # number of the reference or _MOVED, where its frame begins, size
_MOVED = 0xFFFFFFFF
_PLACE = struct.Struct("<IH")  # number of the reference, length of the path
_SKIPPABLE = struct.Struct("<II")
_SKIPPABLE_MAGIC = 0x184D2A5E
_END = struct.Struct("<QI4s")  # where the skippable frame begins, its entries
_END_MAGIC = b"stwg"
_LEVEL = 1
_CHUNK = 1 << 20


def new_frame() -> zstandard.ZstdCompressionObj:
    """Return a compressor for one frame of a recipe."""
    import zstandard

    return zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compressobj()


class RecipeTrailer(AbstractContextManager["RecipeTrailer"]):
    """Collects while an archive is unpacked, and writes after its last record."""

    def __init__(self) -> None:
        self._entries: list[tuple[int, int, int]] = []
        self._frames: IO[bytes] | None = None
        self._places = bytearray()

    def replaced(self, number: int, contents: Iterator[bytes]) -> None:
        """Keep the payload of reference *number*, whose file is about to be replaced."""
        self._add(number, contents)

    def moved(self, number: int, path: bytes) -> None:
        """Say that the file of reference *number* lies at *path*."""
        self._places += _PLACE.pack(number, len(path)) + path

    def append_to(self, out: BinaryIO, begin: int) -> None:
        """Write it, if there is anything to say; *begin*: how long the recipe is by now."""
        if self._places:
            self._add(_MOVED, iter((bytes(self._places),)))
        if self._frames is None:
            return
        self._frames.seek(0)
        end = begin
        while chunk := self._frames.read(_CHUNK):
            _write(out, chunk)
            end += len(chunk)
        table = b"".join(
            _ENTRY.pack(number, begin + at, size) for number, at, size in self._entries
        )
        table += _END.pack(end, len(self._entries), _END_MAGIC)
        _write(out, _SKIPPABLE.pack(_SKIPPABLE_MAGIC, len(table)) + table)

    def __exit__(self, *exc: object) -> None:
        if self._frames is not None:
            self._frames.close()

    def _add(self, number: int, contents: Iterator[bytes]) -> None:
        if self._frames is None:
            import tempfile

            self._frames = tempfile.SpooledTemporaryFile(max_size=_CHUNK)  # noqa: SIM115
        begin, size = self._frames.tell(), 0
        frame = new_frame()
        for chunk in contents:
            size += len(chunk)
            self._frames.write(frame.compress(chunk))
        self._frames.write(frame.flush())
        self._entries.append((number, begin, size))


@effectful("recipe.write")
def _write(out: BinaryIO, data: bytes) -> None:
    out.write(data)


class Trailer(NamedTuple):
    """Where the frames begin and how long their contents are, by the number of the reference;
    *moved* is the frame of the places."""

    replaced: Mapping[int, tuple[int, int]]
    moved: tuple[int, int] | None = None


def read_trailer(recipe: BinaryIO) -> Trailer:
    """Read the table at the end of a recipe.

    Raises:
        DataLoss: if there is no whole recipe.
    """
    end = recipe.seek(0, 2)
    if end < _END.size:
        raise DataLoss("The recipe of a layer is damaged", details="it is empty")
    recipe.seek(end - _END.size)
    begin, count, magic = _END.unpack(recipe.read(_END.size))
    size = count * _ENTRY.size
    if magic != _END_MAGIC or begin + _SKIPPABLE.size + size + _END.size != end:
        return Trailer({})  # at most four bytes of a checksum that look like ours
    recipe.seek(begin + _SKIPPABLE.size)
    entries = {number: (at, length) for number, at, length in _ENTRY.iter_unpack(recipe.read(size))}
    return Trailer(entries, entries.pop(_MOVED, None))


def parse_places(raw: bytes) -> dict[int, bytes]:
    """Return the places of moved files by the number of their reference.

    Raises:
        DataLoss: if the table is cut off.
    """
    places: dict[int, bytes] = {}
    at = 0
    while at < len(raw):
        if at + _PLACE.size > len(raw):
            raise DataLoss("The recipe of a layer is damaged", details="its places are cut off")
        number, length = _PLACE.unpack_from(raw, at)
        at += _PLACE.size
        places[number] = raw[at : at + length]
        at += length
    return places
