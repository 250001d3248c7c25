"""The directories of a tree that an archive is being unpacked into.

They are made with mode 0700 and get what they shall have in the end, the deepest first: an
entry may come before its parent, and each new name would change a time that was set already.
Directories are entered by openat2(2) with no symlink allowed, so one that an entry has turned
into a symlink since cannot be entered.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager

from msgspec import Struct

from ..effects import effectful
from ..errors import InvalidArchive
from ..linux.paths import open_beneath
from .attributes import (
    IMPLIED,
    Attributes,
    attributes_of,
    existing_attributes,
    set_attributes,
)
from .places import Walk, resolve
from .tree import DIRECTORY_FLAGS, Tree, join, open_directory, split
from .whiteouts import NoMarks, marks_of

PATH_LIMIT = 0xFFFF
"""Longest path; the kernel takes 4095 bytes at a time, but trees go deeper."""
_ENTER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_CHAIN_LIMIT = 32

#: Called before a file is unlinked: its directory, its name, its place.
Forget = Callable[[int, bytes, bytes], None]


class Directory(Struct):
    """A directory of the tree; it gets its *attributes* in the end.

    *explicit*: an entry of the archive describes it. *opaque*: nothing shows through.
    *replaced*: a whiteout deleted the lower one. *existed*: not made by this archive.
    """

    attributes: Attributes
    explicit: bool = False
    opaque: bool = False
    replaced: bool = False
    existed: bool = False


class Directories:
    """Enters, makes and removes directories beneath ``tree.root``."""

    def __init__(self, tree: Tree, forget: Forget) -> None:
        self._root = tree.root
        self._prefix = tree.xattr_prefix
        self._forget = forget
        self.marks = marks_of(tree)
        self.layered = not isinstance(self.marks, NoMarks)
        """Whether the tree holds only what one layer changes."""
        self._lower = tree.lower() if self.layered and tree.lower is not None else None
        self.known: dict[bytes, Directory] = {}
        self._places: dict[bytes, bytes] = {}
        self._chain: list[tuple[bytes, int]] = []
        self._take_root()

    @property
    def sees_lower(self) -> bool:
        """Whether what a whiteout deletes can be looked up."""
        return not self.layered or self._lower is not None

    def close(self) -> None:
        """Let go of all descriptors."""
        self._leave()
        if self._lower is not None:
            os.close(self._lower)
            self._lower = None

    # --- going there -------------------------------------------------------------------------

    def enter(self, path: bytes) -> tuple[int, bytes]:
        """Return a descriptor of the directory where *path* leads, and its place.

        What is missing on the way is made. The descriptor is lent until the next call.
        """
        place = self._places.get(path)
        if place is None:
            if path not in self.known:
                place = self._places[path] = self.resolve(path)
                self._ensure(place)
            else:
                place = path
        if self._chain and self._chain[-1][0] == place:
            return self._chain[-1][1], place
        return self._open(place), place

    def resolve(self, path: bytes) -> bytes:
        """Return the place where *path* leads; nothing is made."""
        with self.walk() as walk:
            return resolve(walk, path)

    @contextmanager
    def walk(self) -> Iterator[Walk]:
        """Lend a walk over the merged tree that stands at its root."""
        with Walk(self._root, self._lower, self.marks) as walk:
            yield walk

    def _open(self, place: bytes) -> int:
        """Enter a place from the nearest directory above it that is open, one name at a time.

        What is open is a chain from the top down: archives mostly go down and back up.
        """
        chain = self._chain
        while chain and not (place + b"/").startswith(chain[-1][0] + b"/"):
            os.close(chain.pop()[1])
        above, descriptor = chain[-1] if chain else (b"", self._root)
        rest = place[len(above) :].lstrip(b"/")
        if not rest and chain:
            return descriptor
        if rest and b"/" not in rest:
            descriptor = os.open(rest, _ENTER | os.O_NOFOLLOW, dir_fd=descriptor)
        else:
            descriptor = open_beneath(descriptor, rest or b".", _ENTER)
        if len(chain) >= _CHAIN_LIMIT:
            self._leave()
        chain.append((place, descriptor))
        return descriptor

    def _leave(self) -> None:
        while self._chain:
            os.close(self._chain.pop()[1])

    # --- making ------------------------------------------------------------------------------

    def make(self, path: bytes, attributes: Attributes) -> None:
        """Make the directory that an entry describes; one that is there only gets attributes."""
        if not path:
            place = b""
        else:
            parent, name = split(path)
            directory, above = self.enter(parent)
            place = join(above, name)
            if len(place) > PATH_LIMIT:
                raise InvalidArchive(f"A path is longer than {PATH_LIMIT} bytes")
            if place not in self.known:
                self._make_one(directory, name, place)
        known = self.known[place]
        known.attributes = attributes
        known.explicit = True

    def _ensure(self, place: bytes) -> None:
        """Make a place and all above it real directories, with the lower ones' attributes."""
        missing = []
        while place not in self.known:
            missing.append(place)
            place = split(place)[0]
        for place in reversed(missing):
            parent, name = split(place)
            directory, _ = self.enter(parent)
            known = self._make_one(directory, name, place)
            if not known.existed and not known.opaque:
                self._copy_lower(known, place)

    def _make_one(self, directory: int, name: bytes, place: bytes) -> Directory:
        """Make *place* unless it is a directory; what else is in its place is removed."""
        opaque = False
        if self.layered and self.marks.is_whiteout(directory, name):
            self.marks.drop_whiteout(directory, name)
            opaque = True
        try:
            _mkdir(directory, name)
        except FileExistsError:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                return self._adopt(directory, name, place)
            self.remove(directory, name, place)
            _mkdir(directory, name)
            opaque = self.layered
        known = self.known[place] = Directory(IMPLIED, opaque=opaque)
        if opaque:
            self._mark_opaque(place)
        return known

    def _adopt(self, directory: int, name: bytes, place: bytes) -> Directory:
        """Take note of a directory that is there, to give it its time back in the end."""
        descriptor = os.open(name, DIRECTORY_FLAGS, dir_fd=directory)
        try:
            opaque = self.layered and self.marks.is_opaque(descriptor)
            known = Directory(
                existing_attributes(descriptor, self._prefix), opaque=opaque, existed=True
            )
        finally:
            os.close(descriptor)
        self.known[place] = known
        return known

    def _take_root(self) -> None:
        known = self._adopt(self._root, b".", b"")
        if self._lower is not None:
            known.attributes = attributes_of(self._lower)

    def _copy_lower(self, known: Directory, place: bytes) -> None:
        with self.walk() as walk:
            walk.go(place)
            if walk.lower is None:
                return
            descriptor = os.open(b".", DIRECTORY_FLAGS, dir_fd=walk.lower)
        try:
            known.attributes = attributes_of(descriptor)
        finally:
            os.close(descriptor)

    # --- hiding what is below ----------------------------------------------------------------

    def hides_lower(self, place: bytes) -> bool:
        """Whether a place lies in a directory that is opaque."""
        while place not in self.known or not self.known[place].opaque:
            if not place:
                return False
            place = split(place)[0]
        return True

    def make_opaque(self, place: bytes) -> None:
        """Let nothing of the lower layers show in a directory of the tree."""
        known = self.known[place]
        if not known.opaque:
            known.opaque = True
            self._prune(place, top=False)
            self._mark_opaque(place)

    def replace_lower(self, place: bytes) -> bool:
        """Let a directory of the tree be as if the lower one had been deleted first.

        One that was made only for the sake of marks is removed; True then.
        """
        known = self.known[place]
        if known.replaced:
            return False
        self._prune(place, top=True)
        if place not in self.known:
            return True
        known.replaced = known.opaque = True
        self._mark_opaque(place)
        return False

    def _mark_opaque(self, place: bytes) -> None:
        directory = open_beneath(self._root, place or b".", _ENTER)
        try:
            self.marks.make_opaque(directory)
        finally:
            os.close(directory)

    def _prune(self, place: bytes, *, top: bool) -> None:
        """Drop the marks beneath *place*: what they hide is hidden already, and they would show.

        Directories without anything of the archive's go; others lose what they have of lower ones.
        """
        found = [place]
        for at in found:  # grows on the way
            listing = open_directory(self._root, at)
            try:
                self.marks.clear(listing)
                found += [
                    join(at, name) for name, is_directory in _entries(listing) if is_directory
                ]
            finally:
                os.close(listing)
        for at in reversed(found if top else found[1:]):
            known = self.known.get(at)
            if known is None or known.explicit or self._rmdir(at):
                continue
            known.attributes = IMPLIED
        self._places.clear()
        self._leave()

    # --- removing ----------------------------------------------------------------------------

    def remove(self, directory: int, name: bytes, place: bytes) -> None:
        """Remove what is in a place, with everything beneath it."""
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            for below in reversed(self._empty(place, keep=())):
                self._rmdir(below)
        else:
            self._forget(directory, name, place)
            _unlink(directory, name)
        self._places.clear()

    def delete_lower(self, place: bytes, made: Container[bytes], *, top: bool) -> None:
        """Remove what was in a full tree at *place* before this archive; *top*: itself too.

        What the archive put there stays (*made* and the known directories), in whatever order
        it came; directories that stay but no entry describes are as if made for it.
        """
        emptied = self._empty(place, keep=made)
        for below in reversed(emptied if top else emptied[1:]):
            known = self.known.get(below)
            if known is not None and known.explicit:
                continue
            if not self._rmdir(below):
                directory = self.known[below]  # it holds something of ours, so it was entered
                directory.attributes = IMPLIED
        self._places.clear()
        self._leave()

    def _empty(self, place: bytes, keep: Container[bytes]) -> list[bytes]:
        """Unlink the files beneath *place* that are not to be kept; return the directories."""
        found = [place]
        for at in found:  # grows on the way
            listing = open_directory(self._root, at)
            try:
                for name, is_directory in _entries(listing):
                    below = join(at, name)
                    if is_directory:
                        found.append(below)
                    elif below not in keep:
                        self._forget(listing, name, below)
                        _unlink(listing, name)
            finally:
                os.close(listing)
        return found

    def _rmdir(self, place: bytes) -> bool:
        """Remove a directory of the tree; False if there is something in it."""
        parent, name = split(place)
        directory = open_beneath(self._root, parent or b".", _ENTER)
        try:
            _remove_directory(directory, name)
        except OSError as error:
            if error.errno == errno.ENOTEMPTY:
                return False
            raise
        finally:
            os.close(directory)
        self.known.pop(place, None)
        return True

    # --- the end -----------------------------------------------------------------------------

    def finish(self) -> None:
        """Give every directory its attributes, the deepest first."""
        self._leave()
        for place in sorted(self.known, reverse=True):
            known = self.known[place]
            descriptor = open_directory(self._root, place)
            try:
                set_attributes(descriptor, known.attributes, self._prefix, fresh=not known.existed)
            finally:
                os.close(descriptor)


def _entries(listing: int) -> list[tuple[bytes, bool]]:
    with os.scandir(listing) as entries:
        return [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]


@effectful("tree.mkdir")
def _mkdir(directory: int, name: bytes) -> None:
    os.mkdir(name, 0o700, dir_fd=directory)


@effectful("tree.rmdir")
def _remove_directory(directory: int, name: bytes) -> None:
    os.rmdir(name, dir_fd=directory)


@effectful("tree.unlink")
def _unlink(directory: int, name: bytes) -> None:
    os.unlink(name, dir_fd=directory)
