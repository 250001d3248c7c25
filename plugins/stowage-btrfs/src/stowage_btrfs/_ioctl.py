"""The ioctls of btrfs that the driver needs (linux/btrfs.h), without a fork for any.

All take a descriptor of a directory. A change to the file system is an effect; names are bytes.
"""

from __future__ import annotations

import fcntl
import struct

from msgspec import Struct

from stowage import effectful

_MAGIC, _WRITE, _READ = 0x94, 1, 2


def _number(direction: int, number: int, size: int) -> int:
    return direction << 30 | size << 16 | _MAGIC << 8 | number


_NAME_ARGUMENTS = struct.Struct("=q4088s")
_NAME_ARGUMENTS_V2 = struct.Struct("=qQQ32x4040s")
_SUBVOLUME_INFO = struct.Struct("=Q256sQQQQ16s16s16sQQQQ64x64x")
_INODE_LOOKUP = struct.Struct("=QQ4080s")
_QUOTA_CONTROL = struct.Struct("=QQ")
_QUOTA_RESCAN = struct.Struct("=QQ48x")
_QGROUP_CREATE = struct.Struct("=QQ")
_QGROUP_LIMIT = struct.Struct("=QQQQQQ")

_SUBVOL_CREATE = _number(_WRITE, 14, _NAME_ARGUMENTS.size)
_SNAP_DESTROY = _number(_WRITE, 15, _NAME_ARGUMENTS.size)
_INO_LOOKUP = _number(_READ | _WRITE, 18, _INODE_LOOKUP.size)
_SNAP_CREATE_V2 = _number(_WRITE, 23, _NAME_ARGUMENTS_V2.size)
_SUBVOL_GETFLAGS = _number(_READ, 25, 8)
_SUBVOL_SETFLAGS = _number(_WRITE, 26, 8)
_QUOTA_CTL = _number(_READ | _WRITE, 40, _QUOTA_CONTROL.size)
_QGROUP_CREATE_NUMBER = _number(_WRITE, 42, _QGROUP_CREATE.size)
_QGROUP_LIMIT_NUMBER = _number(_READ, 43, _QGROUP_LIMIT.size)
_QUOTA_RESCAN_STATUS = _number(_READ, 45, _QUOTA_RESCAN.size)
_QUOTA_RESCAN_WAIT = _number(0, 46, 0)
_GET_SUBVOL_INFO = _number(_READ, 60, _SUBVOLUME_INFO.size)
_SYNC = _number(0, 8, 0)

_READ_ONLY = 2
_ENABLE = 1
_MAX_EXCLUSIVE = 2
_NO_LIMIT = (1 << 64) - 1


class Subvolume(Struct, frozen=True):
    """One subvolume: its number, and the transaction in which it was made."""

    number: int
    uuid: bytes
    parent_uuid: bytes
    """The subvolume that it was a snapshot of; zeros if of none."""
    created: int


@effectful("btrfs.subvolume.create")
def create_subvolume(parent: int, name: bytes) -> None:
    """Make an empty subvolume called *name* in the directory *parent*."""
    fcntl.ioctl(parent, _SUBVOL_CREATE, bytearray(_NAME_ARGUMENTS.pack(0, name)))


@effectful("btrfs.subvolume.snapshot")
def create_snapshot(source: int, parent: int, name: bytes) -> None:
    """Make a writable snapshot of the subvolume *source*, called *name*, in *parent*."""
    fcntl.ioctl(parent, _SNAP_CREATE_V2, bytearray(_NAME_ARGUMENTS_V2.pack(source, 0, 0, name)))


@effectful("btrfs.subvolume.delete")
def delete_subvolume(parent: int, name: bytes) -> None:
    """Delete the subvolume *name* of *parent*; its blocks are freed in the background.

    Raises:
        OSError: ENOTEMPTY if there is another subvolume in it, EINVAL if it is none.
    """
    fcntl.ioctl(parent, _SNAP_DESTROY, bytearray(_NAME_ARGUMENTS.pack(0, name)))


