"""The process of a FUSE server, ``python -m stowage.linux.fuse_server``; see :mod:`.serving`.

Start-up is what each attach of a snapshot costs, so next to nothing is imported here.

It leaves the host's files for a tmpfs with ``/proc`` and ``/dev/fuse`` alone: its namespace must
not keep alive what is unmounted on the host, and no path that a file system's names make up leads
anywhere.
"""

from __future__ import annotations

import encodings.latin_1  # noqa: F401  # nothing can be imported later
import json
import os
import resource
import signal
import socket
import stat
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from ..effects import effectful, observe
from ..errors import NotSupported, StowageError, from_os_error
from .mount import (
    MS_BIND,
    MS_NOEXEC,
    MS_NOSUID,
    MS_REC,
    MS_SLAVE,
    clone_tree,
    set_propagation,
    syscall_mount,
    unmount,
)
from .namespaces import CLONE_NEWNS, setns, unshare
from .pids import boot_id, start_time
from .syscalls import check, libc

MOUNT_POINT = "/mnt"
_CELL = "/dev"  # where the tmpfs is mounted before it becomes /


class FileSystem(NamedTuple):
    """What a service's function returns: operations and how they are mounted.

    *operations* are those of fusepy or, with *exact*, the :class:`~.fuse_calls.Calls` of a
    session that caches exactly and serves on one thread. *options* are libfuse's
    (``{"attr_timeout": 1}``). fusepy's operations are called by several threads at once only with
    *threads*. *on_mounted* is called when the mount has been handed over, on the thread that
    serves.
    """

    operations: Any
    options: Mapping[str, object]
    exact: bool = False
    threads: bool = False
    on_mounted: Callable[[], None] | None = None
    encoding: str = "latin-1"


Function = Callable[[Mapping[str, Any], Sequence[int]], FileSystem]


