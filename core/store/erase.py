"""Deleting a whole tree, whatever is in it, without ever leaving it.

Only ``*at`` calls on directories that were opened beneath the tree, no symlink followed, no mount
point crossed: a file system that somebody mounted inside is reported, never emptied. Depth costs
no recursion and few descriptors: what lies deep is moved up to the top first.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from itertools import count
from pathlib import Path

from ..effects import effect
from ..errors import Busy
from ..linux.files import RENAME_NOREPLACE, clear_protection, renameat2
from ..linux.paths import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2

_DEPTH = 24
"""Directories that are open at once; deeper ones are moved up first."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV


class Stopped(Exception):
    """The caller asked to stop; what is left can be erased later."""


def erase(parent: int, name: bytes, *, stop: Callable[[], bool] = lambda: False) -> None:
    """Delete the directory *name* of the directory *parent*, and all beneath. Idempotent.

    *stop* is asked before each entry.

    Raises:
        Stopped: when *stop* said so.
        Busy: if something is mounted inside.
        OSError: what the kernel said.
    """
    try:
        top = _open(parent, name)
    except FileNotFoundError:
        return
    try:
        _Eraser(top, stop).empty(top, 1)
    finally:
        os.close(top)
    with effect("file.rmdir", path=name):
        _unprotected(parent, None, lambda: os.rmdir(name, dir_fd=parent))


def erase_path(path: Path, *, stop: Callable[[], bool] = lambda: False) -> None:
    """Delete the directory at *path* as ``erase`` does."""
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        erase(parent, os.fsencode(path.name), stop=stop)
    finally:
        os.close(parent)


class _Eraser:
    def __init__(self, top: int, stop: Callable[[], bool]) -> None:
        self._top = top
        self._stop = stop
        self._numbers = count()

    def empty(self, directory: int, depth: int) -> None:
        while True:  # what is moved up to the top shows in the next round
            entries = _entries(directory)
            if not entries:
                return
            for name, is_directory in entries:
                if self._stop():
                    raise Stopped
                if is_directory:
                    self._delete_directory(directory, name, depth)
                else:
                    _delete_file(directory, name)

    def _delete_directory(self, directory: int, name: bytes, depth: int) -> None:
        child = _open(directory, name)
        try:
            if depth >= _DEPTH and self._moved_up(directory, name, child):
                return
            self.empty(child, depth + 1)
        finally:
            os.close(child)
        with effect("file.rmdir", path=name):
            _unprotected(directory, None, lambda: os.rmdir(name, dir_fd=directory))

    def _moved_up(self, directory: int, name: bytes, child: int) -> bool:
        """Move a deep directory to the top of the tree; False where there is no space for it."""
        clear_protection(child)
        while True:
            try:
                renameat2(
                    directory, name, self._top, b"deep-%d" % next(self._numbers), RENAME_NOREPLACE
                )
                return True
            except OSError as error:
                if error.errno == errno.EEXIST:
                    continue
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    return False
                raise


def _delete_file(directory: int, name: bytes) -> None:
    try:
        with effect("file.unlink", path=name):
            os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass
    except PermissionError:
        _delete_protected(directory, name)


def _delete_protected(directory: int, name: bytes) -> None:
    mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    target = None
    if stat.S_ISREG(mode):  # opening a device could do anything
        target = openat2(directory, name, os.O_RDONLY | os.O_NOFOLLOW, 0, _RESOLVE)
    try:
        with effect("file.unlink", path=name):
            _unprotected(directory, target, lambda: os.unlink(name, dir_fd=directory))
    finally:
        if target is not None:
            os.close(target)


def _open(parent: int, name: bytes) -> int:
    try:
        return openat2(parent, name, _DIRECTORY, 0, _RESOLVE)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        raise Busy(
            f"something is mounted on {os.fsdecode(name)!r}, which is to be deleted",
            resolution="unmount it, then 'stowage gc'",
        ) from error


def _entries(directory: int) -> list[tuple[bytes, bool]]:
    with os.scandir(directory) as entries:  # rewinds: each call reads from the start
        return [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]


def _unprotected(parent: int, target: int | None, step: Callable[[], None]) -> None:
    """Run *step*; on EPERM clear the immutable and append-only marks and run it again."""
    try:
        step()
    except PermissionError:
        clear_protection(parent)
        if target is not None:
            clear_protection(target)
        step()
    except FileNotFoundError:
        pass
