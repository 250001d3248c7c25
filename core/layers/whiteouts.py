"""How a tree that holds only changes says that names of the layers below are gone.

====================  ======================================  ==================================
form                  a whiteout of ``x`` in directory ``d``  ``d`` is opaque
====================  ======================================  ==================================
OCI (aufs)            an empty file ``d/.wh.x``               an empty file ``d/.wh..wh..opq``
OVERLAY               ``d/x`` is a character device 0:0       xattr ``<prefix>opaque`` is ``y``
OVERLAY, as xattrs    ``d/x`` is empty with the xattr         the same; with whiteouts of this
                      ``<prefix>whiteout``                    kind in it, it is ``x``
====================  ======================================  ==================================

Sources: image-spec, layer.md; kernel, overlayfs.rst, "whiteouts and opaque directories" and
"Nested overlayfs mounts".
"""

from __future__ import annotations

import errno
import os
import stat
from abc import ABC, abstractmethod
from typing import NamedTuple

from ..effects import effectful
from ..errors import InvalidArgument
from ..model import WhiteoutForm
from .names import OPAQUE_NAME, RESERVED_PREFIX, WHITEOUT_PREFIX
from .tree import (
    Tree,
    lstat,
    proc_path,
)

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_MARK = frozenset({errno.ENODATA, errno.EOPNOTSUPP})
OPAQUE, HAS_WHITEOUTS = b"y", b"x"


class Marks(ABC):
    """Makes and recognises marks; directories are descriptors, O_PATH will do."""

    @abstractmethod
    def is_whiteout(self, directory: int, name: bytes) -> bool:
        """Tell whether *name* is marked as gone in *directory*."""

    @abstractmethod
    def add_whiteout(self, directory: int, name: bytes) -> None:
        """Mark *name* as gone; there is neither such a file nor the mark yet."""

    @abstractmethod
    def drop_whiteout(self, directory: int, name: bytes) -> None:
        """Take the mark away, so that *name* can be made."""

    @abstractmethod
    def is_opaque(self, directory: int) -> bool:
        """Tell whether nothing of the lower layers shows in *directory*."""

    @abstractmethod
    def make_opaque(self, directory: int) -> None:
        """Let nothing of the lower layers show in *directory*; has no effect the second time."""

    def clear(self, directory: int) -> None:
        """Take away the marks in a directory, given as a descriptor that is not O_PATH."""
        with os.scandir(directory) as entries:
            listing = self.sort(directory, list(entries))
        for name in listing.whiteouts:
            self.drop_whiteout(directory, name)

    @abstractmethod
    def sort(self, directory: int, entries: list[os.DirEntry[str]]) -> Listing:
        """Tell the names in *directory* that are content from those that are marks."""


class Listing(NamedTuple):
    """A directory's own names, the names that are gone, and whether all others are.

    A name's value tells whether the directory itself knows it for a regular file (d_type).
    """

    names: dict[bytes, bool]
    whiteouts: list[bytes]
    opaque: bool


class NoMarks(Marks):
    """A full tree: what is gone is not there."""

    def is_whiteout(self, directory: int, name: bytes) -> bool:
        return False

    def add_whiteout(self, directory: int, name: bytes) -> None:
        raise InvalidArgument("A full tree has no whiteouts")

    drop_whiteout = add_whiteout

    def is_opaque(self, directory: int) -> bool:
        return False

    def make_opaque(self, directory: int) -> None:
        raise InvalidArgument("A full tree has no opaque directories")

    def sort(self, directory: int, entries: list[os.DirEntry[str]]) -> Listing:
        names = {os.fsencode(entry.name): entry.is_file(follow_symlinks=False) for entry in entries}
        return Listing(names, [], False)


