"""Which file system a path lies on: statfs(2), whose ``f_type`` Python's ``os`` leaves out."""

from __future__ import annotations

import ctypes
import os

from .syscalls import check, libc

# linux/magic.h and the file systems' own headers; the names are those Docker shows.
_NAME_BY_MAGIC = {
    0x0000EF53: "extfs",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0x01021994: "tmpfs",
    0x794C7630: "overlayfs",
    0x61756673: "aufs",
    0x2FC12FC1: "zfs",
    0xF2F52010: "f2fs",
    0xCA451A4E: "bcachefs",
    0x00006969: "nfs",
    0xFF534D42: "cifs",
    0xFE534D42: "smb2",
    0x0000F15F: "ecryptfs",
    0x65735546: "fuse",
    0x01021997: "9p",
    0x73717368: "squashfs",
    0xE0F5E1E2: "erofs",
    0x00004D44: "vfat",
    0x2011BAB0: "exfat",
    0x5346544E: "ntfs",
    0x47504653: "gpfs",
    0x00C36400: "ceph",
}


class _StatFs(ctypes.Structure):
    # Only the first field is read; the rest is room for whatever the architecture writes.
    _fields_ = [("f_type", ctypes.c_long), ("rest", ctypes.c_long * 30)]


def filesystem_magic(path: str | os.PathLike[str]) -> int:
    """Return the magic number (``f_type``) of the file system that *path* lies on."""
    raw = os.fsencode(path)
    answer = _StatFs()
    check(libc.statfs(raw, ctypes.byref(answer)), "statfs", raw)
    return int(answer.f_type) & 0xFFFFFFFF


def filesystem_name(path: str | os.PathLike[str]) -> str:
    """Return its name as Docker shows it (``extfs`` for ext2, 3 and 4), or the number in hex."""
    magic = filesystem_magic(path)
    return _NAME_BY_MAGIC.get(magic, f"0x{magic:x}")
