"""A container whose caller waits for it: the runtime's ``run``, with no monitor between.

The thread that starts the runtime has the container's mount namespace and lives until the
runtime has ended, for the parent-death signal follows the *thread* (prctl(2),
PR_SET_PDEATHSIG). The signal reaches the runtime alone; the container's own processes are in the
cgroup that the row names, which recovery kills.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Any

from ..effects import effect
from ..linux.cgroups import Cgroup
from .bundle import ContainerFiles
from .rootfs import RootPlan, enter_namespace_with_root
from .runtime import Runtime, find_program, read_log_error

_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Streams:
    """The stdio of a run: *stdin* is bytes to feed, a descriptor, or None for nothing;
    *stdout* and *stderr* are descriptors, or None to collect what is written."""

    stdin: bytes | int | None = None
    stdout: int | None = None
    stderr: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended; *error* is the runtime's, if the process never ran."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    timed_out: bool = False
    error: str | None = None


def run_directly(
    runtime: Runtime,
    files: ContainerFiles,
    root: RootPlan,
    streams: Streams,
    *,
    inherited: Sequence[int] = (),
    cgroup: Cgroup,
    timeout_seconds: float | None = None,
    started: Callable[[], None] = lambda: None,
) -> Outcome:
    """Run the bundle and wait for its end, with all that *streams* asks for.

    *started* is called once the runtime runs. After *timeout_seconds* the cgroup is killed.

    Raises:
        OSError: if the namespace cannot be made or the runtime cannot be run.
    """
    outcome: list[Outcome] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            enter_namespace_with_root(root)
            process = _spawn(runtime, files, streams, inherited)
            started()
            outcome.append(_wait(process, files, streams, cgroup, timeout_seconds))
        except BaseException as error:  # raised again in the caller's thread
            failure.append(error)

    thread = threading.Thread(target=run, name=f"stowage-run-{files.container_id[:12]}")
    thread.start()
    try:
        thread.join()
    except BaseException:  # KeyboardInterrupt: the container must not run on unseen
        cgroup.kill()
        thread.join()
        raise
    if failure:
        raise failure.pop()
    return outcome[0]


def _spawn(
    runtime: Runtime, files: ContainerFiles, streams: Streams, inherited: Sequence[int]
) -> subprocess.Popen[bytes]:
    command = [
        find_program("setpriv", "util-linux"), "--pdeathsig", "KILL",
        *runtime.command(
            files.runtime_log, "run", "--bundle", str(files.bundle),
            "--pid-file", str(files.pid_file), files.container_id,
        ),
    ]  # fmt: skip
    stdin: int = subprocess.DEVNULL
    if streams.stdin is not None:
        stdin = streams.stdin if isinstance(streams.stdin, int) else subprocess.PIPE
    with effect("runtime.run", command=command):
        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=subprocess.PIPE if streams.stdout is None else streams.stdout,
            stderr=subprocess.PIPE if streams.stderr is None else streams.stderr,
            pass_fds=tuple(inherited),
        )


def _wait(
    process: subprocess.Popen[bytes],
    files: ContainerFiles,
    streams: Streams,
    cgroup: Cgroup,
    timeout_seconds: float | None,
) -> Outcome:
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    feed = streams.stdin if isinstance(streams.stdin, bytes) else b""
    timed_out = False
    with process:
        pump = _Pump(process, feed)
        if not pump.run(deadline):
            timed_out = True
            cgroup.kill()
            pump.run(None)
        timed_out |= _reap(process, cgroup, deadline)
    error = read_log_error(files.runtime_log) if process.returncode else None
    return Outcome(
        process.returncode if process.returncode >= 0 else 128 - process.returncode,
        bytes(pump.stdout),
        bytes(pump.stderr),
        timed_out,
        error,
    )


def _reap(process: subprocess.Popen[bytes], cgroup: Cgroup, deadline: float | None) -> bool:
    """Wait for the runtime; True if it had to be killed at the *deadline*."""
    if deadline is None:
        process.wait()
        return False
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        cgroup.kill()
        process.wait()
        return True
    return False


class _Pump:
    """Feeds a process's stdin and collects its stdout and stderr, all at once."""

    def __init__(self, process: subprocess.Popen[bytes], feed: bytes) -> None:
        self.stdout = bytearray()
        self.stderr = bytearray()
        self._selector = selectors.DefaultSelector()
        self._feed = memoryview(feed)
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)
            self._selector.register(process.stdin, selectors.EVENT_WRITE)
        for pipe, into in ((process.stdout, self.stdout), (process.stderr, self.stderr)):
            if pipe is not None:
                self._selector.register(pipe, selectors.EVENT_READ, into)

    def run(self, deadline: float | None) -> bool:
        """Go on until every pipe is closed; False at the *deadline*."""
        while self._selector.get_map():
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            for key, _ in self._selector.select(left):
                pipe: IO[bytes] = key.fileobj  # type: ignore[assignment]  # we registered files
                if not self._step(pipe, key.data):
                    self._selector.unregister(pipe)
                    pipe.close()
        self._selector.close()
        return True

    def _step(self, pipe: IO[bytes], into: Any) -> bool:
        """Move one chunk; False when that pipe is done."""
        if into is not None:
            chunk = os.read(pipe.fileno(), _CHUNK)
            into += chunk
            return bool(chunk)
        try:
            self._feed = self._feed[os.write(pipe.fileno(), self._feed[:_CHUNK]) :]
        except BlockingIOError:
            return True
        except BrokenPipeError:  # it does not read its stdin to the end
            return False
        return bool(self._feed)
