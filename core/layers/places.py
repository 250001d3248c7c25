"""Where a path of an archive leads in a tree: as chroot(2) would, over all layers.

A path is followed name by name over what is in the tree and what shows through from the layers
below; no symlink is ever followed by the kernel. The result is a *place*: a path of which every
component is, or can be made, a real directory.
"""

from __future__ import annotations

import os
import stat
from contextlib import AbstractContextManager

from ..errors import InvalidArchive
from .tree import join, lstat, shown, split
from .whiteouts import Marks

_ENTER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SYMLINKS_LIMIT = 40  # path_resolution(7)
_STEPS_LIMIT = 1 << 14


class Walk(AbstractContextManager["Walk"]):
    """A position in the merged tree: a place, and its directory in the tree and in those below.

    :attr:`upper` is None where the tree has no such directory, :attr:`lower` where the lower
    layers have none or it does not show. Both are closed with the walk.
    """

    def __init__(self, root: int, lower_root: int | None, marks: Marks) -> None:
        self._root = root
        self._lower_root = lower_root
        self._marks = marks
        self.place = b""
        self.upper: int | None = None
        self.lower: int | None = None
        self._stale = True
        self._steps = 0

    def __exit__(self, *exc: object) -> None:
        self._move(None, None)

    def restart(self) -> None:
        """Go back to the root."""
        self.place = b""
        self._stale = True

    def up(self) -> None:
        """Go to the directory above; the root is its own."""
        self.place = split(self.place)[0]
        self._stale = True

    def go(self, place: bytes) -> None:
        """Go down to a place beneath here; all symlinks on the way are resolved already."""
        self._settle()
        for name in place.split(b"/") if place else ():
            self._step(name)

    def see(self, name: bytes) -> tuple[int, os.stat_result] | None:
        """Return the stat of what shows as *name* here, and the directory that it is in."""
        self._settle()
        if self.upper is not None:
            status = lstat(self.upper, name)
            if self._marks.is_whiteout(self.upper, name):
                return None
            if status is not None:
                return self.upper, status
        if self.lower is not None:
            status = lstat(self.lower, name)
            if status is not None:
                return self.lower, status
        return None

    def down(self, name: bytes) -> bytes | None:
        """Go down to *name*, whether or not it is there; a symlink's target is returned instead."""
        seen = self.see(name)
        if seen is not None and stat.S_ISLNK(seen[1].st_mode):
            return os.readlink(name, dir_fd=seen[0])
        self._step(name)
        return None

    def _settle(self) -> None:
        """Come back down from the root to where :meth:`up` and :meth:`restart` left us."""
        if self._stale:
            self._stale = False
            self._move(os.dup(self._root), self._lower_root and os.dup(self._lower_root))
            self._show_through(self.upper)
            names = self.place.split(b"/") if self.place else []
            self.place = b""
            for name in names:
                self._step(name)

    def _step(self, name: bytes) -> None:
        self._steps += 1
        if self._steps > _STEPS_LIMIT:
            raise InvalidArchive(f"Symlinks make the way to {shown(self.place)} too long")
        gone = self.upper is not None and self._marks.is_whiteout(self.upper, name)
        upper = None if gone or self.upper is None else _enter(self.upper, name)
        hidden = self.upper is not None and upper is None and lstat(self.upper, name) is not None
        lower = None
        if self.lower is not None and not gone and not hidden:
            lower = _enter(self.lower, name)
        self.place = join(self.place, name)
        self._move(upper, lower)
        self._show_through(upper)

    def _show_through(self, upper: int | None) -> None:
        if upper is not None and self.lower is not None and self._marks.is_opaque(upper):
            os.close(self.lower)
            self.lower = None

    def _move(self, upper: int | None, lower: int | None) -> None:
        for descriptor in (self.upper, self.lower):
            if descriptor is not None:
                os.close(descriptor)
        self.upper, self.lower = upper, lower


def resolve(walk: Walk, path: bytes) -> bytes:
    """Follow *path* with *walk* and return the place; its last components need not exist.

    Raises:
        InvalidArchive: if symlinks go in a circle.
    """
    todo = path.split(b"/")[::-1]
    links = 0
    while todo:
        name = todo.pop()
        if name in (b"", b"."):
            continue
        if name == b"..":
            walk.up()
            continue
        target = walk.down(name)
        if target is None:
            continue
        links += 1
        if links > _SYMLINKS_LIMIT:
            raise InvalidArchive(f"Symlinks lead {shown(path)} in a circle")
        if target.startswith(b"/"):
            walk.restart()
        todo += target.split(b"/")[::-1]
    return walk.place


def _enter(directory: int, name: bytes) -> int | None:
    try:
        return os.open(name, _ENTER, dir_fd=directory)
    except (FileNotFoundError, NotADirectoryError):
        return None
