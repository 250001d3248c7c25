"""Trying what the driver needs: subvolumes, snapshots, read-only ones, reading the trees."""

from __future__ import annotations

import errno
import os
import struct
import tempfile
from pathlib import Path

from msgspec import Struct

from stowage import Finding, effect
from stowage.linux.files import remove_tree
from stowage.linux.statfs import filesystem_name

from . import _ioctl
from ._changes import allocated_since
from ._nested import delete_tree

_PREFIX = ".probe-"
_FORMAT = "put the root on btrfs: 'mkfs.btrfs DEVICE', mount it, and name a directory on it as root"

# POSIX ACL, version 2: owner rw-, group r--, others r-- (linux/posix_acl_xattr.h).
_ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, bits, 0xFFFFFFFF) for tag, bits in ((1, 6), (4, 4), (32, 4))
)


class Traits(Struct, frozen=True):
    """What was found out of this file system and this user."""

    quota: bool
    acl: bool


class Unfit(Exception):
    """The driver cannot work here; *finding* says why and what helps."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.reason)
        self.finding = finding


def probe_traits(root: Path) -> Traits:
    """Make two layers in a scratch directory, look, and leave nothing.

    Raises:
        Unfit: with what is missing.
    """
    above = existing(root)
    kind = filesystem_name(above)
    if kind != "btrfs":
        raise Unfit(Finding(f"{above} lies on {kind}, not on btrfs", _FORMAT))
    try:
        with effect("probe.scratch", path=above):
            scratch = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=above))
        try:
            return _try(scratch)
        finally:
            remove_scratch(scratch)
    except OSError as error:
        reason = f"btrfs refuses on {above}: {error.strerror}"
        remedy = {
            errno.EPERM: "run it with CAP_SYS_ADMIN, as root",
            errno.EACCES: "run it as root",
            errno.EROFS: f"mount {above} writable",
            errno.ENOTTY: "use a kernel of 4.18 or later",
        }.get(error.errno or 0, "")
        raise Unfit(Finding(reason, remedy)) from error


def _try(scratch: Path) -> Traits:
    directory = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _ioctl.create_subvolume(directory, b"parent")
        parent = os.open(scratch / "parent", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _ioctl.set_read_only(parent, True)
            _ioctl.create_snapshot(parent, directory, b"child")
            wrong = _what_is_wrong(scratch, parent)
        finally:
            os.close(parent)
        if wrong:
            raise Unfit(Finding(wrong, "use another storage driver"))
        return Traits(_ioctl.may_limit(directory), _keeps_acls(scratch / "child"))
    finally:
        os.close(directory)


def _what_is_wrong(scratch: Path, parent: int) -> str:
    try:
        with effect("probe.write", path=scratch):
            os.mkdir("written", dir_fd=parent)
        return "a read-only subvolume can be written to"
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
    child = os.open(scratch / "child", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        facts = _ioctl.subvolume_info(child)
        if facts.parent_uuid != _ioctl.subvolume_info(parent).uuid:
            return "a snapshot does not say what it is one of"
        with effect("probe.write", path=scratch):
            os.mkdir("written", dir_fd=child)
        _ioctl.commit_transaction(child)
        found = allocated_since(child, facts.created)
        return "" if found.inodes == 1 else "the file system does not say what was written when"
    finally:
        os.close(child)


def _keeps_acls(directory: Path) -> bool:
    try:
        with effect("probe.acl", path=directory):
            os.setxattr(directory, "system.posix_acl_access", _ACL)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return False
        raise
    return True


def existing(path: Path) -> Path:
    """Return *path* or the nearest directory above it that exists."""
    while not path.exists():
        path = path.parent
    return path


def remove_scratch(scratch: Path) -> None:
    """Remove a scratch directory with the subvolumes in it."""
    directory = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in (b"child", b"parent"):
            try:
                delete_tree(directory, name)
            except FileNotFoundError:
                pass  # never made
    finally:
        os.close(directory)
    remove_tree(scratch)


def remove_stale_scratch(root: Path) -> None:
    """Remove what probes left that were killed."""
    for scratch in root.glob(f"{_PREFIX}*"):
        remove_scratch(scratch)
