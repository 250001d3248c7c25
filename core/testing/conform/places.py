"""Where to test: a directory, or a file system of one's own, formatted and loop-mounted."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...errors import InvalidArgument, NotSupported
from ..abilities import missing
from ..disks import loop_mounted

_DISKS = ("ext4", "xfs", "btrfs")


@contextmanager
def place(on: str | Path | None) -> Iterator[Path]:
    """Give a directory to test in, as *on* says.

    That is a directory, or the kind of a file system (``ext4``, ``xfs``, ``btrfs``) that is made
    and loop-mounted for the time of the block.

    None means ext4 where that can be mounted, else the directory for temporary files.

    Raises:
        NotSupported: if there is no such file system here.
        InvalidArgument: if there is no such directory.
    """
    if on is None:
        on = "ext4" if missing("ext4") is None else Path(tempfile.gettempdir())
    if str(on) in _DISKS:
        if reason := missing(str(on)):
            raise NotSupported(f"there is no {on} to test on", details=reason)
        with (
            tempfile.TemporaryDirectory(prefix="stowage-disk-", dir=_roomy()) as scratch,
            loop_mounted(str(on), Path(scratch), size_bytes=2 << 30) as root,
        ):
            yield root
        return
    directory = Path(on)
    if not directory.is_dir():
        raise InvalidArgument(
            f"{str(on)!r} is no directory to test in",
            resolution=f"name one, or one of {', '.join(_DISKS)}",
        )
    yield directory.absolute()


def _roomy() -> str | None:
    """Memory, where it has room for a disk: a run should not wait for the machine's own disk."""
    try:
        facts = os.statvfs("/dev/shm")
    except OSError:
        return None
    return "/dev/shm" if facts.f_bavail * facts.f_frsize > 4 << 30 else None


__all__ = ["place"]
