"""``system fork-server``: start, look at and stop the process that makes commands start quickly."""

from __future__ import annotations

import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

from ..effects import effect
from ..errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from ..linux.process import describe, identity, send_signal
from .command import Command
from .context import Context
from .flags import Flag, Parsed, switch
from .forkserver import VARIABLE, socket_path

_START_SECONDS = 30.0
_POLL_SECONDS = 0.01
_IDLE_SECONDS = 900


def _fork_server(context: Context, parsed: Parsed) -> None:
    path = _path()
    if parsed.on("stop"):
        _stop(path)
        return
    idle = parsed.number("idle")
    if parsed.on("foreground"):
        from .forkserver.server import main

        main(str(path), str(idle))
        return
    running = _running(path)
    if running is None:
        running = _start(path, str(idle))
    context.print(f"Fork server {running} listens on {path}")


def _path() -> Path:
    path = socket_path()
    if path is None:
        raise FailedPrecondition(
            f"{VARIABLE}=off keeps commands from using a fork server",
            resolution=f"unset {VARIABLE}",
        )
    if not path.startswith("/"):
        raise InvalidArgument(f"{VARIABLE}={path}: expected an absolute path or off")
    return Path(path)


def _running(path: Path) -> int | None:
    """Return the pid of the server that listens on *path*; None if nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        told = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid: int = struct.unpack("3i", told)[0]
    return pid


def _start(path: Path, idle_seconds: str) -> int:
    words = [sys.executable, "-P", "-m", f"{__package__}.forkserver.server", str(path)]
    with effect("fork_server.start", path=path):
        process = subprocess.Popen(
            [*words, idle_seconds],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd="/",
            start_new_session=True,
        )
    deadline = time.monotonic() + _START_SECONDS
    while (running := _running(path)) is None:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            said = process.communicate()[1].decode(errors="replace").splitlines()
            raise Unavailable("the fork server does not start", details=said[-1] if said else "")
        time.sleep(_POLL_SECONDS)
    return running


def _stop(path: Path) -> None:
    pid = _running(path)
    if pid is None:
        raise NotFound("fork server", str(path))
    server = identity(pid)
    send_signal(server, signal.SIGTERM)
    deadline = time.monotonic() + _START_SECONDS
    while server.alive:
        if time.monotonic() > deadline:
            raise Unavailable(f"the fork server does not end: {describe(pid)}")
        time.sleep(_POLL_SECONDS)


def _seconds(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) > 1 << 31:
        raise ValueError("expected a number of seconds, or 0 for ever")
    return int(text)


COMMANDS = {
    "system fork-server": Command(
        "[OPTIONS]",
        _fork_server,
        (
            switch("foreground", "Serve in this process (for a service manager)"),
            Flag(
                "idle",
                "End after so many seconds without a command (0: never)",
                value="seconds",
                default=_IDLE_SECONDS,
                parse=_seconds,
            ),
            switch("stop", "Stop the one that runs"),
        ),
        needs_root=True,
    ),
}
