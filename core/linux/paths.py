"""Opening paths that cannot leave a directory: openat2(2) (Linux 5.6 and later)."""

from __future__ import annotations

import ctypes
import os

from .syscalls import OPENAT2, syscall

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10


class _OpenHow(ctypes.Structure):
    _fields_ = [
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    ]


def openat2(dirfd: int, path: bytes, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2); the descriptor is close-on-exec.

    Raises:
        OSError: ELOOP for a refused symlink, EXDEV for leaving, EAGAIN after a race (try again).
    """
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    return syscall(
        OPENAT2, "openat2", dirfd, path, ctypes.byref(how), ctypes.sizeof(how), path=path
    )


def open_in_root(root: int, path: bytes, flags: int, mode: int = 0) -> int:
    """Open *path* as if *root* (a directory's descriptor) were ``/``.

    ``..``, absolute paths and symlinks stay inside; links of /proc are refused.
    """
    path = path.lstrip(b"/") or b"."
    return openat2(root, path, flags, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
