"""Telling whether a file is the same in two full trees, and which links between files changed."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Iterable

from ..model import ChangeKind
from .changes import Found, Same, attributes_differ
from .tree import READ_CHUNK, open_file, proc_path, read_xattrs, split


def sameness(sealed_ns: int | None) -> Same:
    """Return how to tell whether a file is the same in both trees.

    *sealed_ns* is the time of the file system's clock when the new tree was made as a copy of
    the other: a file whose status has not changed since cannot differ in what stat(2) does not
    show. With None, contents and xattrs are always compared.
    """

    def same(
        new: int, old: int, name: bytes, status: os.stat_result, before: os.stat_result
    ) -> bool:
        if attributes_differ(status, before) or status.st_rdev != before.st_rdev:
            return False
        if (status.st_dev, status.st_ino) == (before.st_dev, before.st_ino):
            return True
        if not stat.S_ISREG(status.st_mode):
            return _same_special(new, old, name, status)
        if status.st_size != before.st_size:
            return False
        if sealed_ns is not None and status.st_ctime_ns < sealed_ns:
            return True
        return _same_file(new, old, name)

    return same


def _same_special(new: int, old: int, name: bytes, status: os.stat_result) -> bool:
    if stat.S_ISLNK(status.st_mode) and os.readlink(name, dir_fd=new) != os.readlink(
        name, dir_fd=old
    ):
        return False
    return read_xattrs(proc_path(new, name)) == read_xattrs(proc_path(old, name))


def _same_file(new: int, old: int, name: bytes) -> bool:
    one = open_file(new, name)
    try:
        other = open_file(old, name)
        try:
            return read_xattrs(one) == read_xattrs(other) and _same_contents(one, other)
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
