"""fusepy's structure of functions, filled by a file system: C's arguments to Python and back.

fusepy's own class does this as well, by dictionaries and pointers to structures; here answers are
images of C's structures that a file system can keep, and names are bytes.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import fuse

Path = bytes  # absolute within the mount


class Opened(NamedTuple):
    """An open file: *handle* is a descriptor of it. Of a *shared* one, which other names lead to
    as well, the kernel keeps no pages."""

    handle: int
    shared: bool


class Calls(Protocol):
    """The file system: one method per operation. Errors are OSError with an errno.

    *request* is set by the session and says who asks.
    """

    request: Request

    def getattr(self, path: Path) -> bytes: ...
    def fgetattr(self, handle: int) -> bytes: ...
    def readlink(self, path: Path) -> bytes: ...
    def mknod(self, path: Path, mode: int, device: int) -> None: ...
    def mkdir(self, path: Path, mode: int) -> None: ...
    def unlink(self, path: Path) -> None: ...
    def rmdir(self, path: Path) -> None: ...
    def symlink(self, target: bytes, path: Path) -> None: ...
    def rename(self, old: Path, new: Path) -> None: ...
    def link(self, old: Path, new: Path) -> None: ...
    def chmod(self, path: Path, mode: int) -> None: ...
    def chown(self, path: Path, uid: int, gid: int) -> None: ...
    def truncate(self, path: Path, length: int) -> None: ...
    def ftruncate(self, handle: int, length: int) -> None: ...
    def utimens(self, path: Path, atime_ns: int, mtime_ns: int) -> None: ...
    def open(self, path: Path, flags: int) -> Opened: ...
    def create(self, path: Path, mode: int, flags: int) -> Opened: ...
    def accessed(self, handle: int) -> None: ...
    def writing(self, handle: int, offset: int, *, delayed: bool = False) -> int: ...
    def release(self, handle: int) -> None: ...
    def fsync(self, handle: int, data_only: bool) -> None: ...
    def fsyncdir(self, path: Path, data_only: bool) -> None: ...
    def statfs(self, path: Path) -> os.statvfs_result: ...
    def setxattr(self, path: Path, name: bytes, value: bytes, flags: int) -> None: ...
    def getxattr(self, path: Path, name: bytes) -> bytes: ...
    def listxattr(self, path: Path) -> Iterable[bytes]: ...
    def removexattr(self, path: Path, name: bytes) -> None: ...
    def readdir(self, path: Path) -> Iterable[tuple[bytes, int, int]]: ...


class Request:
    """The request that is being served: its caller, and what libfuse does not tell of it."""

    __slots__ = ("gid", "kills_suid", "no_replace", "opcode", "pid", "shared", "uid", "umask")

    def __init__(self) -> None:
        self.opcode = self.uid = self.gid = self.pid = self.umask = 0
        self.kills_suid = self.no_replace = False
        self.shared = False
        """Set by the file system: it answers for a file that changes under other names as well."""


_scratch = fuse.c_stat()
_STAT_BYTES = ctypes.sizeof(_scratch)


def stat_image(facts: os.stat_result, inode: int, links: int) -> bytes:
    """Return ``struct stat`` of *facts* under another inode number and count of links."""
    seconds, nanos = divmod(facts.st_atime_ns, 1_000_000_000)
    _scratch.st_atimespec.tv_sec, _scratch.st_atimespec.tv_nsec = seconds, nanos
    seconds, nanos = divmod(facts.st_mtime_ns, 1_000_000_000)
    _scratch.st_mtimespec.tv_sec, _scratch.st_mtimespec.tv_nsec = seconds, nanos
    seconds, nanos = divmod(facts.st_ctime_ns, 1_000_000_000)
    _scratch.st_ctimespec.tv_sec, _scratch.st_ctimespec.tv_nsec = seconds, nanos
    _scratch.st_ino, _scratch.st_nlink = inode, links
    _scratch.st_mode = facts.st_mode
    _scratch.st_uid, _scratch.st_gid = facts.st_uid, facts.st_gid
    _scratch.st_rdev, _scratch.st_size = facts.st_rdev, facts.st_size
    _scratch.st_blksize, _scratch.st_blocks = facts.st_blksize, facts.st_blocks
    return bytes(_scratch)


class Functions:
    """What libfuse calls: C's arguments to :class:`Calls` and back."""

    flag_nullpath_ok = 1
    flag_nopath = 1
    flag_utime_omit_ok = 1

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self.readlink_bytes = calls.readlink
        for name in ("mknod", "mkdir", "unlink", "rmdir", "rename", "link", "chmod", "truncate"):
            setattr(self, name, getattr(calls, name))
        for name in ("symlink", "removexattr"):
            setattr(self, name, getattr(calls, name))

    def getattr(self, path: bytes, target: int) -> None:
        ctypes.memmove(target, self._calls.getattr(path), _STAT_BYTES)

    def fgetattr(self, _path: bytes | None, target: int, info: int) -> None:
        ctypes.memmove(target, self._calls.fgetattr(_handle(info)), _STAT_BYTES)

    def readlink(self, path: bytes, target: int, size: int) -> None:
        text = self._calls.readlink(path)[: size - 1] + b"\0"
        ctypes.memmove(target, text, len(text))

    def chown(self, path: bytes, uid: int, gid: int) -> None:
        self._calls.chown(path, _signed(uid), _signed(gid))

    def utimens(self, path: bytes, times: int) -> None:
        values = (ctypes.c_long * 4).from_address(times)
        now_or_not = (_UTIME_NOW, _UTIME_OMIT)
        atime_ns, mtime_ns = (
            values[at + 1] if values[at + 1] in now_or_not
            else values[at] * 1_000_000_000 + values[at + 1]
            for at in (0, 2)
        )  # fmt: skip
        self._calls.utimens(path, atime_ns, mtime_ns)

    def open(self, path: bytes, info: Any) -> None:
        facts = info.contents
        opened = self._calls.open(path, facts.flags)
        facts.fh, facts.keep_cache, facts.direct_io = (
            opened.handle,
            not opened.shared,
            opened.shared,
        )

    def create(self, path: bytes, mode: int, info: Any) -> None:
        facts = info.contents
        opened = self._calls.create(path, mode, facts.flags)
        facts.fh, facts.keep_cache, facts.direct_io = (
            opened.handle,
            not opened.shared,
            opened.shared,
        )

    def ftruncate(self, _path: bytes | None, length: int, info: Any) -> None:
        self._calls.ftruncate(info.contents.fh, length)

    def release(self, _path: bytes | None, info: Any) -> None:
        self._calls.release(info.contents.fh)

    def fsync(self, _path: bytes | None, data_only: int, info: Any) -> None:
        self._calls.fsync(info.contents.fh, bool(data_only))

    def opendir(self, path: bytes, info: Any) -> None:
        self._directories = getattr(self, "_directories", {})
        info.contents.fh = number = max(self._directories, default=0) + 1
        self._directories[number] = path

    def readdir(self, _path: bytes | None, buffer: int, fill: Any, _offset: int, info: Any) -> None:
        path = self._directories[info.contents.fh]
        facts = fuse.c_stat()
        shown = ctypes.byref(facts)
        for name, inode, mode in self._calls.readdir(path):
            facts.st_ino, facts.st_mode = inode, mode
            if fill(buffer, name, shown, 0):
                raise OSError(errno.ENOMEM, "libfuse cannot take more names")

    def fsyncdir(self, _path: bytes | None, data_only: int, info: Any) -> None:
        self._calls.fsyncdir(self._directories[info.contents.fh], bool(data_only))

    def releasedir(self, _path: bytes | None, info: Any) -> None:
        del self._directories[info.contents.fh]

    def statfs(self, path: bytes, target: Any) -> None:
        facts = self._calls.statfs(path)
        for name, *_ in target.contents._fields_:
            value = getattr(facts, name, None)
            if isinstance(value, int):
                setattr(target.contents, name, value)

    def setxattr(self, path: bytes, name: bytes, value: int, size: int, flags: int) -> None:
        self._calls.setxattr(path, name, ctypes.string_at(value, size), flags)

    def getxattr(self, path: bytes, name: bytes, target: int | None, size: int) -> int:
        return _give(self._calls.getxattr(path, name), target, size)

    def listxattr(self, path: bytes, target: int | None, size: int) -> int:
        names = b"".join(name + b"\0" for name in self._calls.listxattr(path))
        return _give(names, target, size)


