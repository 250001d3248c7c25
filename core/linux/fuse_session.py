"""libfuse's session loop in Python, on fusepy's declarations: caches that are exact, fewer copies.

libfuse 2 keeps the paths and calls the file system; fusepy declares its structures and functions.
Requests are read here and, on their way to libfuse and back, put right where libfuse 2 is too old
or too general (protocol: <linux/fuse.h>):

* Names and attributes are cached for good, for nothing changes behind the kernel's back. But
  libfuse gives each name of a hard-linked file an inode of its own in the kernel, so of a file
  with several names no attributes are cached; ``link`` makes the kernel forget those of the
  first name.
* What names a file by handle needs no path and so no libfuse: read, write, and what libfuse 2
  does not know: lseek (SEEK_HOLE, SEEK_DATA), fallocate, copy_file_range.
* The kernel checks permissions, POSIX ACLs included, and leaves umask and the loss of setuid bits
  on writing to the file system.
* ``renameat2(RENAME_NOREPLACE)`` is a rename with a condition.

One thread serves: under the GIL several would only wait for each other.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import stat
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import fuse

from .files import fallocate
from .fuse_calls import PROTOTYPES, Calls, Functions, Request, guarded, report

_GETATTR, _SETATTR, _SYMLINK, _MKNOD, _MKDIR, _LOOKUP, _CREATE = 3, 4, 6, 8, 9, 1, 35
_RENAME, _LINK, _OPEN, _READ, _WRITE, _RELEASE, _INIT = 12, 13, 14, 15, 16, 18, 26
_FALLOCATE, _RENAME2, _LSEEK, _COPY_FILE_RANGE = 43, 45, 46, 47
_ENTRY_REPLIES = frozenset({_LOOKUP, _SYMLINK, _MKNOD, _MKDIR, _LINK, _CREATE})
_ATTR_REPLIES = frozenset({_GETATTR, _SETATTR})
_MENDED = _ENTRY_REPLIES | _ATTR_REPLIES | {_OPEN, _INIT}

_DONT_MASK, _POSIX_ACL, _MAX_PAGES = 1 << 6, 1 << 20, 1 << 22
_CACHE_SYMLINKS, _HANDLE_KILLPRIV_V2, _BIG_WRITES = 1 << 23, 1 << 28, 1 << 5
_MINOR = 36
"""The version that requests by handle are read as; those to libfuse have not changed since its."""
_INIT_EXT, _DIRECT_IO_ALLOW_MMAP = 1 << 30, 1 << 36
_WANTED = (
    _DONT_MASK | _POSIX_ACL | _MAX_PAGES | _CACHE_SYMLINKS | _HANDLE_KILLPRIV_V2 | _BIG_WRITES
    | _INIT_EXT | _DIRECT_IO_ALLOW_MMAP
)  # fmt: skip
_WRITE_CACHE, _WRITE_KILL_SUIDGID, _FATTR_KILL_SUIDGID = 1, 1 << 2, 1 << 11
_NOTIFY_INVAL_INODE = 2
_RENAME_NOREPLACE = 1

_IN_HEADER = struct.Struct("=IIQQIIII")  # length, opcode, unique, node, uid, gid, pid, padding
_OUT_HEADER = struct.Struct("=IiQ")
_INIT_OUT = struct.Struct("=IIIIHHIIHHI28x")
_READ_IN = struct.Struct("=QQI")
_WRITE_IN = struct.Struct("=QQIIQII")
_FALLOCATE_IN = struct.Struct("=QQQI")
_LSEEK_IN = struct.Struct("=QQI")
_COPY_IN = struct.Struct("=QQQQQQQ")
_ATTR_OUT = struct.Struct("=QII3Q3q10I")
_INVAL_INODE_OUT = struct.Struct("=IiQQqq")

_MAX_REQUEST_BYTES = 1 << 20
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_FOREVER_SECONDS = 1 << 30


class Session:
    """One mount: :meth:`mount`, hand the mount over, then :meth:`run` until it is gone."""

    def __init__(self, calls: Calls, options: Mapping[str, object]) -> None:
        self._calls = calls
        self._request = calls.request = Request()
        self._options = {
            "entry_timeout": _FOREVER_SECONDS,
            "attr_timeout": _FOREVER_SECONDS,
            "negative_timeout": _FOREVER_SECONDS,
            "max_read": _MAX_REQUEST_BYTES,
            "use_ino": True,
            "allow_other": True,
            "default_permissions": True,
            "nonempty": True,
            **options,
        }
        self._lib = fuse._libfuse
        self._buffer = bytearray(_MAX_REQUEST_BYTES + 4 * _PAGE_BYTES)
        self._buffer_address = ctypes.addressof(ctypes.c_char.from_buffer(self._buffer))
        self._view = memoryview(self._buffer)
        self._kept: list[object] = []  # what C refers to
        self._unique = self._node = 0
        self._handles: dict[int, list[int]] = {}  # by the kernel's number of their inode
        self._direct: dict[int, Callable[[], Sequence[bytes | memoryview]]] = {
            _READ: self._read,
            _WRITE: self._write,
            _FALLOCATE: self._fallocate,
            _LSEEK: self._lseek,
            _COPY_FILE_RANGE: self._copy_file_range,
        }

    # --- mounting ---------------------------------------

    def mount(self, mount_point: str) -> None:
        """Mount; requests wait until :meth:`run`.

        Raises:
            OSError: if libfuse refuses; it says why on standard error.
        """
        words = ["fuse", "-f", "-s", "-o", ",".join(_option_words(self._options)), mount_point]
        arguments = (ctypes.c_char_p * len(words))(*(word.encode() for word in words))
        operations = self._operations()
        lib = self._lib
        lib.fuse_setup.restype = ctypes.c_void_p
        place, threaded = ctypes.c_char_p(), ctypes.c_int()
        handle = lib.fuse_setup(
            len(words), arguments, ctypes.byref(operations), ctypes.c_size_t(
                ctypes.sizeof(operations)), ctypes.byref(place), ctypes.byref(threaded), None
        )  # fmt: skip
        if not handle:
            raise OSError(errno.EINVAL, "fuse_setup failed", mount_point)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # libfuse's handler waits for its own loop
        self._kept += [operations, arguments]
        lib.fuse_get_session.restype = lib.fuse_session_next_chan.restype = ctypes.c_void_p
        lib.fuse_chan_new.restype = ctypes.c_void_p
        self._session = ctypes.c_void_p(lib.fuse_get_session(ctypes.c_void_p(handle)))
        channel = ctypes.c_void_p(lib.fuse_session_next_chan(self._session, None))
        self._device = lib.fuse_chan_fd(channel)
        lib.fuse_chan_bufsize.restype = ctypes.c_size_t
        functions = _ChannelFunctions(send=_SEND(self._send))
        self._kept.append(functions)
        self._channel = ctypes.c_void_p(
            lib.fuse_chan_new(
                ctypes.byref(functions), self._device,
                ctypes.c_size_t(lib.fuse_chan_bufsize(channel)), None,
            )
        )  # fmt: skip

    def run(self) -> None:
        """Serve until the last reference to the mount is gone."""
        process = self._lib.fuse_session_process
        process.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
        process.restype = None
        request, direct, address = self._request, self._direct, self._buffer_address
        device, buffers = self._device, [self._buffer]
        while True:
            try:
                length = os.readv(device, buffers)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return
                if error.errno in (errno.ENOENT, errno.EINTR, errno.EAGAIN):
                    continue  # the request was interrupted before we got it
                raise
            _, opcode, self._unique, self._node, request.uid, request.gid, request.pid, _ = (
                _IN_HEADER.unpack_from(self._buffer)
            )
            request.opcode, request.shared = opcode, False
            serve = direct.get(opcode)
            if serve is not None:
                self._answer(serve)
                continue
            if opcode in _PREPARED:
                length = self._prepare(opcode, length)
                if not length:
                    continue
            process(self._session, address, length, self._channel)

    # --- requests by handle ---------------------------------------

    def _answer(self, serve: Callable[[], Sequence[bytes | memoryview]]) -> None:
        try:
            parts = serve()
        except OSError as error:
            self._reply_error(error.errno or errno.EIO)
            return
        except Exception:  # noqa: BLE001  # the mount must not die of it
            report()
            self._reply_error(errno.EIO)
            return
        size = _OUT_HEADER.size + sum(map(len, parts))
        self._write_device([_OUT_HEADER.pack(size, 0, self._unique), *parts])

    def _reply_error(self, number: int) -> None:
        self._write_device([_OUT_HEADER.pack(_OUT_HEADER.size, -number, self._unique)])

    def _write_device(self, parts: Sequence[bytes | memoryview]) -> None:
        try:
            os.writev(self._device, parts)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV):  # interrupted; unmounted
                raise

    def _read(self) -> Sequence[bytes]:
        handle, offset, size = _READ_IN.unpack_from(self._buffer, _IN_HEADER.size)
        data = os.pread(handle, size, offset)
        self._calls.accessed(handle)
        return (data,)

    def _write(self) -> Sequence[bytes]:
        handle, offset, size, flags, _, _, _ = _WRITE_IN.unpack_from(self._buffer, _IN_HEADER.size)
        start = _IN_HEADER.size + _WRITE_IN.size
        if flags & _WRITE_KILL_SUIDGID:
            drop_set_ids(handle)
        offset = self._calls.writing(handle, offset, delayed=bool(flags & _WRITE_CACHE))
        written = os.pwrite(handle, self._view[start : start + size], offset)
        while written < size:
            more = os.pwrite(handle, self._view[start + written : start + size], offset + written)
            if not more:
                break
            written += more
        return (struct.pack("=II", written, 0),)

    def _fallocate(self) -> Sequence[bytes]:
        handle, offset, length, mode = _FALLOCATE_IN.unpack_from(self._buffer, _IN_HEADER.size)
        self._calls.writing(handle, offset)
        fallocate(handle, mode, offset, length)
        return ()

    def _lseek(self) -> Sequence[bytes]:
        handle, offset, whence = _LSEEK_IN.unpack_from(self._buffer, _IN_HEADER.size)
        return (struct.pack("=Q", os.lseek(handle, offset, whence)),)

    def _copy_file_range(self) -> Sequence[bytes]:
        source, source_at, _, target, target_at, length, _ = _COPY_IN.unpack_from(
            self._buffer, _IN_HEADER.size
        )
        self._calls.writing(target, target_at)
        length = min(length, 1 << 30)
        copied = os.copy_file_range(source, target, length, source_at, target_at)
        return (struct.pack("=II", copied, 0),)

    # --- to libfuse ---------------------------------------

    def _prepare(self, opcode: int, length: int) -> int:
        """Note what libfuse will not tell; return the request's length, 0 if it is answered."""
        request, body = self._request, _IN_HEADER.size
        request.kills_suid = request.no_replace = False
        if opcode == _SETATTR:
            (valid,) = struct.unpack_from("=I", self._buffer, body)
            request.kills_suid = bool(valid & _FATTR_KILL_SUIDGID)
        elif opcode == _MKDIR:
            (request.umask,) = struct.unpack_from("=I", self._buffer, body + 4)
        elif opcode in (_MKNOD, _CREATE):
            (request.umask,) = struct.unpack_from("=I", self._buffer, body + 8)
        elif opcode == _RELEASE:
            (handle,) = struct.unpack_from("=Q", self._buffer, body)
            handles = self._handles.get(self._node, [])
            if handle in handles:
                handles.remove(handle)
            if not handles:
                self._handles.pop(self._node, None)
        elif opcode == _RENAME2:
            (flags,) = struct.unpack_from("=I", self._buffer, body + 8)
            if flags & ~_RENAME_NOREPLACE:
                self._reply_error(errno.EINVAL)
                return 0
            request.no_replace = bool(flags & _RENAME_NOREPLACE)
            self._buffer[body + 8 : length - 8] = self._buffer[body + 16 : length]
            length -= 8
            struct.pack_into("=II", self._buffer, 0, length, _RENAME)
        return length

    # --- from libfuse ---------------------------------------

    def _send(self, _channel: int, vector: int | None, count: int) -> int:
        if not vector:  # a request without an answer is done
            return 0
        try:
            pairs = (ctypes.c_size_t * (2 * count)).from_address(vector)
            parts: list[bytes | bytearray] = [
                ctypes.string_at(pairs[at], pairs[at + 1]) for at in range(0, 2 * count, 2)
            ]  # fmt: skip
            opcode = self._request.opcode
            if opcode in _MENDED:
                parts = [self._mended(opcode, bytearray(b"".join(parts)))]
            os.writev(self._device, parts)
        except OSError as error:
            return -(error.errno or errno.EIO)
        except Exception:  # noqa: BLE001  # C is waiting
            report()
            return -errno.EIO
        return 0

    def _mended(self, opcode: int, reply: bytearray) -> bytes | bytearray:
        _, error, unique = _OUT_HEADER.unpack_from(reply)
        if unique != self._unique:
            return reply
        if error:
            lost = opcode == _GETATTR and error == -errno.ENOENT
            return self._attributes_by_handle() or reply if lost else reply
        if opcode == _OPEN:
            self._opened(self._node, reply, _OUT_HEADER.size)
            return reply
        if opcode == _INIT:
            return _mended_init(reply, self._buffer)
        valid_at, nanos_at, attributes = (40, 52, 56) if opcode in _ENTRY_REPLIES else (16, 24, 32)
        if opcode == _CREATE:
            (node,) = struct.unpack_from("=Q", reply, _OUT_HEADER.size)
            self._opened(node, reply, _OUT_HEADER.size + 128)
        mode, links = struct.unpack_from("=II", reply, attributes + 60)
        if (links > 1 and not stat.S_ISDIR(mode)) or self._request.shared:
            struct.pack_into("=Q", reply, valid_at, 0)
            struct.pack_into("=I", reply, nanos_at, 0)
            if opcode == _LINK:
                (first,) = struct.unpack_from("=Q", self._buffer, _IN_HEADER.size)
                self._forget_attributes(first)
        return reply

    def _opened(self, node: int, reply: bytearray, at: int) -> None:
        (handle,) = struct.unpack_from("=Q", reply, at)
        self._handles.setdefault(node, []).append(handle)

    def _attributes_by_handle(self) -> bytes | None:
        """Answer for an open file whose name and directory are gone: libfuse has no path for it."""
        handles = self._handles.get(self._node)
        if not handles:
            return None
        facts = fuse.c_stat.from_buffer_copy(self._calls.fgetattr(handles[0]))
        times = (facts.st_atimespec, facts.st_mtimespec, facts.st_ctimespec)
        body = _ATTR_OUT.pack(
            0, 0, 0, facts.st_ino, facts.st_size, facts.st_blocks,
            *(time.tv_sec for time in times), *(time.tv_nsec for time in times),
            facts.st_mode, facts.st_nlink, facts.st_uid, facts.st_gid, facts.st_rdev & 0xFFFFFFFF,
            facts.st_blksize, 0,
        )  # fmt: skip
        return _OUT_HEADER.pack(_OUT_HEADER.size + len(body), 0, self._unique) + body

    def _forget_attributes(self, node: int) -> None:
        size = _INVAL_INODE_OUT.size
        self._write_device([_INVAL_INODE_OUT.pack(size, _NOTIFY_INVAL_INODE, 0, node, -1, 0)])

    # --- fusepy's structure of functions ---------------------------------------

    def _operations(self) -> Any:
        functions = Functions(self._calls)
        operations = fuse.fuse_operations()
        for name, prototype, *_ in fuse.fuse_operations._fields_:
            function = getattr(functions, name, None)
            if function is None:
                continue
            if not hasattr(prototype, "argtypes"):
                setattr(operations, name, function)
                continue
            made = PROTOTYPES.get(name, prototype)(guarded(function))
            self._kept.append(made)
            setattr(operations, name, ctypes.cast(made, prototype))
        return operations


