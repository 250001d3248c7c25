"""One MiB kept in reserve, so that removing works on a file system with no byte left.

SQLite must write to forget a row, and a rename may need a block for its directory. When either
finds no space, the ballast is given up and the step tried again; what is removed then makes room
for it to be made anew.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ..effects import effect
from ..errors import NoSpace

T = TypeVar("T")

SIZE_BYTES = 1 << 20
COMFORT_BYTES = 8 * SIZE_BYTES
"""It is only made where this much is free: made in want it would cause what it cures."""


class Ballast:
    """The reserve file at *path*; safe to use from many processes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def ensure(self) -> None:
        """Make it if it is not there and there is room; never raises for want of space."""
        if not self.path.exists():
            make_filled(self.path, SIZE_BYTES, room=COMFORT_BYTES)

    @property
    def wanted(self) -> bool:
        """Whether the file system has less room than the ballast itself takes."""
        return free_bytes(self.path.parent) < SIZE_BYTES

    def release(self) -> bool:
        """Give it up; tells whether there was any."""
        try:
            with effect("ballast.release", path=self.path):
                os.unlink(self.path)
        except FileNotFoundError:
            return False
        return True

    def relieve(self, step: Callable[[], T], then: Callable[[], None] = lambda: None) -> T:
        """Run *step*; when it finds no space, give up the ballast and run it once more, *then*
        between the two.

        *step* must have changed nothing when it raises OSError (ENOSPC, EDQUOT) or NoSpace.
        """
        try:
            return step()
        except (OSError, NoSpace) as error:
            if not is_full(error) or not self.release():
                raise
            then()
        return step()


def is_full(error: BaseException) -> bool:
    """Whether *error* says that there is no space."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, NoSpace)


def free_bytes(directory: Path) -> int:
    """Return how much may still be written to the file system of *directory*."""
    room = os.statvfs(directory)
    return room.f_bavail * room.f_frsize


def make_filled(path: Path, size_bytes: int, *, room: int) -> None:
    """Make a file whose blocks are all its own, where *room* bytes are free; else do nothing."""
    if free_bytes(path.parent) < room:
        return
    staged = path.with_name(f"{path.name}.{os.getpid()}")
    with effect("ballast.create", path=path):
        try:
            _fill(staged, path, size_bytes)
        except OSError as error:
            if not is_full(error) and error.errno != errno.EEXIST:
                raise


def _fill(staged: Path, path: Path, size_bytes: int) -> None:
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size_bytes)
        os.link(staged, path)  # not a rename: one that is in use must stay what it is
    finally:
        os.unlink(staged)
        os.close(descriptor)
