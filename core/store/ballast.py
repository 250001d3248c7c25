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
_COMFORT_BYTES = 8 * SIZE_BYTES
"""It is only made where this much is free: made in want it would cause what it cures."""


class Ballast:
    """The reserve file at *path*; safe to use from many processes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def ensure(self) -> None:
        """Make it if it is not there and there is room; never raises for want of space."""
        if self.path.exists():
            return
        room = os.statvfs(self.path.parent)
        if room.f_bavail * room.f_frsize < _COMFORT_BYTES:
            return
        with effect("ballast.create", path=self.path):
            try:
                self._create()
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EEXIST):
                    raise

    def _create(self) -> None:
        staged = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, SIZE_BYTES)
            os.rename(staged, self.path)
        except BaseException:
            os.unlink(staged)
            raise
        finally:
            os.close(descriptor)

    def release(self) -> bool:
        """Give it up; tells whether there was any."""
        try:
            with effect("ballast.release", path=self.path):
                os.unlink(self.path)
        except FileNotFoundError:
            return False
        return True

    def relieve(self, step: Callable[[], T]) -> T:
        """Run *step*; when it finds no space, give up the ballast and run it once more.

        *step* must have changed nothing when it raises OSError (ENOSPC, EDQUOT) or NoSpace.
        """
        try:
            return step()
        except (OSError, NoSpace) as error:
            if isinstance(error, OSError) and error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            if not self.release():
                raise
        return step()
