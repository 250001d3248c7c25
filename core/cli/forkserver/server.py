"""The server itself: ``python -m stowage.cli.forkserver.server SOCKET IDLE-SECONDS``.

One thread that waits for clients and for the ends of its children. It starts with what every
command needs and learns from each child what that one had to import besides, so it is as large as
what is used. When the code on disk has changed it starts itself anew.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from ...effects import effect
from ...errors import AlreadyExists
from ...plugins import discover
from ...store.locks import Lease, Locks
from . import KILLED, NOT_FOR_ME
from .child import serve_one

#: What every command imports.
_FIRST = ("stowage.cli.dispatch", "stowage.engine", "stowage.cli.finished")
_WAITING_CLIENTS = 128


class _Child(NamedTuple):
    pid: int
    connection: socket.socket


class Server:
    """Listens on *path* until :meth:`serve` has had nothing to do for *idle_seconds* (0: for
    ever); *listening* is a descriptor that does so already.

    Raises:
        AlreadyExists: if another one listens there.
    """

    def __init__(self, path: Path, idle_seconds: float = 0, listening: int | None = None) -> None:
        self.path = path
        self._idle_seconds = idle_seconds
        self._lease = _only_one(path)
        self._listener = _listen(path) if listening is None else socket.socket(fileno=listening)
        self._listener.set_inheritable(False)
        self._learnt, self._teaches = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._children: dict[int, _Child] = {}  # by pidfd
        self._poller = select.poll()
        self._poller.register(self._listener, select.POLLIN)
        self._poller.register(self._learnt, select.POLLIN)
        self._told_to_end = _on_sigterm()
        self._poller.register(self._told_to_end, select.POLLIN)
        for name in _FIRST:
            import_module(name)
        self._outdated = False
        self._code = _code_on_disk()
        _settle()

    def serve(self) -> None:
        """Serve until it is idle or told to end (SIGTERM)."""
        while True:
            if self._outdated and not self._children:
                self._start_anew()
            idle = self._idle_seconds and not self._children
            ready = self._poller.poll(self._idle_seconds * 1000 if idle else None)
            if not ready or any(descriptor == self._told_to_end for descriptor, _ in ready):
                return
            for descriptor, _ in ready:
                if descriptor == self._listener.fileno():
                    self._accept()
                elif descriptor == self._learnt:
                    self._learn()
                elif descriptor in self._children:
                    self._reap(descriptor)
                else:
                    self._abandon(descriptor)

    def close(self) -> None:
        """Listen no more; children go on, and tell their clients themselves how they ended."""
        self._listener.close()
        with effect("fork_server.unlink", path=self.path):
            self.path.unlink(missing_ok=True)
        self._lease.discard()

    # --- clients ---------------------------------------------------------------------------

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        self._outdated = self._outdated or _code_on_disk() != self._code
        if self._outdated:
            with connection, suppress(OSError):
                connection.send(NOT_FOR_ME)
            return
        with effect("fork_server.fork"):
            pid = os.fork()
        if pid == 0:
            os._exit(self._in_child(connection))
        process = os.pidfd_open(pid)
        self._children[process] = _Child(pid, connection)
        self._poller.register(process, select.POLLIN)
        self._poller.register(connection, select.POLLRDHUP)

    def _in_child(self, connection: socket.socket) -> int:
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            self._listener.close()
            self._lease.close()
            os.close(self._learnt)
            for process, child in self._children.items():
                os.close(process)
                child.connection.close()
            return serve_one(connection, self._teaches)
        except BaseException:  # noqa: BLE001  # it has not begun: the client does it itself
            return 1

    def _abandon(self, descriptor: int) -> None:
        """A client has gone: as if its command had been killed."""
        for process, child in self._children.items():
            if child.connection.fileno() == descriptor:
                self._poller.unregister(child.connection)
                with suppress(ProcessLookupError), effect("fork_server.kill", pid=child.pid):
                    signal.pidfd_send_signal(process, signal.SIGKILL)
                return

    def _reap(self, process: int) -> None:
        child = self._children.pop(process)
        self._poller.unregister(process)
        with suppress(KeyError):
            self._poller.unregister(child.connection)
        _, status = os.waitpid(child.pid, 0)
        os.close(process)
        with child.connection:
            if os.WIFSIGNALED(status):
                with suppress(OSError):
                    child.connection.send(KILLED + bytes([os.WTERMSIG(status)]))

    # --- what is imported ------------------------------------------------------------------

    def _learn(self) -> None:
        for name in os.read(self._learnt, 1 << 16).decode().split():
            with suppress(Exception):
                import_module(name)
        # what a module began beside us cannot be forked
        self._outdated = self._outdated or len(os.listdir("/proc/self/task")) > 1
        self._code = {**_code_on_disk(), **self._code}
        _settle()

    def _start_anew(self) -> None:
        """Become a server that has just started, on the same socket."""
        self._listener.set_inheritable(True)
        module = f"{__package__}.server"
        words = [sys.executable, "-P", "-m", module, str(self.path), str(self._idle_seconds)]
        with effect("fork_server.start_anew"):
            os.execv(sys.executable, [*words, str(self._listener.fileno())])


def _only_one(path: Path) -> Lease:
    with effect("fork_server.make_directory", path=path.parent):
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    lease = Locks(path.parent).try_acquire(
        f"{path.name}.lock", exclusive=True, purpose="fork server"
    )
    if lease is None:
        raise AlreadyExists("fork server", str(path))
    return lease


def _listen(path: Path) -> socket.socket:
    """Listen on *path*, for root alone; the caller holds the lease."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    before = os.umask(0o177)
    try:
        with effect("fork_server.listen", path=path):
            path.unlink(missing_ok=True)
            listener.bind(str(path))
            listener.listen(_WAITING_CLIENTS)
    finally:
        os.umask(before)
    return listener


def _code_on_disk() -> dict[str, tuple[int, int]]:
    """Return the time and size of the file of each module that is imported and may change."""
    found = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and name.partition(".")[0] not in sys.stdlib_module_names:
            try:
                status = os.stat(file)
            except OSError:
                found[file] = (0, 0)
            else:
                found[file] = (status.st_mtime_ns, status.st_size)
    return found


def _settle() -> None:
    """Let children share what is here: their garbage collection leaves it alone."""
    discover("storage")  # remembers what is installed
    gc.collect()
    gc.freeze()


def _on_sigterm() -> int:
    """Return a pipe that can be read once SIGTERM has come. An exception would be lost where it
    comes while a fork is prepared."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    return reader


def main(path: str, idle_seconds: str, listening: str = "") -> int:
    """Serve; ends with 0 when idle or told to end (SIGTERM)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = Server(Path(path), float(idle_seconds), int(listening) if listening else None)
    try:
        server.serve()
    finally:
        server.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
