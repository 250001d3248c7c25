"""How a layer says that names of the layers below are gone, and how such marks come and go.

================  =====================================  ====================================
form              a whiteout of ``x`` in directory ``d``  ``d`` is opaque
================  =====================================  ====================================
``DeviceMarks``   ``d/x`` is a character device 0:0      xattr ``trusted.overlay.opaque``: ``y``
``NamedMarks``    an empty file ``d/.wh.x``              an empty file ``d/.wh..wh..opq``
================  =====================================  ====================================

Directories are descriptors. Nothing is ever half made under its own name: it is made in the work
directory and renamed, so that after a kill a name is what it was or what it was to be.
Sources: kernel, overlayfs.rst; image-spec, layer.md.
"""

from __future__ import annotations

import errno
import os
import stat
from abc import ABC, abstractmethod
from typing import NamedTuple

from stowage.effects import effectful
from stowage.linux.files import RENAME_EXCHANGE, RENAME_WHITEOUT, renameat2

WHITEOUT_PREFIX, RESERVED_PREFIX, OPAQUE_NAME = b".wh.", b".wh..wh.", b".wh..wh..opq"
NAME_MAX = 255
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

#: A kind of file as directories tell it: the type bits of st_mode, 0 for devices and the like.
Kind = int


class Listing(NamedTuple):
    """A directory's own names, each with kind and inode, and the names that are gone."""

    names: list[tuple[bytes, Kind, int]]
    whiteouts: list[bytes]


class Marks(ABC):
    """The marks of one form. *prefix* is that of our own extended attributes."""

    prefix: bytes
    longest_name = NAME_MAX

    @abstractmethod
    def sort(self, directory: int) -> Listing:
        """List a directory, its marks apart."""

    @abstractmethod
    def is_opaque(self, directory: int) -> bool:
        """Whether nothing of the layers below shows in it."""

    @abstractmethod
    def make_opaque(self, directory: int) -> None:
        """Let nothing of the layers below show in it. Idempotent."""

    @abstractmethod
    def is_reserved(self, name: bytes) -> bool:
        """Whether a name means a mark and so can be nothing else."""

    @abstractmethod
    def remove(self, work: int, directory: int, name: bytes, *, present: bool, hide: bool) -> None:
        """Remove a file that is *present* in this layer; *hide* what is below it."""

    @abstractmethod
    def place(
        self, work: int, made: bytes, directory: int, name: bytes, *, is_directory: bool,
        hidden: bool,
    ) -> None:  # fmt: skip
        """Rename *made* in the work directory to *name*, where a whiteout is if *hidden*."""

    @abstractmethod
    def hide(self, directory: int, name: bytes) -> None:
        """Mark *name*, which is not in this layer, as gone."""

    @abstractmethod
    def unhide(self, directory: int, name: bytes) -> None:
        """Take that mark away, after something else has come over it or hides as well."""

    @abstractmethod
    def swap_for_whiteout(self, work: int, taken: bytes, directory: int, name: bytes) -> None:
        """Move the directory *name* to *taken* in the work directory, hiding what is below."""

    @abstractmethod
    def empty(self, directory: int, name: bytes) -> bool:
        """Take the marks out of the directory *name* so that another can be renamed over it.

        What is below stays hidden. Returns whether a whiteout for *name* does that.
        """

    @abstractmethod
    def move(
        self, source: int, old: bytes, target: int, new: bytes, *, is_directory: bool, hide: bool,
        hidden: bool,
    ) -> None:  # fmt: skip
        """Rename within the layer; *hide* what is below *old*; *hidden*: *new* is a whiteout."""


