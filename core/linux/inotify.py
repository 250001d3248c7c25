"""Waiting for changes of files and directories (inotify(7))."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

from ..effects import effect

IN_MODIFY, IN_MOVED_TO, IN_DELETE, IN_DELETE_SELF = 0x2, 0x80, 0x200, 0x400
IN_ONESHOT = 0x80000000
_IN_IGNORED = 0x8000
_HEADER = struct.Struct("iIII")
_libc = ctypes.CDLL(None, use_errno=True)


class Inotify:
    """One inotify instance; close it."""

    def __init__(self) -> None:
        self.descriptor = _checked(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))

    def close(self) -> None:
        """Stop watching."""
        os.close(self.descriptor)

    def add(self, path: Path, mask: int) -> int:
        """Watch *path*; returns the watch's number.

        Raises:
            OSError: ENOENT, ENOSPC (fs.inotify.max_user_watches), ….
        """
        with effect("inotify.add", path=path):
            return _checked(
                _libc.inotify_add_watch(self.descriptor, os.fsencode(path), ctypes.c_uint32(mask))
            )

    def read(self) -> set[int]:
        """Return the watches that something happened to; none if nothing did."""
        try:
            raw = os.read(self.descriptor, 1 << 16)
        except BlockingIOError:
            return set()
        watches, offset = set(), 0
        while offset < len(raw):
            watch, mask, _, length = _HEADER.unpack_from(raw, offset)
            if not mask & _IN_IGNORED:
                watches.add(watch)
            offset += _HEADER.size + length
        return watches


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
