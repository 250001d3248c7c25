"""Mounts by descriptor: the new mount API (Linux 5.2 and later), and mount(2) where it must be.

A *detached* mount belongs to no mount table: it is reached through its descriptor alone and is
gone when the last descriptor is closed. Sources: fsopen(2), fsconfig(2), fsmount(2),
open_tree(2), move_mount(2), mount_setattr(2), mount(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..effects import effectful
from ..errors import NotSupported
from .namespaces import CLONE_FS, CLONE_NEWNS, on_throwaway_thread, setns, unshare
from .syscalls import (
    FSCONFIG,
    FSMOUNT,
    FSOPEN,
    MOUNT_SETATTR,
    MOVE_MOUNT,
    OPEN_TREE,
    check,
    libc,
    syscall,
)

if TYPE_CHECKING:  # a server that mounts by itself needs neither, and starts in less time
    from pathlib import Path

    from ..model import DirectoryOption, Mount

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE, MS_SLAVE, MS_SHARED = (
    4096,
    8192,
    16384,
    1 << 18,
    1 << 19,
    1 << 20,
)
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8

_AT_EMPTY_PATH, _AT_RECURSIVE, _AT_FDCWD = 0x1000, 0x8000, -100
_AT_SYMLINK_NOFOLLOW = 0x100
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
_FSOPEN_CLOEXEC, _FSMOUNT_CLOEXEC = 1, 1
_SET_FLAG, _SET_STRING, _SET_FD, _CMD_CREATE = 0, 1, 5, 6
_MOVE_MOUNT_F_EMPTY_PATH, _MOVE_MOUNT_T_EMPTY_PATH = 0x04, 0x40
_ATTRS = {"ro": 0x1, "nosuid": 0x2, "nodev": 0x4, "noexec": 0x8}
_BUSY_PAUSES = (0.001, 0.004, 0.015, 0.03)
_STRING_LIMIT = 255  # fsconfig(2): a longer string is EINVAL


class _MountAttr(ctypes.Structure):
    _fields_ = [
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    ]


def attach(mount: Mount, *, read_only: bool = False) -> int:
    """Make *mount* as a detached mount and return a descriptor of its root (close-on-exec).

    With *read_only* the mount is read-only whatever its options say. ``ro``, ``nosuid``,
    ``nodev`` and ``noexec`` become attributes of the mount; for ``bind`` these and ``rbind``
    are the only options.

    Raises:
        OSError: what the kernel said; for fsconfig its own log is part of the message.
    """
    flags = [option for option in mount.options if isinstance(option, str) and option in _ATTRS]
    attrs = 0
    for flag in flags:
        attrs |= _ATTRS[flag]
    if read_only:
        attrs |= _ATTRS["ro"]
    if mount.type == "bind":
        descriptor = clone_tree(mount.source, recursive="rbind" in mount.options)
        if attrs:
            _or_close(descriptor, lambda: set_attributes(descriptor, attrs))
        return descriptor
    if mount.monolithic:
        return _attach_monolithic(mount, attrs)
    if mount.directory is not None:
        return on_throwaway_thread(lambda: _attach_beneath(mount, attrs))
    return _attach_new(mount, attrs)


def _or_close(descriptor: int, step: Callable[[], object]) -> None:
    try:
        step()
    except BaseException:
        os.close(descriptor)
        raise


def _attach_beneath(mount: Mount, attrs: int) -> int:
    assert mount.directory is not None
    unshare(CLONE_FS)
    os.chdir(mount.directory)
    return _attach_new(mount, attrs)


@effectful("mount.attach")
def _attach_new(mount: Mount, attrs: int) -> int:
    context = syscall(FSOPEN, "fsopen", mount.type.encode(), _FSOPEN_CLOEXEC, path=mount.type)
    try:
        _configure(context, "source", mount.source)
        for option in mount.options:
            if not isinstance(option, str):
                _configure_directory(context, option)
            elif option not in _ATTRS:
                key, equals, value = option.partition("=")
                _configure(context, key, value if equals else None)
        if "ro" in mount.options:
            _configure(context, "ro", None)
        _fsconfig(context, _CMD_CREATE, None, None, 0, mount.type)
        return syscall(FSMOUNT, "fsmount", context, _FSMOUNT_CLOEXEC, attrs, path=mount.type)
    finally:
        os.close(context)


def _configure(context: int, key: str, value: str | None) -> None:
    if value is None:
        _fsconfig(context, _SET_FLAG, key, None, 0, key)
        return
    raw = os.fsencode(value)
    if len(raw) > _STRING_LIMIT:
        raise OSError(errno.EINVAL, f"mount option {key} is longer than {_STRING_LIMIT} bytes")
    _fsconfig(context, _SET_STRING, key, raw, 0, f"{key}={value}")


def _configure_directory(context: int, option: DirectoryOption) -> None:
    directory = os.open(option.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _fsconfig(context, _SET_FD, option.key, None, directory, f"{option.key}={option.path}")
    finally:
        os.close(directory)


def _fsconfig(
    context: int, command: int, key: str | None, value: bytes | None, aux: int, shown: str
) -> None:
    try:
        syscall(FSCONFIG, "fsconfig", context, command, key.encode() if key else None, value, aux)
    except OSError as error:
        log = _kernel_log(context)
        raise OSError(error.errno, f"{shown}: {log or os.strerror(error.errno or 0)}") from None


def _kernel_log(context: int) -> str:
    lines = []
    while True:
        try:
            lines.append(os.read(context, 1024).decode(errors="replace").strip())
        except OSError:  # ENODATA: the log is empty
            return "; ".join(lines)


@effectful("mount.attach")
def _attach_monolithic(mount: Mount, attrs: int) -> int:
    """mount(2) in a namespace of its own, on top of any directory, then open_tree(2)."""

    def run() -> int:
        unshare(CLONE_NEWNS)
        set_propagation("/", MS_REC | MS_PRIVATE)
        target = os.fspath(mount.directory or "/dev")
        os.chdir(target)
        data = ",".join(_monolithic_options(mount))
        syscall_mount(mount.source, target, mount.type, attrs_to_flags(attrs), data)
        descriptor = clone_tree(target)
        # The thread's namespace ends some time after the thread; what it held until then would
        # keep an upper directory in use.
        _or_close(descriptor, lambda: unmount(target, lazy=True))
        return descriptor

    return on_throwaway_thread(run)


def _monolithic_options(mount: Mount) -> list[str]:
    return [
        option if isinstance(option, str) else f"{option.key}={option.path}"
        for option in mount.options
        if not isinstance(option, str) or option not in _ATTRS
    ]


def attrs_to_flags(attrs: int) -> int:
    """Return the MS_* flags of mount(2) for MOUNT_ATTR_* of fsmount(2) (the same low bits)."""
    return attrs & (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)


def attach_all(mounts: Sequence[Mount], *, read_only: bool = False) -> int:
    """Make the one mount of a snapshot as :func:`attach` does.

    EBUSY is tried again for some milliseconds: a process that another thread forks holds copies
    of all descriptors until its exec, and so for that moment a mount that was just given up.

    Raises:
        NotSupported: if there is none, or more than one: what needs several is put together by
            its driver, in ``storage_attach``.
    """
    if len(mounts) != 1:
        raise NotSupported(f"a snapshot is shown by one mount, not by {len(mounts)}")
    for pause_seconds in _BUSY_PAUSES:
        try:
            return attach(mounts[0], read_only=read_only)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
        time.sleep(pause_seconds)
    return attach(mounts[0], read_only=read_only)


@effectful("mount.clone")
def clone_tree(
    path: str | os.PathLike[str], *, dirfd: int = _AT_FDCWD, recursive: bool = False
) -> int:
    """Return a descriptor of a detached copy of the mount at *path* (a bind mount).

    Only the part of the mount beneath *path* is in it; with *recursive*, what is mounted below
    as well. ``path=""`` means the file that *dirfd* refers to (not an O_PATH root: open ``.``
    beneath it first).
    """
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC
    if recursive:
        flags |= _AT_RECURSIVE
    raw = os.fsencode(path)
    if not raw:
        flags |= _AT_EMPTY_PATH
    return syscall(OPEN_TREE, "open_tree", dirfd, raw, flags, path=raw)


@effectful("mount.set_attributes")
def set_attributes(
    descriptor: int,
    set_bits: int,
    clear_bits: int = 0,
    *,
    propagation: int = 0,
    recursive: bool = False,
) -> None:
    """Change attributes (MOUNT_ATTR_*) and propagation (MS_*) of the mount behind *descriptor*."""
    attr = _MountAttr(set_bits, clear_bits, propagation, 0)
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    syscall(
        MOUNT_SETATTR,
        "mount_setattr",
        descriptor,
        b"",
        flags,
        ctypes.byref(attr),
        ctypes.sizeof(attr),
    )


def make_read_only(descriptor: int, *, recursive: bool = False) -> None:
    """Make the mount behind *descriptor* read-only; writing through it is EROFS."""
    set_attributes(descriptor, _ATTRS["ro"], recursive=recursive)


@effectful("mount.move")
def move(descriptor: int, target: str | os.PathLike[str], *, dirfd: int = _AT_FDCWD) -> None:
    """Attach the detached mount behind *descriptor* at *target* of this mount namespace."""
    raw = os.fsencode(target)
    flags = _MOVE_MOUNT_F_EMPTY_PATH
    if not raw:
        flags |= _MOVE_MOUNT_T_EMPTY_PATH
    syscall(MOVE_MOUNT, "move_mount", descriptor, b"", dirfd, raw, flags, path=raw)


@effectful("mount.unmount")
def unmount(path: str | os.PathLike[str], *, lazy: bool = False) -> None:
    """Unmount *path*; *lazy* detaches it at once and lets the last user end it (MNT_DETACH)."""
    raw = os.fsencode(path)
    flags = UMOUNT_NOFOLLOW | (MNT_DETACH if lazy else 0)
    check(libc.umount2(raw, flags), "umount", raw)


@effectful("mount.mount")
def syscall_mount(
    source: str, target: str | os.PathLike[str], kind: str, flags: int, data: str = ""
) -> None:
    """mount(2) itself, for what the new API is not needed for (tmpfs, proc, propagation)."""
    raw = os.fsencode(target)
    check(
        libc.mount(
            os.fsencode(source),
            raw,
            kind.encode() or None,
            ctypes.c_ulong(flags),
            os.fsencode(data) or None,
        ),
        "mount",
        raw,
    )


def set_propagation(path: str, flags: int) -> None:
    """Set the propagation of the mount at *path* (MS_PRIVATE, MS_SLAVE, MS_SHARED, MS_REC)."""
    syscall_mount("none", path, "", flags)


def enter_own_namespace() -> None:
    """Give the calling thread a mount namespace of its own, a slave of the host's, on our ``/``.

    Only on a throw-away thread; its working directory is ``/`` then. In a chroot the namespace's
    root becomes the chroot's: setns(2), and so whatever is executed in a container later, goes
    to a namespace's own root, which would be the machine's.
    """
    unshare(CLONE_NEWNS)
    opened = [os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
    try:
        for path in ("/proc/thread-self/ns/mnt", "/proc/thread-self/fdinfo"):
            opened.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        ours, namespace, facts = opened
        setns(namespace, CLONE_NEWNS)
        opened.append(os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        set_propagation("/", MS_REC | MS_SLAVE)
        if _place(facts, ours) != _place(facts, opened[-1]):
            _pivot_to(ours)
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _place(facts: int, descriptor: int) -> tuple[int, int, str]:
    """Which file on which mount a descriptor means; *facts* is the thread's fdinfo directory."""
    with open(os.open(str(descriptor), os.O_RDONLY | os.O_CLOEXEC, dir_fd=facts)) as file:
        (mount_id,) = (line for line in file if line.startswith("mnt_id:"))
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino, mount_id


@effectful("mount.pivot")
def _pivot_to(directory: int) -> None:
    """Make *directory*, with all that is mounted below it, the root of this mount namespace.

    The last three calls are pivot_root(2)'s own recipe.
    """
    clone = clone_tree("", dirfd=directory, recursive=True)
    try:
        move(clone, "", dirfd=directory)
        os.fchdir(clone)
    finally:
        os.close(clone)
    check(libc.pivot_root(b".", b"."), "pivot_root")
    unmount(".", lazy=True)
    os.chdir("/")


def mounted_at(directory: Path) -> bool:
    """Tell whether something is mounted on *directory* itself in this mount namespace."""
    try:
        here, above = os.stat(directory), os.stat(directory.parent)
    except FileNotFoundError:
        return False
    if here.st_dev != above.st_dev:
        return True
    from .mountinfo import read_mountinfo

    return any(entry.target == str(directory) for entry in read_mountinfo())
