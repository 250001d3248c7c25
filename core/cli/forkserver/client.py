"""The side of the command line: hand it over, pass signals on, and end as it ended.

Imports as little as it can, for that is what it is for.
"""

from __future__ import annotations

import _socket
import os
import signal
import sys
from collections.abc import Sequence

from . import EXITED, GO, KILLED, STARTED, socket_path
from .request import Unfit, inherited, pack

_ANSWER_SECONDS = 10.0
_PASSED_ON = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH")
#: Would make the child's interpreter another one than ours.
_INTERPRETERS = "PYTHON"
_HARMLESS = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")


def through_server(arguments: Sequence[str]) -> int | None:
    """Have the fork server run a command line and return its exit code (128+n if signal n killed
    it); None if there is none that would do the same as this process, and nothing was run."""
    path = socket_path()
    if path is None or not os.path.exists(path) or _is_special():
        return None
    try:
        server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            server.settimeout(_ANSWER_SECONDS)
            server.connect(path)
            pid = _ask(server, arguments) if _is_ours(server) else None
            if pid is None:
                return None
            return _accompany(server, pid)
        finally:
            server.close()
    except (OSError, Unfit):
        return None  # it has not been told to go


def _is_special() -> bool:
    if sys.warnoptions or sys._xoptions or sys.gettrace() or sys.getprofile():
        return True
    return any(n.startswith(_INTERPRETERS) and n not in _HARMLESS for n in os.environ)


def _is_ours(server: _socket.socket) -> bool:
    """Whether who listens is the same user: another one would learn our environment."""
    told = server.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)  # struct ucred
    return int.from_bytes(told[4:8], sys.byteorder) == os.geteuid()


def _ask(server: _socket.socket, arguments: Sequence[str]) -> int | None:
    """Return the pid of the process that is ready to run it."""
    descriptors = inherited()
    request = pack(arguments, descriptors)
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        numbers = b"".join(n.to_bytes(4, sys.byteorder) for n in (here, *descriptors))
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, numbers)]
        sent = server.sendmsg([request], rights)
        while sent < len(request):
            sent += server.send(request[sent:])
    finally:
        os.close(here)
    if _exactly(server, 1) != STARTED:  # not for it, or it was killed before it began
        return None
    return int.from_bytes(_exactly(server, 4), "little")


def _accompany(server: _socket.socket, pid: int) -> int:
    """Let it run, pass on what it is told, and return how it ended."""
    process = os.pidfd_open(pid)
    try:
        _pass_signals_on(process)
        server.settimeout(None)
        server.sendall(GO)
        try:
            how = _exactly(server, 2)
        except OSError:
            how = b""
    finally:
        os.close(process)
    if how[:1] == EXITED:
        return how[1]
    return _die(how[1] if how[:1] == KILLED else signal.SIGKILL)


def _die(number: int) -> int:
    """End as the child did, by a signal."""
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number


def _pass_signals_on(process: int) -> None:
    def told(number: int, frame: object) -> None:
        try:
            if number == signal.SIGTSTP:
                signal.pidfd_send_signal(process, signal.SIGSTOP)
                os.kill(os.getpid(), signal.SIGSTOP)
                signal.pidfd_send_signal(process, signal.SIGCONT)
            else:
                signal.pidfd_send_signal(process, number)
        except ProcessLookupError:
            pass  # it has ended, and we shall know in a moment

    for number in (*(getattr(signal, name) for name in _PASSED_ON), signal.SIGTSTP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, told)


def _exactly(server: _socket.socket, size: int) -> bytes:
    """Read *size* bytes, or what comes before the end."""
    read = b""
    while len(read) < size and (chunk := server.recv(size - len(read))):
        read += chunk
    return read
