"""File operations as data: one value is one thing done to a tree, and prints as Python.

A program is a sequence of them. The same values are done to a mounted snapshot
(:meth:`Operation.perform`), to a plain directory, or to the reference model
(:meth:`stowage.testing.conform.model.ModelTree.act`), and the three must agree.

Paths are bytes relative to the root of the tree; ``b""`` is the root itself. No symlink is
followed on the way (ELOOP), so none can lead out of the tree whatever the program.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby

from msgspec import Struct

from ...linux.paths import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2

_BENEATH = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS


class Operation(Struct, frozen=True):
    """One operation on *path*; subclasses say which."""

    path: bytes

    def perform(self, root: int) -> None:
        """Do it beneath the directory that the descriptor *root* stands for.

        Raises:
            OSError: as the kernel or the file system says.
        """
        raise NotImplementedError

    def attempt(self, root: int) -> int:
        """Do it; return the errno it failed with, or 0."""
        try:
            self.perform(root)
        except OSError as error:
            return error.errno or errno.EIO
        return 0

    def __repr__(self) -> str:
        defaults = self.__struct_defaults__
        fields = self.__struct_fields__
        optional = dict(zip(fields[len(fields) - len(defaults) :], defaults, strict=True))
        shown: list[str] = []
        for field in fields:
            value = getattr(self, field)
            if field in optional and optional[field] == value:
                continue
            text = f"0o{value:o}" if field == "mode" else literal(value)
            shown.append(text if not shown else f"{field}={text}")
        return f"{type(self).__name__}({', '.join(shown)})"


def literal(value: object) -> str:
    """Return *value* in Python, long runs of one byte as a product."""
    if not isinstance(value, bytes) or len(value) < 40:
        return repr(value)
    runs = [(bytes([byte]), len(list(group))) for byte, group in groupby(value)]
    if len(runs) > 4:
        return repr(value)
    return " + ".join(f"{byte!r} * {count}" if count > 1 else repr(byte) for byte, count in runs)


class Create(Operation, frozen=True):
    """Make a regular file that must not be there; the mode is exact, whatever the umask."""

    content: bytes = b""
    mode: int = 0o644

    def perform(self, root: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        with _parent(root, self.path) as (parent, name):
            descriptor = os.open(name, flags, 0o600, dir_fd=parent)
        try:
            _write_all(descriptor, self.content, 0)
            os.fchmod(descriptor, self.mode)
        finally:
            os.close(descriptor)


class Write(Operation, frozen=True):
    """Write *content* into a file at *offset*; what lies between its end and there is a hole."""

    content: bytes = b""
    offset: int = 0

    def perform(self, root: int) -> None:
        with _opened(root, self.path, os.O_WRONLY | os.O_NONBLOCK) as descriptor:
            _write_all(descriptor, self.content, self.offset)


class Truncate(Operation, frozen=True):
    """Give a file *size* bytes."""

    size: int = 0

    def perform(self, root: int) -> None:
        with _opened(root, self.path, os.O_WRONLY | os.O_NONBLOCK) as descriptor:
            os.ftruncate(descriptor, self.size)


class Mkdir(Operation, frozen=True):
    """Make a directory of exactly *mode*."""

    mode: int = 0o755

    def perform(self, root: int) -> None:
        with _parent(root, self.path) as (parent, name):
            os.mkdir(name, 0o700, dir_fd=parent)
        _chmod(root, self.path, self.mode)


class Mknod(Operation, frozen=True):
    """Make a fifo, a socket or a device: *mode* holds the type, too."""

    mode: int = stat.S_IFIFO | 0o644
    rdev: int = 0

    def perform(self, root: int) -> None:
        with _parent(root, self.path) as (parent, name):
            os.mknod(name, stat.S_IFMT(self.mode) | 0o600, self.rdev, dir_fd=parent)
        _chmod(root, self.path, stat.S_IMODE(self.mode))


class Symlink(Operation, frozen=True):
    """Make a symbolic link to *target*."""

    target: bytes = b"a"

    def perform(self, root: int) -> None:
        with _parent(root, self.path) as (parent, name):
            os.symlink(self.target, name, dir_fd=parent)


class Link(Operation, frozen=True):
    """Make *path* a further name of *source*, which may be a symlink itself."""

    source: bytes = b"a"

    def perform(self, root: int) -> None:
        with _parent(root, self.source) as (old, source), _parent(root, self.path) as (new, name):
            os.link(source, name, src_dir_fd=old, dst_dir_fd=new, follow_symlinks=False)


class Rename(Operation, frozen=True):
    """Rename *path* to *target*, over what is there."""

    target: bytes = b"a"

    def perform(self, root: int) -> None:
        with _parent(root, self.path) as (old, source), _parent(root, self.target) as (new, name):
            os.rename(source, name, src_dir_fd=old, dst_dir_fd=new)


class Unlink(Operation, frozen=True):
    """Remove a name of anything but a directory."""

    def perform(self, root: int) -> None:
        with _parent(root, self.path) as (parent, name):
            os.unlink(name, dir_fd=parent)


class Rmdir(Operation, frozen=True):
    """Remove an empty directory."""

    def perform(self, root: int) -> None:
        with _parent(root, self.path) as (parent, name):
            os.rmdir(name, dir_fd=parent)


class Chmod(Operation, frozen=True):
    """Change the mode; of a symlink: EOPNOTSUPP, as fchmodat2(2)."""

    mode: int = 0o644

    def perform(self, root: int) -> None:
        _chmod(root, self.path, self.mode)


class Chown(Operation, frozen=True):
    """Change owner and group of what *path* names, a symlink itself included."""

    uid: int = 0
    gid: int = 0

    def perform(self, root: int) -> None:
        with _parent(root, self.path) as (parent, name):
            os.chown(name, self.uid, self.gid, dir_fd=parent, follow_symlinks=False)


class Utime(Operation, frozen=True):
    """Set the time of modification, in nanoseconds since 1970; of a symlink its own."""

    mtime_ns: int = 0

    def perform(self, root: int) -> None:
        with _parent(root, self.path) as (parent, name):
            times = (self.mtime_ns, self.mtime_ns)
            os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)


class SetXattr(Operation, frozen=True):
    """Set an extended attribute, of a symlink its own."""

    name: str = "user.a"
    value: bytes = b""

    def perform(self, root: int) -> None:
        with _named(root, self.path) as magic:
            os.setxattr(magic, self.name, self.value)


class RemoveXattr(Operation, frozen=True):
    """Remove an extended attribute; ENODATA if it is not there."""

    name: str = "user.a"

    def perform(self, root: int) -> None:
        with _named(root, self.path) as magic:
            os.removexattr(magic, self.name)


@contextmanager
def _parent(root: int, path: bytes) -> Iterator[tuple[int, bytes]]:
    directory, _, name = path.rpartition(b"/")
    flags = os.O_PATH | os.O_DIRECTORY
    descriptor = openat2(root, directory or b".", flags, 0, _BENEATH)
    try:
        yield descriptor, name or b"."
    finally:
        os.close(descriptor)


@contextmanager
def _opened(root: int, path: bytes, flags: int) -> Iterator[int]:
    with _parent(root, path) as (parent, name):
        descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))  # never write to a device
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _named(root: int, path: bytes) -> Iterator[str]:
    """Give a path of /proc that stands for exactly this inode, which may be a symlink."""
    with _parent(root, path) as (parent, name):
        flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=parent)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _chmod(root: int, path: bytes, mode: int) -> None:
    with _named(root, path) as magic:
        if stat.S_ISLNK(os.stat(magic).st_mode):  # what kernels before 6.6 allowed on some
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        os.chmod(magic, mode)


def _write_all(descriptor: int, content: bytes, offset: int) -> None:
    while content:
        written = os.pwrite(descriptor, content, offset)
        content, offset = content[written:], offset + written


__all__ = [
    "Chmod",
    "Chown",
    "Create",
    "Link",
    "Mkdir",
    "Mknod",
    "Operation",
    "RemoveXattr",
    "Rename",
    "Rmdir",
    "SetXattr",
    "Symlink",
    "Truncate",
    "Unlink",
    "Utime",
    "Write",
    "literal",
]
