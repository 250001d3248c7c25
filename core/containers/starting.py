"""Starting a container under conmon: it outlives the process that starts it."""

from __future__ import annotations

import os
import secrets
import time

from msgspec.structs import replace

from ..errors import CommandFailed, FailedPrecondition, NotFound, StowageError
from ..linux.process import ProcessIdentity, boot_id, identity
from .attach import AttachedClient
from .context import Context
from .finishing import remove_ended
from .launching import Launch, clean_up, launch, stop_monitor
from .model import ContainerRecord, ContainerState
from .monitor import MonitorPlan, create_monitored
from .restarts import RestartFacts
from .rootfs import namespace_with_root
from .rotation import begin_rotation
from .terminals import set_size_of_process


def start(
    context: Context,
    container_id: str,
    *,
    attach: bool = False,
    size: tuple[int, int] | None = None,
) -> tuple[ContainerRecord, AttachedClient | None]:
    """Start a created or exited container; returns it, with a client of its stdio if asked.

    The client is connected before the first byte is written, and a terminal has *size* (rows,
    columns) by then. Starting a running container does nothing, as in Docker. Restarts by its
    policy are counted from here on.

    Raises:
        CommandFailed: if its process could not be started; the container stays, with the exit
            code and the error recorded.
        FailedPrecondition: if it is paused or being removed.
    """
    with context.locked(container_id, "is starting it"):
        record = _startable(context, container_id)
        if record.state.lives:
            return record, None
        return start_locked(context, record, RestartFacts(), attach=attach, size=size)


def start_locked(
    context: Context,
    record: ContainerRecord,
    restarts: RestartFacts,
    *,
    attach: bool = False,
    size: tuple[int, int] | None = None,
) -> tuple[ContainerRecord, AttachedClient | None]:
    """Start a container that does not run; the caller holds its lock. Raises as :func:`start`."""
    runtime = context.default_runtime
    record = context.rows.update(
        record,
        starting=True,
        run=secrets.token_hex(8),
        monitor="conmon",
        monitor_process=None,
        process=None,
        cgroup=context.cgroup(record).path,
        runtime=runtime.path,
        error="",
        restarts=replace(restarts, boot_id=boot_id(), stopped=False, kept_by=None),
    )
    clients: list[AttachedClient] = []
    try:
        with launch(context, record, runtime) as ready:
            return _start(context, record, ready, attach, size, clients), _only(clients)
    except BaseException as error:
        for client in clients:
            client.close()
        give_up(context, record, error)
        raise


def _only(clients: list[AttachedClient]) -> AttachedClient | None:
    return clients[0] if clients else None


def _startable(context: Context, container_id: str) -> ContainerRecord:
    record = context.rows.find(container_id)
    if record is None:
        raise NotFound("container", container_id)
    if record.state in (ContainerState.REMOVING, ContainerState.DEAD):
        raise FailedPrecondition(
            f"container {record.id} is marked for removal and cannot be started"
        )
    if record.state is ContainerState.PAUSED:
        raise FailedPrecondition("cannot start a paused container, try unpause instead")
    return record


def _start(
    context: Context,
    record: ContainerRecord,
    ready: Launch,
    attach: bool,
    size: tuple[int, int] | None,
    clients: list[AttachedClient],
) -> ContainerRecord:
    namespace = namespace_with_root(ready.plan)
    try:
        plan = MonitorPlan(
            name=record.name,
            files=ready.files,
            runtime=ready.runtime,
            mount_namespace=namespace,
            exit_command=context.exit_command(record.id, record.runtime.run),
            inherited=ready.joined.inherited,
            tty=record.spec.tty,
            open_stdin=record.spec.open_stdin,
            logged=record.spec.log.kept,
            # as Docker, which closes no terminal
            leave_stdin_open=record.spec.open_stdin
            and (record.spec.tty or not record.spec.stdin_once),
        )
        created = create_monitored(plan, record.spec.arguments)
    finally:
        os.close(namespace)
    process = _identity(created.pid)
    begin_rotation(context, record)
    if attach:
        tty = record.spec.tty
        clients.append(AttachedClient(ready.files, created.monitor, process, tty=tty))
    if size is not None and record.spec.tty:
        set_size_of_process(created.pid, *size)
    started_ns = time.time_ns()
    ready.runtime.start(record.id, ready.files.runtime_log)
    running = context.rows.update(
        record,
        state=ContainerState.RUNNING,
        events=("attach", "start") if attach else ("start",),
        starting=False,
        process=process,
        monitor_process=created.monitor,
        started_ns=started_ns,
        finished_ns=0,
        exit_code=0,
        oom_killed=False,
        endpoint_id=ready.joined.endpoint.id if ready.joined.endpoint else "",
    )
    ready.joined.require_target()
    return running


def _identity(pid: int) -> ProcessIdentity | None:
    """The process waits to be started, unless somebody has killed it already."""
    try:
        return identity(pid)
    except ProcessLookupError:
        return None


def give_up(context: Context, record: ContainerRecord, error: BaseException) -> None:
    """Undo a start that failed and record why; the caller holds the container's lock."""
    stop_monitor(context, record)
    clean_up(context, record)
    code = error.exit_code if isinstance(error, CommandFailed) else 128
    record = context.rows.update(
        record,
        state=_ended(record),
        starting=False,
        monitor="",
        monitor_process=None,
        exit_code=code,
        error=error.brief if isinstance(error, StowageError) else str(error),
    )
    if record.spec.auto_remove:
        remove_ended(context, record)


def _ended(record: ContainerRecord) -> ContainerState:
    """A restart that fails is the end of it, as in Docker."""
    restarting = record.state is ContainerState.RESTARTING
    return ContainerState.EXITED if restarting else record.state


def give_up_quietly(context: Context, record: ContainerRecord) -> None:
    """Undo a start whose process was killed; the container is as before it."""
    stop_monitor(context, record)
    clean_up(context, record)
    record = context.rows.update(record, starting=False, monitor="", monitor_process=None)
    if record.spec.auto_remove:
        remove_ended(context, record)
