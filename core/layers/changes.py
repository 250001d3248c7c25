"""What a tree changes: a walk over it beside the tree that it changes, in one fixed order.

One walk serves both kinds of tree. In one that holds *only changes*, every file counts, and marks
say what is gone. A *full* tree is as if everything of the other had been deleted first: what is
not in it is gone, and a file counts if it differs from the other's.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

from msgspec import Struct

from ..model import ChangeKind
from .tree import DIRECTORY_FLAGS, join, list_names, lstat, open_directory, read_xattrs
from .whiteouts import Marks

_OPEN_LEVELS = 64
"""Directories above this depth stay open during the walk; deeper ones are opened again."""


class Found(NamedTuple):
    """One path: *kind* None is a regular file that is the same but for its hard links.

    *status* is None for what is gone, and for a regular file that nobody had to look at.
    *opaque*: everything below in the other tree is gone, but that tree is not known.
    """

    kind: ChangeKind | None
    path: bytes
    status: os.stat_result | None
    opaque: bool = False
    before: os.stat_result | None = None


class Comparison(Protocol):
    """How two full trees are told apart."""

    def touched(self, directory: os.stat_result) -> bool:
        """Tell whether the names in a directory of the new tree may have been given anew."""

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
        """Tell whether a file is the same in both: its directories, name, and stat in each.

        *touched*: its directory or any above it is; the file may be another one's then.
        """


class _Frame(Struct):
    """A directory on the way: its path, what is left to visit, and the two directories.

    *touched*: it, or a directory above it, is (see Comparison).
    """

    path: bytes
    names: Iterator[tuple[bytes, bool]]
    replaced: bool
    beside: bool
    new: int | None
    old: int | None
    touched: bool = False


class ChangeWalk:
    """Iterates over what the tree at *new_root* changes of the one at *old_root*.

    Directories come before what is in them, deletions before the other names, names in order.
    With *comparison* the tree is a full one; else, without *kinds*, every file is MODIFIED, for
    telling costs a look at the other tree. *only* limits the walk to some names of some
    directories; what is new is walked whole all the same.
    """

    def __init__(
        self,
        new_root: int,
        old_root: int | None,
        marks: Marks,
        *,
        prefix: str = "",
        comparison: Comparison | None = None,
        only: Mapping[bytes, set[bytes]] | None = None,
        kinds: bool = True,
    ) -> None:
        self._new_root = new_root
        self._old_root = old_root
        self._marks = marks
        self._prefix = prefix
        self._comparison = comparison
        self._only = only
        self._kinds = kinds or comparison is not None
        self._stack: list[_Frame] = []

    def __iter__(self) -> Iterator[Found]:
        """Yield what differs.

        Raises:
            OSError: what the kernel said.
            NotSupported: if a tree of changes is not the whole truth.
        """
        status = os.fstat(self._new_root)
        before = None if self._old_root is None else os.fstat(self._old_root)
        try:
            kind = self._directory_kind(self._new_root, self._old_root, status, before)
            if kind is not None:
                yield Found(kind, b"", status)
            new = os.dup(self._new_root)
            old = None if self._old_root is None else os.dup(self._old_root)
            frame = _Frame(b"", iter(()), self._comparison is not None, old is not None, new, old)
            frame.touched = self._touched(status)
            yield from self._push(frame)
            while self._stack:
                frame = self._stack[-1]
                for name, regular in frame.names:
                    if regular and not self._kinds:
                        yield Found(ChangeKind.MODIFIED, join(frame.path, name), None)
                        continue
                    yield from self._visit(frame, name)
                    if self._stack[-1] is not frame:
                        break  # down first
                else:
                    _close(self._stack.pop())
        finally:
            for frame in self._stack:
                _close(frame)

    # --- one directory -----------------------------------------------------------------------

    def _push(self, frame: _Frame) -> Iterator[Found]:
        """Go down to a directory, its descriptors open; the walk closes them from now on."""
        path, new, old = frame.path, frame.new, frame.old
        assert new is not None
        if len(self._stack) >= _OPEN_LEVELS:
            _close(self._stack[-1])
        self._stack.append(frame)
        with os.scandir(new) as entries:
            names, gone, opaque = self._marks.sort(new, list(entries))
        frame.replaced = frame.replaced or opaque
        if old is None:
            if self._old_root is not None:
                gone = []
            elif opaque:
                yield Found(None, path, None, opaque=True)
        elif frame.replaced:
            gone = [name for name in list_names(old) if name not in names]
        else:
            gone = [name for name in gone if lstat(old, name) is not None]
        wanted = None if self._only is None or old is None else self._only.get(path)
        if wanted is not None:
            names = {name: names[name] for name in wanted if name in names}
            gone = [name for name in gone if name in wanted]
        frame.names = iter(sorted(names.items()))
        for name in sorted(gone):
            yield Found(ChangeKind.DELETED, join(path, name), None)

    def _visit(self, frame: _Frame, name: bytes) -> Iterator[Found]:
        new, old = self._open(frame)
        status = lstat(new, name)
        if status is None:  # gone meanwhile
            return
        path = join(frame.path, name)
        directory = stat.S_ISDIR(status.st_mode)
        if not directory and not self._kinds:
            yield Found(ChangeKind.MODIFIED, path, status)
            return
        before = None if old is None else lstat(old, name)
        if directory:
            yield from self._enter(frame, name, path, status, before)
        elif before is None:
            yield Found(ChangeKind.ADDED, path, status)
        elif old is None or not self._is_same(frame, old, name, status, before):
            yield Found(ChangeKind.MODIFIED, path, status, before=before)
        elif status.st_nlink > 1 or before.st_nlink > 1:
            yield Found(None, path, status, before=before)

    def _enter(
        self,
        frame: _Frame,
        name: bytes,
        path: bytes,
        status: os.stat_result,
        before: os.stat_result | None,
    ) -> Iterator[Found]:
        new_above, old_above = self._open(frame)
        new = os.open(name, DIRECTORY_FLAGS, dir_fd=new_above)
        below = _Frame(path, iter(()), frame.replaced, False, new, None)
        below.touched = frame.touched or self._touched(status)
        try:
            if before is not None and old_above is not None and stat.S_ISDIR(before.st_mode):
                below.old = os.open(name, DIRECTORY_FLAGS, dir_fd=old_above)
                below.beside = True
            kind = self._directory_kind(new, below.old, status, before)
        except BaseException:
            _close(below)
            raise
        if kind is not None:
            yield Found(kind, path, status, before=before)
        if self._only is None or below.old is None or path in self._only:
            yield from self._push(below)
        else:
            _close(below)

    def _touched(self, directory: os.stat_result) -> bool:
        return self._comparison is not None and self._comparison.touched(directory)

    def _is_same(
        self,
        frame: _Frame,
        old: int,
        name: bytes,
        status: os.stat_result,
        before: os.stat_result,
    ) -> bool:
        if self._comparison is None:
            return False
        new, _ = self._open(frame)
        return self._comparison.same(new, old, name, status, before, touched=frame.touched)

    def _directory_kind(
        self, new: int, old: int | None, status: os.stat_result, before: os.stat_result | None
    ) -> ChangeKind | None:
        xattrs = read_xattrs(new, self._prefix)
        if before is None:
            return ChangeKind.ADDED
        if old is None or attributes_differ(status, before):
            return ChangeKind.MODIFIED
        return None if xattrs == read_xattrs(old) else ChangeKind.MODIFIED

    def _open(self, frame: _Frame) -> tuple[int, int | None]:
        """Return the descriptors of a frame, opened again if it was deep."""
        if frame.new is None:
            frame.new = open_directory(self._new_root, frame.path)
            if frame.beside and self._old_root is not None:
                frame.old = open_directory(self._old_root, frame.path)
        return frame.new, frame.old


def _close(frame: _Frame) -> None:
    for descriptor in (frame.new, frame.old):
        if descriptor is not None:
            os.close(descriptor)
    frame.new = frame.old = None


def attributes_differ(one: os.stat_result, other: os.stat_result) -> bool:
    """Tell whether type, mode, owner or modification time differ."""
    return (
        one.st_mode != other.st_mode
        or one.st_uid != other.st_uid
        or one.st_gid != other.st_gid
        or one.st_mtime_ns != other.st_mtime_ns
    )
