"""conmon: holds a container's stdio, writes its log, sees its exit, and outlives us.

conmon stays in the host's mount namespace; only the runtime's ``create`` enters the one that has
the root, by ``nsenter`` and our own descriptor of it, which conmon does not inherit (it would
keep the root mounted after the container is gone). What it inherits are descriptors of network
namespaces and sockets, never of directories: a working directory ``/proc/self/fd/N`` would lead
out of the container.

Sources: conmon(8), conmon's src/conmon.c and src/ctrl.c; podman's libpod/oci_conmon.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Sequence

from msgspec import Struct

from ..effects import effect
from ..errors import CommandFailed
from ..linux.process import ProcessIdentity, identity
from .bundle import ContainerFiles
from .runtime import Runtime, find_program, helper_environment, start_failure

_CREATE_TIMEOUT_SECONDS = 120.0


class MonitorPlan(Struct, frozen=True):
    """What conmon is started with.

    *mount_namespace* is a descriptor of ours. *inherited* are the descriptors that conmon keeps
    for the container's life. *exit_command* is run once the container has ended.
    """

    name: str
    files: ContainerFiles
    runtime: Runtime
    mount_namespace: int
    exit_command: Sequence[str]
    inherited: Sequence[int] = ()
    tty: bool = False
    open_stdin: bool = False
    leave_stdin_open: bool = False
    logged: bool = True


class Monitored(Struct, frozen=True):
    """A container that conmon has created: its *pid* and conmon's own identity."""

    pid: int
    monitor: ProcessIdentity | None


def create_monitored(plan: MonitorPlan, arguments: Sequence[str]) -> Monitored:
    """Start conmon, which has the runtime create the container; it is not started yet.

    *arguments* are the container's command line, for messages.

    Raises:
        CommandFailed: if the container could not be created; conmon is gone then.
        NotSupported: if conmon or nsenter is not installed.
    """
    command = _command(plan)
    with effect("monitor.make_exit_directory", path=plan.files.exit_directory):
        plan.files.exit_directory.mkdir(exist_ok=True)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            returncode = _spawn(command, plan, writer)
        finally:
            os.close(writer)
        answer = _read_answer(reader)
    finally:
        os.close(reader)
    pid = answer.get("data", answer.get("pid", -1))
    if not isinstance(pid, int) or pid <= 0:
        raise _failure(plan, answer, returncode, arguments)
    return Monitored(pid, _identity(plan.files.monitor_pid()))


def _identity(pid: int | None) -> ProcessIdentity | None:
    try:
        return identity(pid) if pid else None
    except ProcessLookupError:
        return None


def _command(plan: MonitorPlan) -> list[str]:
    files, runtime = plan.files, plan.runtime
    enter = [
        f"--mount=/proc/{os.getpid()}/fd/{plan.mount_namespace}",
        *runtime.command(files.runtime_log, "")[:-1],
    ]
    command = [
        find_program("conmon", "conmon"),
        "--api-version", "1",
        "--cid", files.container_id,
        "--cuuid", files.container_id,
        "--name", plan.name,
        "--bundle", str(files.bundle),
        "--container-pidfile", str(files.pid_file),
        "--conmon-pidfile", str(files.monitor_pid_file),
        "--exit-dir", str(files.exit_directory),
        # relative to its working directory: conmon ends the path at a colon
        "--log-path", f"k8s-file:{files.linked_log}" if plan.logged else "none",
        "--no-sync-log",
        "--full-attach",
        "--runtime", find_program("nsenter", "util-linux"),
        *(f"--runtime-arg={word}" for word in enter),
        "--exit-command", plan.exit_command[0],
        *(f"--exit-command-arg={word}" for word in plan.exit_command[1:]),
    ]  # fmt: skip
    if plan.tty:
        command.append("--terminal")
    if plan.open_stdin:
        command.append("--stdin")
    if plan.leave_stdin_open:
        command.append("--leave-stdin-open")
    return command


def _spawn(command: Sequence[str], plan: MonitorPlan, sync_pipe: int) -> int:
    """Run conmon until it has put itself into the background."""
    with open(plan.files.monitor_log, "wb") as log, effect("monitor.start", command=command):
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            pass_fds=(sync_pipe, *plan.inherited),
            env=helper_environment(_OCI_SYNCPIPE=str(sync_pipe)),
            cwd=plan.files.bundle,  # where it also writes that memory ran out (src/cgroup.c)
        )
        return process.wait()


def _read_answer(reader: int) -> dict[str, object]:
    """Read conmon's one line: ``{"data": pid}`` or ``{"data": -1, "message": …}``."""
    deadline = time.monotonic() + _CREATE_TIMEOUT_SECONDS
    raw = b""
    poller = select.poll()  # select(2) takes no descriptor from 1024 on
    poller.register(reader, select.POLLIN)
    while not raw.endswith(b"\n"):
        ready = poller.poll(max(0.0, deadline - time.monotonic()) * 1000)
        chunk = os.read(reader, 65536) if ready else b""
        if not chunk:
            break
        raw += chunk
    try:
        answer = json.loads(raw.splitlines()[0]) if raw else {}
    except ValueError:
        answer = {}
    return answer if isinstance(answer, dict) else {}


def _failure(
    plan: MonitorPlan, answer: dict[str, object], returncode: int, arguments: Sequence[str]
) -> CommandFailed:
    failure = plan.runtime.failure(
        plan.files.runtime_log, "create", str(answer.get("message") or ""), arguments
    )
    if answer or plan.files.runtime_log.exists():
        return failure
    log = plan.files.monitor_log.read_text(errors="replace").strip()
    return start_failure(log or f"conmon ended with status {returncode}", "", "conmon failed: ")