def is_read_only(subvolume: int) -> bool:
    return bool(_flags(subvolume) & _READ_ONLY)


def set_read_only(subvolume: int, read_only: bool) -> None:
    """Make a subvolume read-only, or writable again. Idempotent; a change is durable."""
    flags = _flags(subvolume)
    wanted = flags | _READ_ONLY if read_only else flags & ~_READ_ONLY
    if wanted != flags:
        _set_flags(subvolume, wanted)


def _flags(subvolume: int) -> int:
    word = bytearray(8)
    fcntl.ioctl(subvolume, _SUBVOL_GETFLAGS, word)
    return int(struct.unpack("=Q", word)[0])


@effectful("btrfs.subvolume.flags")
def _set_flags(subvolume: int, flags: int) -> None:
    fcntl.ioctl(subvolume, _SUBVOL_SETFLAGS, bytearray(struct.pack("=Q", flags)))


def subvolume_info(subvolume: int) -> Subvolume:
    """Return the facts of the subvolume that the directory *subvolume* lies in."""
    raw = bytearray(_SUBVOLUME_INFO.size)
    fcntl.ioctl(subvolume, _GET_SUBVOL_INFO, raw)
    number, _, _, _, _, _, uuid, parent_uuid, _, _, created, _, _ = _SUBVOLUME_INFO.unpack(raw)
    return Subvolume(number, uuid, parent_uuid, created)


def directory_path(subvolume: int, number: int) -> bytes:
    """Return the path within *subvolume* of the directory with that inode number.

    Raises:
        OSError: ENOENT if it is deleted, ENAMETOOLONG if the path has more than 4,079 bytes.
    """
    raw = bytearray(_INODE_LOOKUP.pack(0, number, b""))
    fcntl.ioctl(subvolume, _INO_LOOKUP, raw)
    path: bytes = _INODE_LOOKUP.unpack(raw)[2]
    return path.partition(b"\0")[0].rstrip(b"/")


@effectful("btrfs.sync")
def commit_transaction(directory: int) -> None:
    """Write what is pending to the trees of the file system; what is clean costs nothing."""
    fcntl.ioctl(directory, _SYNC)


# --- quotas -------------------------------------------------------------------------------------


def may_limit(directory: int) -> bool:
    """Whether this kernel and this user can command quotas; changes nothing."""
    try:
        fcntl.ioctl(directory, _QUOTA_RESCAN_STATUS, bytearray(_QUOTA_RESCAN.size))
    except OSError:
        return False
    return True


@effectful("btrfs.quota.enable")
def enable_quotas(directory: int) -> None:
    """Turn quotas on for the whole file system and wait until all is counted. Idempotent."""
    fcntl.ioctl(directory, _QUOTA_CTL, bytearray(_QUOTA_CONTROL.pack(_ENABLE, 0)))
    fcntl.ioctl(directory, _QUOTA_RESCAN_WAIT)


@effectful("btrfs.quota.limit")
def limit_exclusive(subvolume: int, size_bytes: int | None) -> None:
    """Limit what *subvolume* shares with no other one; None lifts the limit.

    Raises:
        OSError: ENOTCONN if quotas are off.
    """
    most = _NO_LIMIT if size_bytes is None else size_bytes
    limit = _QGROUP_LIMIT.pack(0, _MAX_EXCLUSIVE, 0, most, 0, 0)
    fcntl.ioctl(subvolume, _QGROUP_LIMIT_NUMBER, bytearray(limit))


@effectful("btrfs.quota.forget")
def forget_quota(directory: int, number: int) -> None:
    """Remove the quota group of the deleted subvolume *number*.

    Raises:
        OSError: EBUSY while the subvolume is being freed, ENOENT if there is none, ENOTCONN if
            quotas are off.
    """
    fcntl.ioctl(directory, _QGROUP_CREATE_NUMBER, bytearray(_QGROUP_CREATE.pack(0, number)))
