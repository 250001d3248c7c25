"""A container whose caller waits for it: the runtime's ``run``, with no monitor between.

The thread that starts the runtime has the container's mount namespace and lives until the
runtime has ended, for the parent-death signal follows the *thread* (prctl(2),
PR_SET_PDEATHSIG). The signal reaches the runtime alone; the container's own processes are in the
cgroup that the row names, which recovery kills.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from ..linux.cgroups import Cgroup
from .bundle import ContainerFiles
from .rootfs import RootPlan, enter_namespace_with_root
from .runtime import Runtime, find_program, read_log_error
from .streams import Collected, Streams, communicate, spawn


@dataclass(frozen=True, slots=True)
class Outcome:
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

    *started* is called once the runtime runs. After *timeout_seconds* the cgroup is killed.

    Raises:
        OSError: if the namespace cannot be made or the runtime cannot be run.
    """
    outcome: list[Outcome] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            enter_namespace_with_root(root)
            outcome.append(_run(runtime, files, streams, cgroup, timeout_seconds, started))
        except BaseException as error:  # noqa: BLE001  # raised again in the caller's thread
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


def _run(
    runtime: Runtime,
    files: ContainerFiles,
    streams: Streams,
    cgroup: Cgroup,
    timeout_seconds: float | None,
    started: Callable[[], None],
) -> Outcome:
    command = [
        find_program("setpriv", "util-linux"), "--pdeathsig", "KILL",
        *runtime.command(
            files.runtime_log, "run", "--bundle", str(files.bundle),
            "--pid-file", str(files.pid_file), files.container_id,
        ),
    ]  # fmt: skip
    process = spawn("runtime.run", command, streams)
    try:
        started()
    except BaseException:
        process.kill()
        process.wait()
        raise
    collected = communicate(
        process, streams.feed, timeout_seconds=timeout_seconds, kill=cgroup.kill
    )
    failed = collected.exit_code != 0 and not collected.timed_out
    return Outcome(collected, read_log_error(files.runtime_log) if failed else None)
