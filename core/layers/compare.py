"""Telling whether a file is the same in two full trees, and which links between files changed."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Iterable

from msgspec import Struct

from ..model import ChangeKind
from .changes import Found, attributes_differ
from .tree import READ_CHUNK, open_file, proc_path, read_xattrs, split


class FullTrees(Struct, frozen=True):
    """Compares two full trees by stat(2), xattrs and contents.

    *sealed_ns* is the time of the file system's clock when the new tree was made as a copy of
    the other: the contents of a file whose status has not changed since are the copied ones,
    and they are not read where no directory on the way to it has changed either. Its own status
    is not enough: what lies in a directory that is renamed keeps it, and on xfs so do two names
    that renameat2(2) exchanges; but each renaming shows in the directories that hold the names.
    With None, contents and xattrs are always compared.
    """

    sealed_ns: int | None

    def touched(self, directory: os.stat_result) -> bool:
        return self.sealed_ns is None or directory.st_ctime_ns >= self.sealed_ns

    def same(
        self,
        new: int,
        old: int,
        name: bytes,
        status: os.stat_result,
        before: os.stat_result,
        *,
        touched: bool,
    ) -> bool:
        if attributes_differ(status, before) or status.st_rdev != before.st_rdev:
            return False
        if (status.st_dev, status.st_ino) == (before.st_dev, before.st_ino):
            return True
        if not stat.S_ISREG(status.st_mode):
            return _same_special(new, old, name, status)
        if status.st_size != before.st_size:
            return False
        if not touched and self.sealed_ns is not None and status.st_ctime_ns < self.sealed_ns:
            return True
        return _same_file(new, old, name)


class ContentsOnly:
    """Compares what files of two full trees hold, whatever else the file systems say of them."""

    def touched(self, directory: os.stat_result) -> bool:
        return True

    def same(
        self,
        new: int,
        old: int,
        name: bytes,
        status: os.stat_result,
        before: os.stat_result,
        *,
        touched: bool,
    ) -> bool:
        if stat.S_IFMT(status.st_mode) != stat.S_IFMT(before.st_mode):
            return False
        if stat.S_ISLNK(status.st_mode):
            return os.readlink(name, dir_fd=new) == os.readlink(name, dir_fd=old)
        if not stat.S_ISREG(status.st_mode):
            return status.st_rdev == before.st_rdev
        return status.st_size == before.st_size and _same_file(new, old, name, xattrs=False)


def _same_special(new: int, old: int, name: bytes, status: os.stat_result) -> bool:
    if stat.S_ISLNK(status.st_mode) and os.readlink(name, dir_fd=new) != os.readlink(
        name, dir_fd=old
    ):
        return False
    return read_xattrs(proc_path(new, name)) == read_xattrs(proc_path(old, name))


def _same_file(new: int, old: int, name: bytes, *, xattrs: bool = True) -> bool:
    one = open_file(new, name)
    try:
        other = open_file(old, name)
        try:
            if xattrs and read_xattrs(one) != read_xattrs(other):
                return False
            return _same_contents(one, other)
        finally:
            os.close(other)
    finally:
        os.close(one)


def _same_contents(one: int, other: int) -> bool:
    while True:
        left, right = os.read(one, READ_CHUNK), os.read(other, READ_CHUNK)
        if left != right:
            return False
        if not left:
            return True


def with_links(found: Iterable[Found]) -> list[Found]:
    """Return what differs, files included that are only linked to others than before.

    Two names of one file are a difference to two equal files: writing to one shows in the other.
    """
    everything = list(found)
    now: dict[tuple[int, int], set[bytes]] = defaultdict(set)
    before: dict[tuple[int, int], set[bytes]] = defaultdict(set)
    for one in everything:
        if one.status is not None and not stat.S_ISDIR(one.status.st_mode):
            now[_inode(one.status)].add(one.path)
            if one.before is not None:
                before[_inode(one.before)].add(one.path)
    return [
        one if one.kind is not None else one._replace(kind=ChangeKind.MODIFIED)
        for one in everything
        if one.kind is not None
        or (one.status and one.before and now[_inode(one.status)] != before[_inode(one.before)])
    ]


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def names_by_directory(candidates: Iterable[bytes]) -> dict[bytes, set[bytes]]:
    """Return which names to look at in which directories, for absolute paths in a layer."""
    wanted: dict[bytes, set[bytes]] = {b"": set()}
    for candidate in candidates:
        path = candidate.strip(b"/")
        while path:
            parent, name = split(path)
            known = parent in wanted and name in wanted[parent]
            wanted.setdefault(parent, set()).add(name)
            if known:
                break
            path = parent
    return wanted
