"""Running one exec: the runtime's command, what it is given to read and write, and its end."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from msgspec import Struct

from ..linux.cgroups import Cgroup
from .console import ConsoleSocket, PipePeer, TerminalPeer, own_terminal, tell_resized
from .exectree import kill_tree
from .pump import Ending, Peer, Sink, drain, pump, terminal_of, terminal_size, writer
from .runtime import Runtime, read_log_error
from .streams import DRAIN_SECONDS, Collected, Streams, end, spawn


class ExecFiles(Struct, frozen=True):
    """The files of one exec: its config, its pid, the runtime's log."""

    config: Path
    pid: Path
    log: Path


class ExecSession:
    """One exec; call :meth:`follow` or :meth:`leave`, once."""

    def __init__(
        self, runtime: Runtime, container_id: str, files: ExecFiles, cgroup: Cgroup,
        *, tty: bool, keys: bytes,
    ) -> None:  # fmt: skip
        self._runtime = runtime
        self._id = container_id
        self._files = files
        self._cgroup = cgroup
        self._tty = tty
        self._keys = keys

    def leave(self) -> Collected:
        """Start it and let it run on with nobody to read what it writes."""
        with _nowhere() as streams:
            if not self._tty:
                return _collected(self._spawn(streams, "--detach").wait())
            with closing(self._console_socket()) as console:
                child = self._spawn(streams, "--detach", "--console-socket", console.path)
                master = console.receive(child)
        if master is not None:
            with _closing(master):
                drain(master)
        return _collected(child.wait())

    def follow(self, streams: Streams, timeout_seconds: float | None) -> Collected:
        """Run it to its end, with *streams*; after the time-out it is killed."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        if not self._tty:
            return self._follow_pipes(streams, deadline)
        if self._runtime.name == "runc":
            return self._follow_own_terminal(streams, deadline)
        with _nowhere() as nowhere, closing(self._console_socket()) as console:
            child = self._spawn(nowhere, "--console-socket", console.path)
            with self._killed_on_error(child):
                master = console.receive(child)
        if master is None:
            return _collected(child.wait())
        with _closing(master):
            return self._follow_terminal(child, TerminalPeer(master), streams, deadline)

    def _follow_own_terminal(self, streams: Streams, deadline: float | None) -> Collected:
        with own_terminal(terminal_size(streams.stdin, streams.stdout)) as (master, slave):
            nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            with _closing(nowhere):
                child = self._spawn(Streams(slave, slave, nowhere))
        peer = TerminalPeer(master, lambda: tell_resized(child))
        with _closing(master):
            return self._follow_terminal(child, peer, streams, deadline)

    def _follow_terminal(
        self,
        child: subprocess.Popen[bytes],
        peer: TerminalPeer,
        streams: Streams,
        deadline: float | None,
    ) -> Collected:
        outputs = _Outputs(streams)
        with self._killed_on_error(child):
            ending = self._pump(child, peer, streams, outputs, deadline)
            if ending is Ending.DETACHED:
                drain(peer.master)
                return Collected(0, *outputs.collected, timed_out=False, detached=True)
            return self._ended(child, outputs, ending, deadline)

    def _follow_pipes(self, streams: Streams, deadline: float | None) -> Collected:
        child = self._spawn(Streams(None if streams.stdin is None else b""))
        outputs = _Outputs(streams)
        with closing(PipePeer(child, self._started)) as peer, self._killed_on_error(child):
            ending = self._pump(child, peer, streams, outputs, deadline)
            done = self._ended(child, outputs, ending, deadline)
            failed = done.exit_code and read_log_error(self._files.log) is not None
            if peer.held and not failed:
                outputs.stderr(peer.held)  # it ended before it was seen to run
            return Collected(done.exit_code, *outputs.collected, done.timed_out)

    def _pump(
        self,
        child: subprocess.Popen[bytes],
        peer: Peer,
        streams: Streams,
        outputs: _Outputs,
        deadline: float | None,
    ) -> Ending:
        ours = terminal_of(streams.stdin, streams.stdout) if self._tty else None
        ending = pump(
            peer, streams.stdin, outputs.stdout, outputs.stderr,
            terminal=ours, keys=self._keys, deadline=deadline,
        )  # fmt: skip
        if ending is Ending.TIMED_OUT:
            self._kill(child)
            last = time.monotonic() + DRAIN_SECONDS
            pump(peer, None, outputs.stdout, outputs.stderr, deadline=last)
        return ending

    def _ended(
        self,
        child: subprocess.Popen[bytes],
        outputs: _Outputs,
        ending: Ending,
        deadline: float | None,
    ) -> Collected:
        timed_out = ending is Ending.TIMED_OUT
        if timed_out:
            end(child)
        try:
            child.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            timed_out = True
            self._kill(child)
            end(child)
        return _collected(child.returncode, outputs.collected, timed_out=timed_out)

    # --- the runtime's command -----------------------------------------------------------------

    def _spawn(self, streams: Streams, *options: str) -> subprocess.Popen[bytes]:
        files = self._files
        command = self._runtime.command(
            files.log, "exec", "--process", str(files.config), "--pid-file", str(files.pid),
            *options, self._id,
        )  # fmt: skip
        return spawn("runtime.exec", command, streams, own_group=True)

    def _console_socket(self) -> ConsoleSocket:
        return ConsoleSocket(self._files.config.parent, f"{self._files.config.stem[:12]}.sock")

    def _started(self) -> bool:
        """Whether the runtime says that the process runs."""
        try:
            return self._files.pid.stat().st_size > 0
        except FileNotFoundError:
            return False

    def _kill(self, child: subprocess.Popen[bytes]) -> None:
        kill_tree(child, self._files.pid, self._cgroup)

    @contextmanager
    def _killed_on_error(self, child: subprocess.Popen[bytes]) -> Iterator[None]:
        """KeyboardInterrupt, too: what it started must not run on unseen."""
        try:
            yield
        except BaseException:
            try:
                self._kill(child)
            finally:
                child.kill()
                child.wait()
            raise


class _Outputs:
    """Where the two streams go: to the caller's descriptors, or into memory."""

    def __init__(self, streams: Streams) -> None:
        self._into = (bytearray(), bytearray())
        self.stdout: Sink = _sink(streams.stdout, self._into[0])
        self.stderr: Sink = _sink(streams.stderr, self._into[1])

    @property
    def collected(self) -> tuple[bytes, bytes]:
        return bytes(self._into[0]), bytes(self._into[1])


def _sink(descriptor: int | None, into: bytearray) -> Callable[[bytes], object]:
    return writer(descriptor) or into.extend


def _collected(
    code: int, collected: tuple[bytes, bytes] = (b"", b""), *, timed_out: bool = False
) -> Collected:
    return Collected(code if code >= 0 else 128 - code, *collected, timed_out)


@contextmanager
def _nowhere() -> Iterator[Streams]:
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield Streams(None, null, null)
    finally:
        os.close(null)


@contextmanager
def _closing(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)
