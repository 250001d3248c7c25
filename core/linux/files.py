"""Copying, syncing and renaming that Python's ``os`` lacks."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys
from ctypes import c_int64

from ..effects import effectful
from .syscalls import check, libc

_FICLONE = 0x40049409  # ioctl_ficlone(2)
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
_UNSUPPORTED = {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS}


def try_clone(source: int, target: int) -> bool:
    """Share all blocks of *source* with *target* (FICLONE); False where that is not possible."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return False
        raise
    return True


def copy_contents(source: int, target: int, size_bytes: int) -> None:
    """Copy *size_bytes* from *source* to *target* (empty), holes kept: reflink, else
    copy_file_range(2), else read and write."""
    if size_bytes and not try_clone(source, target):
        _copy_data(source, target, size_bytes)


class Copier:
    """Copies the contents of many files of one tree; what cannot work is tried only once."""

    def __init__(self) -> None:
        self._clones = True

    def copy(self, source: int, target: int, size_bytes: int) -> None:
        """Copy as :func:`copy_contents` does."""
        if self._clones:
            self._clones = try_clone(source, target)
            if self._clones:
                return
        _copy_data(source, target, size_bytes)


def _copy_data(source: int, target: int, size_bytes: int) -> None:
    """Copy what is data and leave holes where *source* has them.

    The count of blocks does not tell whether there are any: it includes those of xattrs and of
    preallocation.
    """
    if os.lseek(source, 0, os.SEEK_HOLE) >= size_bytes:
        _copy_range(source, target, 0, size_bytes)
        return
    os.ftruncate(target, size_bytes)
    offset = 0
    while offset < size_bytes:
        try:
            start = os.lseek(source, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole follows
                return
            raise
        end = min(os.lseek(source, start, os.SEEK_HOLE), size_bytes)
        _copy_range(source, target, start, end)
        offset = end


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    while start < end:
        try:
            copied = os.copy_file_range(source, target, end - start, start, start)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            chunk = os.pread(source, min(end - start, 1 << 20), start)
            copied = os.pwrite(target, chunk, start)
        if copied == 0:  # the file was cut short meanwhile
            return
        start += copied


@effectful("file.syncfs")
def syncfs(descriptor: int) -> None:
    """Write the whole file system behind *descriptor* to its disk; see syncfs(2)."""
    check(libc.syncfs(descriptor), "syncfs")


@effectful("file.rename")
def renameat2(
    source_dir: int, source: bytes, target_dir: int, target: bytes, flags: int = 0
) -> None:
    """renameat2(2): RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT."""
    check(libc.renameat2(source_dir, source, target_dir, target, flags), "renameat2", source)


def remove_tree(path: str | os.PathLike[str]) -> None:
    """Remove *path* with all that is beneath it, symlinks never followed. Idempotent."""
    try:
        names = os.scandir(path)
    except FileNotFoundError:
        return
    with names:
        for entry in names:
            if entry.is_dir(follow_symlinks=False):
                remove_tree(entry.path)
            else:
                _unlink(entry.path)
    _rmdir(path)


@effectful("file.unlink")
def _unlink(path: str) -> None:
    os.unlink(path)


@effectful("directory.remove")
def _rmdir(path: str | os.PathLike[str]) -> None:
    os.rmdir(path)


_FS_IOC_GETFLAGS, _FS_IOC_SETFLAGS = 0x80086601, 0x40086602  # ioctl_iflags(2)
_FS_APPEND_FL, _FS_IMMUTABLE_FL = 0x20, 0x10


@effectful("file.clear_protection")
def clear_protection(descriptor: int) -> None:
    """Take the immutable and append-only marks off a file or directory, where there are any."""
    word = bytearray(struct.calcsize("l"))
    try:
        fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, word)
        flags = int.from_bytes(word[:4], sys.byteorder)
        if not flags & (_FS_APPEND_FL | _FS_IMMUTABLE_FL):
            return
        flags &= ~(_FS_APPEND_FL | _FS_IMMUTABLE_FL)
        fcntl.ioctl(descriptor, _FS_IOC_SETFLAGS, flags.to_bytes(len(word), sys.byteorder))
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.EOPNOTSUPP):
            raise


_FALLOC_FL_KEEP_SIZE, _FALLOC_FL_PUNCH_HOLE = 1, 2


@effectful("file.punch_hole")
def punch_hole(descriptor: int, offset: int, length: int) -> bool:
    """Give a range of a file back to its file system, so that it reads as zeros (fallocate(2));
    False where that is not possible."""
    mode = _FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE
    try:
        fallocate(descriptor, mode, offset, length)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return False
        raise
    return True


def fallocate(descriptor: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2) with its modes (FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, …)."""
    check(libc.fallocate(descriptor, mode, c_int64(offset), c_int64(length)), "fallocate")
