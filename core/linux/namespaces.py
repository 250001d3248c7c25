"""Namespaces: unshare(2) and setns(2), only ever on a thread made for that and thrown away.

Both change the calling *thread*, so no pool thread and no event loop may call them: use
:func:`on_throwaway_thread`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TypeVar

from ..effects import effectful
from .syscalls import check, libc

R = TypeVar("R")

CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000


def on_throwaway_thread(function: Callable[[], R]) -> R:
    """Run *function* on a new thread and return its result or raise its exception.

    The thread's namespaces, working directory (after ``unshare(CLONE_FS)``) and so on go with it.
    """
    result: list[R] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(function())
        except BaseException as error:  # noqa: BLE001  # raised again in the caller's thread
            failure.append(error)

    thread = threading.Thread(target=run, name="stowage-namespace", daemon=True)
    thread.start()
    thread.join()
    if failure:
        try:
            raise failure[0]
        finally:
            failure.clear()
    return result[0]


@effectful("namespace.unshare")
def unshare(flags: int) -> None:
    """Give the calling thread namespaces of its own (CLONE_NEW*); see unshare(2)."""
    check(libc.unshare(flags), "unshare")


@effectful("namespace.enter")
def setns(descriptor: int, kind: int = 0) -> None:
    """Move the calling thread into the namespace behind *descriptor*; see setns(2).

    For a mount namespace the thread must have unshared CLONE_FS first.
    """
    check(libc.setns(descriptor, kind), "setns")


def open_namespace(kind: str) -> int:
    """Return a descriptor of the calling thread's namespace (``"mnt"``, ``"net"``, …)."""
    return os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)


def new_network_namespace() -> int:
    """Make a network namespace with ``lo`` up and return its descriptor (0.5 ms, no fork)."""

    def run() -> int:
        unshare(CLONE_NEWNET)
        loopback_up()
        return open_namespace("net")

    return on_throwaway_thread(run)


def in_network_namespace(descriptor: int, function: Callable[[], R]) -> R:
    """Run *function* on a throw-away thread inside the network namespace *descriptor*."""

    def run() -> R:
        setns(descriptor, CLONE_NEWNET)
        return function()

    return on_throwaway_thread(run)


def in_mount_namespace(descriptor: int, function: Callable[[], R]) -> R:
    """Run *function* on a throw-away thread inside the mount namespace *descriptor*.

    Its ``/`` is the namespace's own root, even if ours is a chroot.
    """

    def run() -> R:
        unshare(CLONE_FS)
        setns(descriptor, CLONE_NEWNS)
        return function()

    return on_throwaway_thread(run)


@effectful("link.loopback_up")
def loopback_up() -> None:
    """Set the link ``lo`` of the calling thread's network namespace up (netdevice(7))."""
    import fcntl
    import socket
    import struct

    siocgifflags, siocsifflags, iff_up = 0x8913, 0x8914, 0x1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 0)
        (flags,) = struct.unpack_from("h", fcntl.ioctl(control, siocgifflags, request), 16)
        fcntl.ioctl(control, siocsifflags, struct.pack("16sh14x", b"lo", flags | iff_up))


def network_cookie(descriptor: int | None = None) -> int:
    """Return the SO_NETNS_COOKIE of a network namespace (Linux 5.14), or of the caller's own.

    Unlike an inode number it is never used again until the next boot.
    """

    def run() -> int:
        import socket

        so_netns_cookie = 71
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as any_socket:
            raw = any_socket.getsockopt(socket.SOL_SOCKET, so_netns_cookie, 8)
        return int.from_bytes(raw, "little")

    return run() if descriptor is None else in_network_namespace(descriptor, run)
