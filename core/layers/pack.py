"""Writing what a walk found as an archive: parents first, links to what came before."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import AbstractContextManager

from ..errors import FailedPrecondition, NotSupported
from ..linux.paths import open_beneath
from ..model import ChangeKind
from .changes import Found
from .names import OPAQUE_NAME, WHITEOUT_PREFIX
from .tarwriter import Packed, TarWriter
from .tree import (
    join,
    open_directory,
    open_file,
    proc_path,
    read_xattrs,
    shown,
    split,
)

_TYPE_BY_FORMAT = {
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFIFO: b"6",
}


class Packer(AbstractContextManager["Packer"]):
    """Packs paths of the tree at *root*, in the order in which they are added.

    Without *marks* names that mean a deletion in a layer are names like any other.
    """

    def __init__(
        self, root: int, writer: TarWriter, prefix: str = "", *, marks: bool = True
    ) -> None:
        self._marks = marks
        self._root = root
        self._writer = writer
        self._prefix = prefix
        self._parents: set[bytes] = {b""}
        self._first_by_inode: dict[tuple[int, int], bytes] = {}
        self._here: tuple[bytes, int] | None = None

    def __exit__(self, *exc: object) -> None:
        if self._here is not None:
            os.close(self._here[1])
            self._here = None

    def pack(self, found: Iterable[Found]) -> Packed:
        """Write an entry for each; sockets cannot be in an archive and are left out.

        Raises:
            NotSupported: for a name that would mean a deletion.
            Unavailable: if a file gets shorter while it is read.
        """
        for one in found:
            if one.opaque:
                self._mark(join(one.path, OPAQUE_NAME))
            elif one.kind is ChangeKind.DELETED:
                parent, name = self._representable(one.path)
                self._mark(join(parent, WHITEOUT_PREFIX + name))
            elif one.kind is not None:
                if one.status is None or stat.S_ISREG(one.status.st_mode):
                    self._file(one.path)
                else:
                    self._special(one.path, one.status)
        return self._writer.finish()

    def _mark(self, path: bytes) -> None:
        self._with_parents(split(path)[0])
        self._writer.whiteout(path)

    def _special(self, path: bytes, status: os.stat_result) -> None:
        mode = status.st_mode
        if stat.S_ISDIR(mode):
            if path:
                self._with_parents(split(path)[0])
            self._directory(path)
            return
        if stat.S_ISSOCK(mode):
            return
        parent, name = self._representable(path)
        directory = self._enter(parent)
        if status.st_nlink > 1 and self._linked(path, status):
            return
        xattrs = read_xattrs(proc_path(directory, name), self._prefix)
        link = os.readlink(name, dir_fd=directory) if stat.S_ISLNK(mode) else b""
        kind = _TYPE_BY_FORMAT[stat.S_IFMT(mode)]
        self._writer.entry(path, kind, status, link=link, xattrs=xattrs)

    def _file(self, path: bytes) -> None:
        parent, name = self._representable(path)
        descriptor = open_file(self._enter(parent), name)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise FailedPrecondition(f"{shown(path)} was replaced while it was read")
            if status.st_nlink == 1 or not self._linked(path, status):
                xattrs = read_xattrs(descriptor, self._prefix)
                self._writer.file(path, status, descriptor, xattrs)
        finally:
            os.close(descriptor)

    def _linked(self, path: bytes, status: os.stat_result) -> bool:
        """Write a link if an earlier entry is the same file."""
        first = self._first_by_inode.setdefault((status.st_dev, status.st_ino), path)
        if first == path:
            return False
        self._writer.entry(path, b"1", status, link=first)
        return True

    def _with_parents(self, path: bytes) -> None:
        """Write the directories above that are not in the archive yet."""
        missing = []
        while path not in self._parents:
            missing.append(path)
            path = split(path)[0]
        for above in reversed(missing):
            self._directory(above)

    def _directory(self, path: bytes) -> None:
        if path:
            self._representable(path)
        self._parents.add(path)
        descriptor = open_directory(self._root, path)
        try:
            status = os.fstat(descriptor)
            xattrs = read_xattrs(descriptor, self._prefix)
        finally:
            os.close(descriptor)
        self._writer.entry(path + b"/" if path else b"./", b"5", status, xattrs=xattrs)

    def _enter(self, parent: bytes) -> int:
        """Return a descriptor of a directory, written with all above it; lent until the next."""
        if self._here is not None:
            if self._here[0] == parent:
                return self._here[1]
            os.close(self._here[1])
            self._here = None
        self._with_parents(parent)
        descriptor = open_beneath(self._root, parent or b".", os.O_PATH | os.O_DIRECTORY)
        self._here = (parent, descriptor)
        return descriptor

    def _representable(self, path: bytes) -> tuple[bytes, bytes]:
        """Return parent and name of a path.

        Raises:
            NotSupported: if the name means something else in an archive (image-spec, layer.md).
        """
        parent, name = split(path)
        if self._marks and name.startswith(WHITEOUT_PREFIX):
            raise NotSupported(
                f"{shown(path)} cannot be in a layer",
                details="in an archive, names that begin with .wh. say what was deleted",
                resolution="rename or remove it",
            )
        return parent, name
