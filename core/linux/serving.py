"""Starting a FUSE server: a process of its own that ends with the last reference to its mount.

::

    <directory>/server.log             what servers of this directory said
    <directory>/server-<pid>-<start>   one that serves now (or was killed: see take_fallen)

The server (:mod:`.fuse_server`) is a fresh interpreter, a session leader that nobody waits for,
with no descriptor but those that it was given. In a mount namespace of its own it mounts, clones
the mount, drops its own and sends the clone here. From then on the kernel counts references: when
the last one is closed, whoever held it and however it ended, the server ends milliseconds later.
A server that dies leaves a mount on which everything fails with ENOTCONN and nothing hangs; it
is unmounted like any other, and another server can serve the same directory at once.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from .. import errors
from ..effects import effect
from ..errors import StowageError, Unavailable
from .process import ProcessIdentity, boot_id

LOG_NAME, MARK_PREFIX = "server.log", "server-"
_START_SECONDS = 60.0  # of a loaded machine; a good start takes a twentieth of a second
_MESSAGE_BYTES = 1 << 16
_LIBRARY = "libfuse.so.2"
_TOLD_LINES = 5


class Service(Struct, frozen=True):
    """What is to be served, by whom and where.

    *entry* is ``"package.module:function"``. The function is called in the server with
    *arguments* (anything that JSON can say) and the numbers of *descriptors*, and returns a
    :class:`~.fuse_server.FileSystem`. Paths can be opened in it and before it, not later: the
    server then leaves for a file system of its own, where nothing can be imported either.
    *name* is for messages and ``ps``; *directory* exists.
    """

    name: str
    entry: str
    directory: Path
    arguments: Mapping[str, object] = {}
    descriptors: Sequence[int] = ()


def start(service: Service) -> int:
    """Start the server and return a descriptor of its detached mount (O_PATH, close-on-exec).

    The mount is gone, and the server with it, once that and all that was made of it are closed
    and unmounted. Killed at any point, neither side leaves a mount or a process.

    Raises:
        StowageError: what the function raised in the server, in its class.
        Unavailable: if the server ended, or did not answer in time; says what it logged.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs, effect("server.start", service=service.name):
            _spawn(service, theirs.fileno())
        return _receive(service, ours)


def _spawn(service: Service, to_us: int) -> None:
    """Run the program, which forks at once: what we started has ended, the server is nobody's."""
    wish = {
        "entry": service.entry,
        "arguments": dict(service.arguments),
        "descriptors": list(service.descriptors),
        "directory": str(service.directory),
        "socket": to_us,
    }
    # -P: what lies in the working directory is not imported
    words = [
        sys.executable, "-P", "-m", "stowage.linux.fuse_server", service.name, json.dumps(wish)
    ]  # fmt: skip
    # fusepy would run ldconfig to find it, which takes as long as all the rest
    environment = {"FUSE_LIBRARY_PATH": _LIBRARY, **os.environ}
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    log = os.open(service.directory / LOG_NAME, flags, 0o600)
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=environment,
            pass_fds=(to_us, *service.descriptors),
        )
    finally:
        os.close(log)
    process.wait()


def _receive(service: Service, ours: socket.socket) -> int:
    failed = f"The server of {service.name} did not start"
    poller = select.poll()
    poller.register(ours, select.POLLIN)
    if not poller.poll(_START_SECONDS * 1000):
        raise Unavailable(failed, details=f"it did not answer within {_START_SECONDS:g} seconds")
    # without MSG_CMSG_CLOEXEC a process that another thread starts just now would inherit it
    message, descriptors, _, _ = socket.recv_fds(
        ours, _MESSAGE_BYTES, 1, flags=socket.MSG_CMSG_CLOEXEC
    )
    if descriptors:
        return descriptors[0]
    if message:
        raise _as_error(json.loads(message))
    details = "\n".join(last_words(service.directory)) or "it ended without a word"
    raise Unavailable(failed, details=details)


def _as_error(told: Mapping[str, str | None]) -> StowageError:
    kind: type[StowageError] = getattr(errors, told["class"] or "", Unavailable)
    if kind.__init__ is not StowageError.__init__:  # it has facts of its own that were not told
        kind = StowageError
    return kind(told["brief"] or "", details=told["details"], resolution=told["resolution"])


def last_words(directory: Path, count: int = _TOLD_LINES) -> Sequence[str]:
    """Return the last lines that servers of *directory* have logged."""
    try:
        text = (directory / LOG_NAME).read_text(errors="replace")
    except FileNotFoundError:
        return ()
    return text.splitlines()[-count:]


def servers(directory: Path) -> Sequence[ProcessIdentity]:
    """Return the servers of *directory* that live now."""
    return [process for _, process in _marked(directory) if process.alive]


def take_fallen(directory: Path) -> Sequence[str]:
    """Return a sentence for each server of *directory* that was killed or crashed; once for each.

    Who still holds its mount meets ENOTCONN.
    """
    told = []
    for mark, process in _marked(directory):
        if process.alive:
            continue
        when = "before this boot" if process.boot_id != boot_id() else f"after {_age(mark)}"
        told.append(f"the server with process number {process.pid} ended {when} while in use")
        with effect("server.forget", path=mark):
            mark.unlink(missing_ok=True)
    return told


def wait_ended(directory: Path, timeout_seconds: float) -> bool:
    """Wait until no server of *directory* lives; False if one does after that time."""
    deadline = time.monotonic() + timeout_seconds
    while servers(directory):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def _marked(directory: Path) -> Sequence[tuple[Path, ProcessIdentity]]:
    found = []
    for mark in directory.glob(f"{MARK_PREFIX}*"):
        pid, _, started = mark.name.removeprefix(MARK_PREFIX).partition("-")
        with suppress(FileNotFoundError, ValueError):  # gone meanwhile; or not a mark of ours
            found.append((mark, ProcessIdentity(int(pid), int(started), mark.read_text())))
    return found


def _age(mark: Path) -> str:
    with suppress(FileNotFoundError):
        return f"{max(0.0, time.time() - mark.stat().st_mtime):.0f} s at most"
    return "some time"