class DeviceMarks(Marks):
    """The kernel's overlay file system's."""

    def __init__(self, prefix: str = "trusted.overlay.") -> None:
        self.prefix = prefix.encode()
        self._opaque = f"{prefix}opaque"

    def sort(self, directory: int) -> Listing:
        names, whiteouts = [], []
        with os.scandir(directory) as entries:
            for entry in entries:
                name, kind = os.fsencode(entry.name), _kind(entry)
                if not kind and _is_whiteout(directory, name):
                    whiteouts.append(name)
                else:
                    names.append((name, kind, entry.inode()))
        return Listing(names, whiteouts)

    def is_opaque(self, directory: int) -> bool:
        try:
            return os.getxattr(directory, self._opaque) == b"y"
        except OSError as error:
            if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
                return False
            raise

    @effectful("union.opaque")
    def make_opaque(self, directory: int) -> None:
        os.setxattr(directory, self._opaque, b"y")

    def is_reserved(self, name: bytes) -> bool:
        return False

    @effectful("union.remove")
    def remove(self, work: int, directory: int, name: bytes, *, present: bool, hide: bool) -> None:
        if not hide:
            os.unlink(name, dir_fd=directory)
        elif not present:
            self.hide(directory, name)
        else:
            self.hide(work, b"whiteout")
            os.rename(b"whiteout", name, src_dir_fd=work, dst_dir_fd=directory)

    @effectful("union.place")
    def place(
        self, work: int, made: bytes, directory: int, name: bytes, *, is_directory: bool,
        hidden: bool,
    ) -> None:  # fmt: skip
        if hidden and is_directory:
            renameat2(work, made, directory, name, RENAME_EXCHANGE)
            os.unlink(made, dir_fd=work)
        else:
            os.rename(made, name, src_dir_fd=work, dst_dir_fd=directory)

    @effectful("union.hide")
    def hide(self, directory: int, name: bytes) -> None:
        os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=directory)

    @effectful("union.unhide")
    def unhide(self, directory: int, name: bytes) -> None:
        if _is_whiteout(directory, name):
            os.unlink(name, dir_fd=directory)

    @effectful("union.take_away")
    def swap_for_whiteout(self, work: int, taken: bytes, directory: int, name: bytes) -> None:
        self.hide(work, taken)
        renameat2(work, taken, directory, name, RENAME_EXCHANGE)

    @effectful("union.empty")
    def empty(self, directory: int, name: bytes) -> bool:
        descriptor = os.open(name, _DIRECTORY, dir_fd=directory)
        try:
            marks = os.listdir(descriptor)
            if marks:
                self.make_opaque(descriptor)
            for mark in marks:
                os.unlink(mark, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        return False

    @effectful("union.move")
    def move(
        self, source: int, old: bytes, target: int, new: bytes, *, is_directory: bool, hide: bool,
        hidden: bool,
    ) -> None:  # fmt: skip
        if hidden and is_directory:  # a directory cannot be renamed over a device
            renameat2(source, old, target, new, RENAME_EXCHANGE)
            if not hide:
                os.unlink(old, dir_fd=source)
        else:
            renameat2(source, old, target, new, RENAME_WHITEOUT if hide else 0)


class NamedMarks(Marks):
    """Those of aufs and of archives. A mark may stand beside what has its name: it hides below."""

    longest_name = NAME_MAX - len(WHITEOUT_PREFIX)

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix.encode()

    def sort(self, directory: int) -> Listing:
        names, whiteouts = [], []
        with os.scandir(directory) as entries:
            for entry in entries:
                name = os.fsencode(entry.name)
                if not name.startswith(WHITEOUT_PREFIX):
                    names.append((name, _kind(entry), entry.inode()))
                elif not name.startswith(RESERVED_PREFIX):
                    whiteouts.append(name[len(WHITEOUT_PREFIX) :])
        return Listing(names, whiteouts)

    def is_opaque(self, directory: int) -> bool:
        return _exists(directory, OPAQUE_NAME)

    @effectful("union.opaque")
    def make_opaque(self, directory: int) -> None:
        if not _exists(directory, OPAQUE_NAME):
            os.close(os.open(OPAQUE_NAME, _NEW, 0o444, dir_fd=directory))

    def is_reserved(self, name: bytes) -> bool:
        return name.startswith(WHITEOUT_PREFIX)

    @effectful("union.remove")
    def remove(self, work: int, directory: int, name: bytes, *, present: bool, hide: bool) -> None:
        if hide:
            self.hide(directory, name)
        if present:
            os.unlink(name, dir_fd=directory)

    @effectful("union.place")
    def place(
        self, work: int, made: bytes, directory: int, name: bytes, *, is_directory: bool,
        hidden: bool,
    ) -> None:  # fmt: skip
        os.rename(made, name, src_dir_fd=work, dst_dir_fd=directory)
        if hidden:
            self.unhide(directory, name)

    @effectful("union.hide")
    def hide(self, directory: int, name: bytes) -> None:
        mark = WHITEOUT_PREFIX + name
        if not _exists(directory, mark):
            os.close(os.open(mark, _NEW, 0o444, dir_fd=directory))

    @effectful("union.unhide")
    def unhide(self, directory: int, name: bytes) -> None:
        try:
            os.unlink(WHITEOUT_PREFIX + name, dir_fd=directory)
        except FileNotFoundError:
            pass

    @effectful("union.take_away")
    def swap_for_whiteout(self, work: int, taken: bytes, directory: int, name: bytes) -> None:
        self.hide(directory, name)
        os.rename(name, taken, src_dir_fd=directory, dst_dir_fd=work)

    @effectful("union.empty")
    def empty(self, directory: int, name: bytes) -> bool:
        self.hide(directory, name)
        descriptor = os.open(name, _DIRECTORY, dir_fd=directory)
        try:
            for mark in os.listdir(descriptor):
                os.unlink(mark, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        return True

    @effectful("union.move")
    def move(
        self, source: int, old: bytes, target: int, new: bytes, *, is_directory: bool, hide: bool,
        hidden: bool,
    ) -> None:  # fmt: skip
        if hide:
            self.hide(source, old)
        os.rename(old, new, src_dir_fd=source, dst_dir_fd=target)
        if hidden:
            self.unhide(target, new)


def _kind(entry: os.DirEntry[str]) -> Kind:
    if entry.is_symlink():
        return stat.S_IFLNK
    if entry.is_dir(follow_symlinks=False):
        return stat.S_IFDIR
    return stat.S_IFREG if entry.is_file(follow_symlinks=False) else 0


def _is_whiteout(directory: int, name: bytes) -> bool:
    facts = os.stat(name, dir_fd=directory, follow_symlinks=False)
    return stat.S_ISCHR(facts.st_mode) and facts.st_rdev == 0


def _exists(directory: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