def main() -> None:
    """Become the server; the process that was started ends at once."""
    name, wish = sys.argv[1], json.loads(sys.argv[2])
    if os.fork():
        os._exit(0)
    os.setsid()
    os.umask(0)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _raise_limits()
    _name_observers()
    with socket.socket(fileno=wish["socket"]) as requester:
        requester.set_inheritable(False)
        directory = os.open(wish["directory"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        mark = f"server-{os.getpid()}-{start_time(os.getpid())}"
        try:
            _write_mark(directory, mark)
            _serve(name, wish, requester)
        except BaseException as error:  # noqa: BLE001  # told to who asked
            traceback.print_exc(file=sys.stderr)
            log(f"{name}: {type(error).__name__}: {error}")
            _tell(requester, _described(name, error))
        finally:
            _remove_mark(directory, mark)
    sys.stderr.flush()
    os._exit(0)  # who unmounts the file system beneath just now need not wait for Python's end


def fusepy() -> Any:
    """Return the module ``fuse`` of fusepy.

    Raises:
        NotSupported: if it, or the library that it needs, is not installed; says how to get it.
    """
    brief = "FUSE cannot be served on this machine"
    try:
        import fuse
    except ImportError as error:
        raise NotSupported(
            brief,
            details=f"fusepy is not installed: {error}",
            resolution="pip install 'stowage[fuse]'",
        ) from error
    except OSError as error:  # of ctypes
        raise NotSupported(
            brief, details=f"libfuse 2 is not installed: {error}", resolution="apt install libfuse2"
        ) from error
    return fuse


def log(text: str) -> None:
    """Say something in the server's log."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())  # local time would read a file
    print(f"{now} [{os.getpid()}] {text}", file=sys.stderr, flush=True)


def _name_observers() -> None:
    """Let the observers that the environment names see our effects (docs: ``--trace``)."""
    names = [name.strip() for name in os.environ.get("STOWAGE_OBSERVERS", "").split(",")]
    if not any(names):
        return
    from importlib.metadata import entry_points

    for entry in entry_points(group="stowage.observers"):
        around = getattr(entry.load()(), "observer_effect", None) if entry.name in names else None
        if around is not None:
            observe(around)


def _raise_limits() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@effectful("server.mark")
def _write_mark(directory: int, mark: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    descriptor = os.open(mark, flags, 0o600, dir_fd=directory)
    try:
        os.write(descriptor, boot_id().encode())
    finally:
        os.close(descriptor)


@effectful("server.unmark")
def _remove_mark(directory: int, mark: str) -> None:
    try:
        os.unlink(mark, dir_fd=directory)
    except FileNotFoundError:  # the snapshot was removed
        pass


def _serve(name: str, wish: Mapping[str, Any], requester: socket.socket) -> None:
    library = fusepy()
    module, _, function_name = wish["entry"].partition(":")
    function: Function = getattr(import_module(module), function_name)
    filesystem = function(wish["arguments"], wish["descriptors"])
    serve = _prepare_exact(filesystem) if filesystem.exact else _prepare(filesystem, library)
    _enter_cell()

    def hand_over() -> None:
        clone = clone_tree(MOUNT_POINT)
        try:
            unmount(MOUNT_POINT, lazy=True)
            socket.send_fds(requester, [b"mounted"], [clone])
        except OSError as error:  # who asked is gone: so is the mount, and with it this process
            log(f"{name}: nobody took the mount: {error}")
        finally:
            os.close(clone)
        requester.close()
        if filesystem.on_mounted is not None:
            filesystem.on_mounted()

    try:
        serve(hand_over)
    except RuntimeError as error:  # of fusepy
        raise StowageError(
            f"libfuse cannot mount {name}", details=f"options: {dict(filesystem.options)}"
        ) from error


def _prepare_exact(filesystem: FileSystem) -> Callable[[Callable[[], None]], None]:
    from .fuse_session import Session

    session = Session(filesystem.operations, filesystem.options)

    def serve(hand_over: Callable[[], None]) -> None:
        session.mount(MOUNT_POINT)
        hand_over()
        session.run()

    return serve


def _prepare(filesystem: FileSystem, library: Any) -> Callable[[Callable[[], None]], None]:
    options = {"allow_other": True, "nonempty": True, **filesystem.options}

    def serve(hand_over: Callable[[], None]) -> None:
        library.FUSE(
            _Operations(filesystem.operations, hand_over),
            MOUNT_POINT,
            foreground=True,
            nothreads=not filesystem.threads,
            encoding=filesystem.encoding,
            raw_fi=getattr(filesystem.operations, "raw_fi", False),
            **options,
        )

    return serve


class _Operations:
    """Stands before a file system's operations and hands the mount over when it is there.

    fusepy looks for attributes with the names of operations, and calls this object with a name.
    """

    def __init__(self, operations: Any, mounted: Callable[[], None]) -> None:
        self._operations = operations
        self._mounted = mounted

    def __getattr__(self, name: str) -> Any:
        return getattr(self._operations, name)

    def __call__(self, name: str, *arguments: Any) -> Any:
        return getattr(self, name)(*arguments)

    def init(self, path: str) -> None:
        """Called once, by the kernel's first request: the mount is there."""
        self._mounted()


def _enter_cell() -> None:
    """Make a tmpfs that holds only what libfuse needs the root of a mount namespace of our own."""
    device = os.stat("/dev/fuse")
    unshare(CLONE_NEWNS)
    own = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(own, CLONE_NEWNS)  # to the namespace's own root, if ours was a chroot
    finally:
        os.close(own)
    set_propagation("/", MS_REC | MS_SLAVE)
    syscall_mount("tmpfs", _CELL, "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=0700,size=64k")
    _furnish(device.st_rdev)
    syscall_mount("/proc", f"{_CELL}/proc", "", MS_BIND)
    os.chdir(_CELL)
    _pivot()


@effectful("server.furnish")
def _furnish(device: int) -> None:
    for name in ("dev", "proc", MOUNT_POINT.lstrip("/")):
        os.mkdir(f"{_CELL}/{name}", 0o700)
    os.mknod(f"{_CELL}/dev/fuse", stat.S_IFCHR | 0o600, device)


@effectful("server.pivot")
def _pivot() -> None:
    """pivot_root(2)'s own recipe for leaving the old root without a place to put it."""
    check(libc.pivot_root(b".", b"."), "pivot_root")
    unmount(".", lazy=True)
    os.chdir("/")


def _described(name: str, error: BaseException) -> dict[str, str | None]:
    if isinstance(error, OSError):
        error = from_os_error(error, f"The server of {name} cannot start")
    if isinstance(error, StowageError):
        return {
            "class": type(error).__name__,
            "brief": error.brief,
            "details": error.details,
            "resolution": error.resolution,
        }
    return {
        "class": "DriverFailed",
        "brief": f"The server of {name} failed",
        "details": f"{type(error).__name__}: {error}",
        "resolution": None,
    }


def _tell(requester: socket.socket, message: Mapping[str, str | None]) -> None:
    try:
        requester.send(json.dumps(message).encode())
    except OSError:  # it has the mount already, or is gone
        pass


if __name__ == "__main__":
    main()
