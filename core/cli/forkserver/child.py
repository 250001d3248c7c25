"""The forked process: becomes what the client would have been, runs the command, says how it ended.

What it does not take over: the client's cgroup, OOM score and controlling terminal. The first two
are the server's; the terminal works as a descriptor does, and its signals come by the client.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence

from ...effects import effect
from . import EXITED, GO, NOT_FOR_ME, STARTED
from .likeness import likeness

_REQUEST_SECONDS = 10.0
_MOST_BYTES = 64 << 20


class Request:
    """A request as it came, with its descriptors: the working directory's and the others."""

    def __init__(self, body: bytes, received: Sequence[int]) -> None:
        self.likeness, umask, niceness, errors, numbers, count, *rest = body.split(b"\0")
        self.errors = errors.decode()
        words = int(count) + 1
        self.umask, self.niceness = int(umask), int(niceness)
        self.words = [os.fsdecode(word) for word in rest[:words]]
        self.environment = dict(pair.split(b"=", 1) for pair in rest[words:])
        self.directory, *others = received
        self.descriptors = dict(zip(map(int, numbers.split(b",")), others, strict=True))


def serve_one(connection: socket.socket, learnt: int) -> int:
    """Run one client's command in this process, forked for it; returns its exit code.

    *learnt* is a pipe on which the server is told which modules it should have had.
    """
    connection.settimeout(_REQUEST_SECONDS)
    request = _read(connection)
    if request.likeness != likeness():
        connection.sendall(NOT_FOR_ME)
        return 0
    known = set(sys.modules)
    # before it says that it has started: what fails here is run by the client itself
    connection, learnt = _out_of_the_way(request, connection, learnt)
    _become(request)
    connection.sendall(STARTED + os.getpid().to_bytes(4, "little"))
    if connection.recv(1) != GO:
        return 0
    connection.settimeout(None)
    from ..dispatch import run

    try:
        code = run(request.words[1:])
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001  # as the interpreter would
        sys.excepthook(*sys.exc_info())
        code = 1
    code = _flushed(code)
    _teach(learnt, known)
    connection.sendall(EXITED + bytes([code & 0xFF]))
    return code


def _read(connection: socket.socket) -> Request:
    size_bytes = 4
    read, received = b"", list[int]()
    while len(read) < size_bytes:
        chunk, descriptors, _, _ = socket.recv_fds(connection, 1 << 16, 253)
        if not chunk:
            raise EOFError("the client has gone")
        read += chunk
        received += descriptors
        if len(read) >= 4:
            size_bytes = 4 + int.from_bytes(read[:4], "little")
        if size_bytes > _MOST_BYTES:
            raise ValueError(f"a request of {size_bytes} bytes")
    return Request(read[4:], received)


def _out_of_the_way(
    request: Request, connection: socket.socket, learnt: int
) -> tuple[socket.socket, int]:
    """Give our own descriptors numbers that the client does not use."""
    free = max(request.descriptors) + 1
    moved = fcntl.fcntl(learnt, fcntl.F_DUPFD_CLOEXEC, free)
    with connection:
        again = socket.socket(fileno=fcntl.fcntl(connection, fcntl.F_DUPFD_CLOEXEC, free))
    again.settimeout(_REQUEST_SECONDS)
    os.close(learnt)
    return again, moved


def _become(request: Request) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with effect("fork_server.become"):
        os.fchdir(request.directory)
        os.umask(request.umask)
        if request.niceness != os.getpriority(os.PRIO_PROCESS, 0):
            os.setpriority(os.PRIO_PROCESS, 0, request.niceness)
        _take(request.descriptors, request.directory)
    os.environb.clear()
    os.environb.update(request.environment)
    time.tzset()
    sys.argv = list(request.words)
    with effect("fork_server.streams"):
        _open_streams(request.errors)


def _open_streams(errors: str) -> None:
    """As the interpreter opens them (``sys.stdin``, ``sys.stdout`` and ``sys.stderr``)."""
    lines = 1 if os.isatty(1) else -1
    encoding = sys.stdout.encoding
    sys.stdin = open(0, encoding=encoding, closefd=False)  # noqa: SIM115  # for good
    sys.stdout = open(1, "w", lines, encoding=encoding, errors=errors, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, encoding=encoding, errors="backslashreplace", closefd=False)  # noqa: SIM115


def _take(descriptors: dict[int, int], directory: int) -> None:
    """Give each received descriptor the number that it had in the client."""
    free = max(descriptors) + 1
    parked = {}
    for number, got in descriptors.items():
        parked[number] = fcntl.fcntl(got, fcntl.F_DUPFD_CLOEXEC, free)
    for got in (directory, *descriptors.values()):
        os.close(got)
    for number, one in parked.items():
        os.dup2(one, number, inheritable=True)
        os.close(one)


def _flushed(code: int) -> int:
    """End as the interpreter does: threads, exit functions, buffers."""
    threading._shutdown()  # type: ignore[attr-defined]  # as multiprocessing does after a fork
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = code or 120  # what Python itself exits with
    return code


def _teach(learnt: int, known: set[str]) -> None:
    """Tell the server what this command had to import."""
    names = [name for name in sys.modules if name not in known and name != "__main__"]
    text = "".join(f"{name}\n" for name in names).encode()[:4096].rpartition(b"\n")[0]
    if text:
        try:
            os.write(learnt, text + b"\n")  # at most PIPE_BUF: whole or not at all
        except OSError:
            pass  # full, or the server has ended
