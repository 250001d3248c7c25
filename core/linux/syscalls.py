"""Calling the kernel through libc: numbers, argument types and errors, in one place."""

from __future__ import annotations

import ctypes
import errno
import os

libc = ctypes.CDLL(None, use_errno=True)
_syscall = libc.syscall
_syscall.restype = ctypes.c_long

# The same on every architecture since Linux 5.0 (include/uapi/asm-generic/unistd.h).
OPEN_TREE, MOVE_MOUNT, FSOPEN, FSCONFIG, FSMOUNT = 428, 429, 430, 431, 432
PIDFD_OPEN, OPENAT2, MOUNT_SETATTR = 434, 437, 442


def check(result: int, what: str, path: str | bytes | None = None) -> int:
    """Return *result*, or raise the OSError that errno says if it is negative."""
    if result < 0:
        number = ctypes.get_errno()
        message = f"{what}: {os.strerror(number)}"
        if path is None:
            raise OSError(number, message)
        raise OSError(number, message, os.fsdecode(path))
    return result


def syscall(number: int, what: str, *args: object, path: str | bytes | None = None) -> int:
    """Make a raw system call; integers, bytes and ctypes values as arguments."""
    converted = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    while True:
        result = _syscall(ctypes.c_long(number), *converted)
        if result >= 0 or ctypes.get_errno() != errno.EINTR:
            return check(result, what, path)
