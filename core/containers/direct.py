"""A container whose caller waits for it: the runtime's ``run``, with no monitor between.

The thread that starts the runtime has the container's mount namespace and lives until the
runtime has ended, for the parent-death signal follows the *thread* (prctl(2),
PR_SET_PDEATHSIG). The signal reaches the runtime alone; the container's own processes are in the
cgroup that the row names, which recovery kills.
"""

from __future__ import annotations

import queue
import subprocess
import threading
from collections.abc import Callable, Sequence

from msgspec import Struct

from ..linux.cgroups import Cgroup
from .bundle import ContainerFiles
from .rootfs import RootPlan, enter_namespace_with_root
from .runtime import Runtime, find_program, read_log_error
from .streams import Collected, Streams, communicate, spawn


class Outcome(Struct, frozen=True):
    """How a run ended; *error* is the runtime's own, if the process never ran."""

    collected: Collected
    error: str | None = None


def run_directly(
    runtime: Runtime,
    files: ContainerFiles,
    root: RootPlan,
    streams: Streams,
    *,
    cgroup: Cgroup,
    timeout_seconds: float | None = None,
    started: Callable[[], None] = lambda: None,
) -> Outcome:
    """Run the bundle and wait for its end, with all that *streams* asks for.

    *started* is called once the runtime runs. After *timeout_seconds* the cgroup is killed, and
    so it is when anything is raised here.

    Raises:
        OSError: if the namespace cannot be made or the runtime cannot be run.
    """
    command = [
        find_program("setpriv", "util-linux"), "--pdeathsig", "KILL",
        *runtime.command(
            files.runtime_log, "run", "--bundle", str(files.bundle),
            "--pid-file", str(files.pid_file), files.container_id,
        ),
    ]  # fmt: skip
    with _Parent(root, command, streams) as process:
        try:
            started()
            collected = communicate(
                process, streams.feed, timeout_seconds=timeout_seconds, kill=cgroup.kill
            )
        except BaseException:  # KeyboardInterrupt, too: it must not run on unseen
            process.kill()
            cgroup.kill()
            raise
    failed = collected.exit_code != 0 and not collected.timed_out
    return Outcome(collected, read_log_error(files.runtime_log) if failed else None)


class _Parent:
    """The thread that starts the runtime, and lives until the ``with`` ends.

    All else is done by the caller: in the thread's namespace the host's cgroups may be hidden.
    """

    def __init__(self, root: RootPlan, command: Sequence[str], streams: Streams) -> None:
        self._root, self._command, self._streams = root, command, streams
        self._answer: queue.SimpleQueue[subprocess.Popen[bytes] | BaseException] = (
            queue.SimpleQueue()
        )
        self._ended = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="stowage-run")

    def _run(self) -> None:
        try:
            enter_namespace_with_root(self._root)
            process = self._process = spawn("runtime.run", self._command, self._streams)
        except BaseException as error:  # noqa: BLE001  # raised again in the caller's thread
            self._answer.put(error)
            return
        self._answer.put(process)
        self._ended.wait()

    def __enter__(self) -> subprocess.Popen[bytes]:
        self._thread.start()
        try:
            answer = self._answer.get()
        except BaseException:  # KeyboardInterrupt: it may be starting the runtime just now
            self._ended.set()
            self._thread.join()
            if self._process is not None:
                with self._process as process:
                    process.kill()
            raise
        if isinstance(answer, BaseException):
            self._thread.join()
            raise answer
        return answer

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()
