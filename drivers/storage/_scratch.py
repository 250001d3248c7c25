"""Scratch directories for probes, and what is found out of a backing file system in one."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stowage import effect, effectful
from stowage.linux.files import remove_tree, try_clone

_PREFIX = ".probe-"

# POSIX ACL, version 2: owner rw-, group r--, others r-- (linux/posix_acl_xattr.h).
_ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, bits, 0xFFFFFFFF) for tag, bits in ((1, 6), (4, 4), (32, 4))
)


@contextmanager
def scratch(root: Path) -> Iterator[Path]:
    """Give an empty directory on the file system that *root* lies or will lie on; remove it after.

    Raises:
        OSError: if none can be made.
    """
    place = _make_scratch(existing(root))
    try:
        yield place
    finally:
        remove_tree(place)


def existing(path: Path) -> Path:
    """Return *path* or the nearest directory above it that exists."""
    while not path.exists():
        path = path.parent
    return path


def remove_stale_scratch(root: Path) -> None:
    """Remove what probes left that were killed; for ``storage_recover``."""
    for place in root.glob(f"{_PREFIX}*"):
        remove_tree(place)


@effectful("probe.clone")
def can_clone(directory: Path) -> bool:
    """Whether two files of *directory* can share blocks (FICLONE); leaves both there."""
    reading = os.open(directory / "original", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        writing = os.open(directory / "clone", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            return try_clone(reading, writing)
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def keeps_acls(descriptor: int) -> bool:
    """Whether the file behind *descriptor* takes a POSIX ACL; it gets mode 0644."""
    try:
        with effect("probe.acl", descriptor=descriptor):
            os.setxattr(descriptor, "system.posix_acl_access", _ACL)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EPERM):
            return False
        raise
    return True


def _make_scratch(above: Path) -> Path:
    number = 0
    while True:
        place = above / f"{_PREFIX}{os.getpid()}-{number}"
        try:
            with effect("probe.scratch", path=place):
                place.mkdir(mode=0o700)
        except FileExistsError:  # another thread's, or left by a killed process of this number
            number += 1
        else:
            return place
