"""Room for the metastore's log that is never given to anybody else.

What is freed on a full disk is eaten at once by whoever filled it, so the ballast alone cannot
promise that a removal works. The reserve is a file whose blocks are ours: where there is no log,
it is linked in as the log (``metadata.db-wal``), which SQLite writes over in place and unlinks in
the end; the reserve stays.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from ..effects import effect
from .ballast import COMFORT_BYTES, make_filled

SIZE_BYTES = 512 << 10
CHECKPOINT_PAGES = 50
"""After how many pages the log is written back to the database, so that it stays within."""

_HEADER_BYTES = 32  # https://www.sqlite.org/fileformat2.html#the_write_ahead_log


class Reserve:
    """The reserve at *path* for the log at *log*; safe to use from many processes."""

    def __init__(self, path: Path, log: Path) -> None:
        self.path = path
        self.log = log

    def ensure(self) -> None:
        """Make it if it is not there and there is room; never raises for want of space."""
        if not self.path.exists():
            make_filled(self.path, SIZE_BYTES, room=COMFORT_BYTES)

    def lend(self) -> None:
        """Link it in as the log, unless there is a log, or no reserve.

        Its old header is destroyed and synced before: what the log held was written back long
        ago and must never be read again. Only one process does so at a time.
        """
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            with effect("reserve.lend", path=self.log):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if os.fstat(descriptor).st_nlink == 1 and not self.log.exists():
                    os.pwrite(descriptor, bytes(_HEADER_BYTES), 0)
                    os.fdatasync(descriptor)
                    os.link(self.path, self.log)
        except FileExistsError:  # somebody opened the database as usual meanwhile
            pass
        finally:
            os.close(descriptor)

    @property
    def lent(self) -> bool:
        """Whether it is the log now, or there is none to lend."""
        try:
            return os.path.samestat(os.stat(self.path), os.stat(self.log))
        except FileNotFoundError:
            return not self.path.exists()