_PREPARED = frozenset({_SETATTR, _MKDIR, _MKNOD, _CREATE, _RELEASE, _RENAME, _RENAME2})
_SEND = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


class _ChannelFunctions(ctypes.Structure):
    """struct fuse_chan_ops of fuse_lowlevel.h, 2.9."""

    _fields_ = [
        ("receive", ctypes.c_void_p),
        ("send", _SEND),
        ("destroy", ctypes.c_void_p),
    ]


def _mended_init(reply: bytearray, request: bytearray) -> bytes:
    """Ask for more than libfuse 2 knows of, as far as the kernel offers it."""
    offered, more = struct.unpack_from("=II", request, _IN_HEADER.size + 12)
    if offered & _INIT_EXT:
        offered |= more << 32
    _, _, unique = _OUT_HEADER.unpack_from(reply)
    major, _, readahead, flags = struct.unpack_from("=IIII", reply, _OUT_HEADER.size)
    (spoken,) = struct.unpack_from("=I", request, _IN_HEADER.size + 4)
    minor = min(spoken, _MINOR)
    flags |= _WANTED & offered
    body = _INIT_OUT.pack(
        major, minor, readahead, flags & 0xFFFFFFFF, 0, 0, _MAX_REQUEST_BYTES, 1,
        _MAX_REQUEST_BYTES // _PAGE_BYTES, 0, flags >> 32,
    )  # fmt: skip
    return _OUT_HEADER.pack(_OUT_HEADER.size + len(body), 0, unique) + body


def _option_words(options: Mapping[str, object]) -> Iterable[str]:
    for name, value in options.items():
        if value is True:
            yield name
        elif value is not False:
            yield f"{name}={value}"


def drop_set_ids(descriptor: int) -> None:
    """Take setuid, and setgid where it is one (group may execute), off an open file."""
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    kept = mode & ~stat.S_ISUID
    if mode & stat.S_IXGRP:
        kept &= ~stat.S_ISGID
    if kept != mode:
        os.fchmod(descriptor, kept)
