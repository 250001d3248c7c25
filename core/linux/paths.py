"""Opening paths that cannot leave a directory: openat2(2) (Linux 5.6 and later)."""

from __future__ import annotations

import ctypes
import errno
import os
from functools import lru_cache

from .syscalls import OPENAT2, check, libc

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10
_TRIES = 1000  # openat2(2): a ".." that met a rename or a mount anywhere is to be tried again
_PATH_MAX = 4096


class _OpenHow(ctypes.Structure):
    _fields_ = [
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    ]


def openat2(dirfd: int, path: bytes, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2); the descriptor is close-on-exec.

    Raises:
        OSError: ELOOP for a refused symlink, EXDEV for leaving, EAGAIN if other processes' renames
            and mounts, anywhere on the machine, got in the way of each of many tries.
    """
    how = _open_how(flags | os.O_CLOEXEC, mode, resolve)
    tries = 0
    while True:
        result: int = _openat2(OPENAT2, dirfd, path, how, _HOW_BYTES)
        if result >= 0:
            return result
        number = ctypes.get_errno()
        tries += number == errno.EAGAIN
        if number != errno.EINTR and (number != errno.EAGAIN or tries > _TRIES):
            ctypes.set_errno(number)
            return check(result, "openat2", path)


@lru_cache(maxsize=64)
def _open_how(flags: int, mode: int, resolve: int) -> object:
    """The kernel only reads it, so calls with the same flags share one."""
    return ctypes.byref(_OpenHow(flags, mode, resolve))


_HOW_BYTES = ctypes.sizeof(_OpenHow)
_openat2 = libc["syscall"]  # an object of its own: the types of its arguments are fixed
_openat2.restype = ctypes.c_long
_openat2.argtypes = [
    ctypes.c_long,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_void_p,
    ctypes.c_size_t,
]


def open_in_root(root: int, path: bytes, flags: int, mode: int = 0) -> int:
    """Open *path* as if *root* (a directory's descriptor) were ``/``.

    ``..``, absolute paths and symlinks stay inside; links of /proc are refused.
    """
    path = path.lstrip(b"/") or b"."
    return openat2(root, path, flags, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)


def open_deep(root: int, path: str, flags: int) -> int:
    """Open *path*, relative to the directory *root*, however long it is.

    A path longer than PATH_MAX is walked in pieces. For trees that nobody else changes: what
    lies between is followed as open(2) does.
    """
    try:
        return os.open(path, flags, dir_fd=root)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG or "/" not in path:
            raise
    # Half the way first; a separator is found on one side of the middle or the other.
    middle = path.find("/", len(path) // 2)
    front, _, rest = path.rpartition("/") if middle < 0 else (path[:middle], "", path[middle + 1 :])
    between = open_deep(root, front, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return open_deep(between, rest, flags)
    finally:
        os.close(between)


def open_beneath(root: int, path: bytes, flags: int, mode: int = 0) -> int:
    """Open *path* (relative) beneath *root* with no symlink followed and no way out.

    A path longer than PATH_MAX is walked in pieces.

    Raises:
        OSError: ELOOP if any component is a symlink, EXDEV for ``..`` or an absolute path.
    """
    resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
    cut = path.rfind(b"/", 0, _PATH_MAX) if len(path) >= _PATH_MAX else -1
    if cut <= 0:
        return openat2(root, path, flags, mode, resolve)
    between = openat2(root, path[:cut], os.O_PATH | os.O_DIRECTORY, 0, resolve)
    try:
        return open_beneath(between, path[cut + 1 :], flags, mode)
    finally:
        os.close(between)