_UTIME_NOW, _UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
_c = ctypes
#: Where addresses as numbers serve better than fusepy's pointers to structures.
PROTOTYPES: Mapping[str, Any] = {
    "getattr": _c.CFUNCTYPE(_c.c_int, _c.c_char_p, _c.c_void_p),
    "fgetattr": _c.CFUNCTYPE(_c.c_int, _c.c_char_p, _c.c_void_p, _c.POINTER(fuse.fuse_file_info)),
    "readlink": _c.CFUNCTYPE(_c.c_int, _c.c_char_p, _c.c_void_p, _c.c_size_t),
    "utimens": _c.CFUNCTYPE(_c.c_int, _c.c_char_p, _c.c_void_p),
    "setxattr": _c.CFUNCTYPE(
        _c.c_int, _c.c_char_p, _c.c_char_p, _c.c_void_p, _c.c_size_t, _c.c_int
    ),
    "getxattr": _c.CFUNCTYPE(_c.c_int, _c.c_char_p, _c.c_char_p, _c.c_void_p, _c.c_size_t),
    "listxattr": _c.CFUNCTYPE(_c.c_int, _c.c_char_p, _c.c_void_p, _c.c_size_t),
}


def _handle(info: Any) -> int:
    handle: int = info.contents.fh
    return handle


def _signed(number: int) -> int:
    """-1, as chown(2) takes it for "leave it", comes back from C unsigned."""
    return -1 if number == 0xFFFFFFFF else number


def _give(value: bytes, target: int | None, size: int) -> int:
    if target and size:
        if len(value) > size:
            raise OSError(errno.ERANGE, "it is longer than the place for it")
        ctypes.memmove(target, value, len(value))
    return len(value)


def guarded(function: Callable[..., object]) -> Callable[..., int]:
    def call(*arguments: object) -> int:
        try:
            result = function(*arguments)
        except OSError as error:
            return -(error.errno or errno.EIO)
        except BaseException:  # noqa: BLE001  # C cannot take it
            report()
            return -errno.EIO
        return result if isinstance(result, int) else 0

    return call


def report() -> None:
    traceback.print_exc(file=sys.stderr)
    sys.stderr.flush()
