"""What the archive of a layer says that its tree holds, read from the recipe's headers."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from io import RawIOBase
from typing import Any, BinaryIO, cast

from ..errors import DataLoss, InvalidArchive
from .names import OPAQUE_NAME, RESERVED_PREFIX, WHITEOUT_PREFIX, cleaned
from .places import Walk, resolve
from .recipe_format import End, RecipeReader
from .tape import Tape
from .tarheader import BLOCK
from .tarreader import DIRECTORY, LINK, SYMLINK, Member, TarReader
from .tree import join, lstat_beneath, split
from .whiteouts import NoMarks

_ZEROS = memoryview(bytes(1 << 16))


class Description:
    """Where the entries of an archive end up, by place in the layer's merged tree.

    *entries* maps a place to the last entry for it; None: it is there, but no entry says how (a
    link to a file of the parents). *implied* are places that it takes for granted: the directories
    above all others, and what was copied up to be linked. *gone* and *opaque* are its whiteouts.

    Paths are followed through symlinks as they are now. Where an entry turned a symlink on the
    way of an earlier one into something else, that leads elsewhere than it did: *ambiguous*.
    """

    def __init__(self, root: int, parent: int | None) -> None:
        self.entries: dict[bytes, Member | None] = {}
        self.implied: set[bytes] = {b""}
        self.gone: set[bytes] = set()
        self.opaque: set[bytes] = set()
        self.ambiguous = False
        self._root = root
        self._parent = parent
        self._passed: set[bytes] = set()
        self._place_by_parent: dict[bytes, bytes] = {b"": b""}

    def knows(self, place: bytes) -> bool:
        return place in self.entries or place in self.implied

    def hides(self, place: bytes) -> bool:
        """Whether the archive takes what the parents have at *place* away."""
        if place in self.gone or (place not in self.implied and self._replaces(place)):
            return True
        while place:
            place = split(place)[0]
            if place in self.gone or place in self.opaque or self._replaces(place):
                return True
        return False

    def _replaces(self, place: bytes) -> bool:
        entry = self.entries.get(place)
        return place in self.entries and (entry is None or entry.type != DIRECTORY)

    def add(self, member: Member) -> None:
        """Take in the next entry."""
        path = cleaned(member.name)
        names = path.split(b"/")
        if any(name.startswith(RESERVED_PREFIX) for name in names[:-1]):
            return
        if names[-1].startswith(WHITEOUT_PREFIX):
            self._mark(split(path)[0], names[-1])
            return
        place = self._place(path)
        self._refuse_turns(place, member.type)
        entry: Member | None = member
        if member.type == LINK:
            target = self._place(cleaned(member.link))
            entry = self.entries.get(target)
            if target not in self.entries:
                self._imply(target)
        self.entries[place] = entry

    def _mark(self, parent: bytes, name: bytes) -> None:
        if name == OPAQUE_NAME:
            self.opaque.add(split(self._place(join(parent, b".")))[0])
        elif not name.startswith(RESERVED_PREFIX):
            place = self._place(join(parent, name[len(WHITEOUT_PREFIX) :]))
            self._refuse_turns(place, DIRECTORY)
            self.gone.add(place)

    def _place(self, path: bytes) -> bytes:
        parent, name = split(path)
        place = self._place_by_parent.get(parent)
        if place is None:
            self._pass(parent)
            with Walk(self._root, None, NoMarks()) as walk:
                place = self._place_by_parent[parent] = resolve(walk, parent)
            self._pass(place)
        self._imply(place)
        return join(place, name)

    def _imply(self, place: bytes) -> None:
        while place not in self.implied:
            self.implied.add(place)
            place = split(place)[0]

    def _pass(self, path: bytes) -> None:
        while path and path not in self._passed:
            self._passed.add(path)
            path = split(path)[0]

    def _refuse_turns(self, place: bytes, kind: bytes) -> None:
        if place not in self._passed:
            return
        before = self.entries.get(place)
        turned = kind != DIRECTORY or (before is not None and before.type == SYMLINK)
        if not turned and self._parent is not None:
            below = lstat_beneath(self._parent, place)
            turned = below is not None and stat.S_ISLNK(below.st_mode)
        self.ambiguous = self.ambiguous or turned


def describe(recipe: BinaryIO, root: int, parent: int | None) -> Description:
    """Read what the archive of *recipe* says; *root* and *parent* are merged trees.

    Raises:
        DataLoss: if the recipe is damaged.
    """
    found = Description(root, parent)
    try:
        with Tape(cast(BinaryIO, _Headers(recipe))) as tape:
            for member in TarReader(tape):
                tape.skip(member.size + -member.size % BLOCK)
                found.add(member)
    except InvalidArchive as error:
        raise DataLoss("The recipe of a layer is damaged", details=error.brief) from error
    return found


class _Headers(RawIOBase):
    """The archive of a recipe with zeros for the contents of its files."""

    def __init__(self, recipe: BinaryIO) -> None:
        self._chunks = self._read(RecipeReader(recipe))
        self._chunk = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # any buffer; its type has a name only from 3.12 on
        while not self._chunk:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._chunk = memoryview(chunk)
        size = min(len(buffer), len(self._chunk))
        buffer[:size] = self._chunk[:size]
        self._chunk = self._chunk[size:]
        return size

    @staticmethod
    def _read(reader: RecipeReader) -> Iterator[bytes | memoryview]:
        for record in reader.records():
            if isinstance(record, End):
                return
            if isinstance(record, bytes):
                yield record
                continue
            left = record.size
            while left:
                step = min(left, len(_ZEROS))
                yield _ZEROS[:step]
                left -= step