class NamedMarks(Marks):
    """Marks by name, as in archives and in branches of aufs."""

    def is_whiteout(self, directory: int, name: bytes) -> bool:
        return lstat(directory, WHITEOUT_PREFIX + name) is not None

    @effectful("tree.whiteout")
    def add_whiteout(self, directory: int, name: bytes) -> None:
        os.close(os.open(WHITEOUT_PREFIX + name, _NEW, 0o444, dir_fd=directory))

    @effectful("tree.unlink")
    def drop_whiteout(self, directory: int, name: bytes) -> None:
        os.unlink(WHITEOUT_PREFIX + name, dir_fd=directory)

    def is_opaque(self, directory: int) -> bool:
        return lstat(directory, OPAQUE_NAME) is not None

    @effectful("tree.opaque")
    def make_opaque(self, directory: int) -> None:
        if not self.is_opaque(directory):
            os.close(os.open(OPAQUE_NAME, _NEW, 0o444, dir_fd=directory))

    @effectful("tree.unlink")
    def clear(self, directory: int) -> None:
        super().clear(directory)
        if self.is_opaque(directory):
            os.unlink(OPAQUE_NAME, dir_fd=directory)

    def sort(self, directory: int, entries: list[os.DirEntry[str]]) -> Listing:
        own, whiteouts, opaque = {}, [], False
        for entry in entries:
            name = os.fsencode(entry.name)
            if not name.startswith(WHITEOUT_PREFIX):
                own[name] = entry.is_file(follow_symlinks=False)
            elif not name.startswith(RESERVED_PREFIX):
                whiteouts.append(name[len(WHITEOUT_PREFIX) :])
            else:
                opaque = opaque or name == OPAQUE_NAME
        return Listing(own, whiteouts, opaque)


class DeviceMarks(Marks):
    """The kernel's overlay file system: devices and an xattr. Both kinds of whiteout are known."""

    def __init__(self, prefix: str) -> None:
        self._opaque = prefix + "opaque"
        self._whiteout = prefix + "whiteout"

    def is_whiteout(self, directory: int, name: bytes) -> bool:
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if stat.S_ISCHR(status.st_mode):
            return status.st_rdev == 0
        return self._is_xattr_whiteout(directory, name, status)

    def _is_xattr_whiteout(self, directory: int, name: bytes, status: os.stat_result) -> bool:
        if status.st_size or not stat.S_ISREG(status.st_mode):
            return False
        return _mark(proc_path(directory, name), self._whiteout, follow=False) is not None

    @effectful("tree.whiteout")
    def add_whiteout(self, directory: int, name: bytes) -> None:
        os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=directory)

    @effectful("tree.unlink")
    def drop_whiteout(self, directory: int, name: bytes) -> None:
        os.unlink(name, dir_fd=directory)

    def is_opaque(self, directory: int) -> bool:
        return _mark(proc_path(directory, b""), self._opaque) == OPAQUE

    @effectful("tree.opaque")
    def make_opaque(self, directory: int) -> None:
        os.setxattr(proc_path(directory, b""), self._opaque, OPAQUE)

    def sort(self, directory: int, entries: list[os.DirEntry[str]]) -> Listing:
        """Looks closer only at devices, and at files where the directory's mark says so."""
        mark = _mark(proc_path(directory, b""), self._opaque)
        files_too = mark == HAS_WHITEOUTS
        own, whiteouts = {}, []
        for entry in entries:
            name = os.fsencode(entry.name)
            regular = entry.is_file(follow_symlinks=False)
            plain = not files_too if regular else entry.is_dir(follow_symlinks=False)
            if not plain and self.is_whiteout(directory, name):
                whiteouts.append(name)
            else:
                own[name] = regular
        return Listing(own, whiteouts, mark == OPAQUE)


class XattrMarks(DeviceMarks):
    """The same where devices cannot be made: whiteouts are empty files with an xattr."""

    @effectful("tree.whiteout")
    def add_whiteout(self, directory: int, name: bytes) -> None:
        descriptor = os.open(name, _NEW, 0o444, dir_fd=directory)
        try:
            os.setxattr(descriptor, self._whiteout, OPAQUE)
        finally:
            os.close(descriptor)
        if not self.is_opaque(directory):
            os.setxattr(proc_path(directory, b""), self._opaque, HAS_WHITEOUTS)


def marks_of(tree: Tree) -> Marks:
    """Return the marks of a tree's form.

    Raises:
        InvalidArgument: for a form that needs an xattr prefix and has none.
    """
    if tree.form is WhiteoutForm.NONE:
        return NoMarks()
    if tree.form is WhiteoutForm.OCI:
        return NamedMarks()
    if not tree.xattr_prefix:
        raise InvalidArgument("A tree of this form needs the prefix of its xattrs")
    return (XattrMarks if tree.whiteout_xattr else DeviceMarks)(tree.xattr_prefix)


def _mark(path: bytes, name: str, *, follow: bool = True) -> bytes | None:
    try:
        return os.getxattr(path, name, follow_symlinks=follow)
    except OSError as error:
        if error.errno in _NO_MARK:
            return None
        raise
