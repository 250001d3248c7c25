"""What follows a container's end: recording it, restarting it, removing it.

conmon's exit command comes here, and so does recovery when that command was killed.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress

from msgspec.structs import replace

from ..errors import Busy, FailedPrecondition, NotFound
from ..linux.controllers import oom_kills
from ..store.ballast import free_bytes
from .context import Context
from .creating import discard, remove_snapshot
from .launching import clean_up, stop_monitor
from .model import ContainerRecord, ContainerState
from .restarting import cancel_restart, is_waiter, wait_for_restart
from .restarts import next_restart

logger = logging.getLogger("stowage.containers")

KILLED = 137
MONITOR_LOST = "monitor lost"
_EXIT_FILE_SECONDS = 2.0
_POLL_SECONDS = 0.02


def finish(context: Context, container_id: str, run: str) -> None:
    """Record the end of *run*, which conmon has seen end, and clean up after it.

    The process that has waited to restart the container after that run does so. Nothing happens
    if that is done already, another run has begun or the container is gone. Idempotent.

    Raises:
        FailedPrecondition: if that run has not ended.
    """
    if context.rows.find(container_id) is None:
        return
    with context.locked(container_id, "is recording its end"):
        record = context.rows.find(container_id)
        if record is None or not record.state.lives or record.runtime.run != run:
            return
        if record.state is ContainerState.RESTARTING:
            if is_waiter(record.runtime.monitor_process):
                from .starting import start_locked

                start_locked(context, record, record.runtime.restarts)
            return
        if record.runtime.monitor != "conmon":
            return
        exit_code = context.files(record.id).exit_code()
        process = record.runtime.process
        if exit_code is None and process is not None and process.alive:
            raise FailedPrecondition(f"container {record.id} has not ended")
        record_exit(context, record, exit_code)


def record_exit(
    context: Context, record: ContainerRecord, exit_code: int | None, *, may_restart: bool = True
) -> ContainerRecord | None:
    """Record that a live container has ended, clean up, and restart or remove it as it asked.

    None as *exit_code* means that nobody saw it end: 137. The caller holds the lock. Returns
    the new record, or None if the container is gone.
    """
    # conmon may be killed, or not look in time; the kernel counts all the same
    oom_killed = context.files(record.id).oom_killed or oom_kills(context.cgroup(record)) > 0
    why_unknown = _why_unknown(context) if exit_code is None else ""
    if why_unknown not in ("", MONITOR_LOST):
        logger.warning("container %s: %s", record.short_id, why_unknown)
    clean_up(context, record)
    code, now_ns = KILLED if exit_code is None else exit_code, time.time_ns()
    again = next_restart(
        record.spec.restart,
        record.runtime.restarts,
        exit_code=code,
        ran_seconds=(now_ns - record.runtime.started_ns) / 1e9,
        now_ns=now_ns,
    )
    if not may_restart:
        again = None
    record = context.rows.update(
        record,
        state=ContainerState.EXITED if again is None else ContainerState.RESTARTING,
        events=("oom", "die") if oom_killed else ("die",),
        exit_code=code,
        finished_ns=now_ns,
        oom_killed=oom_killed,
        error=why_unknown,
        monitor="",
        monitor_process=None,
        process=None,
        starting=False,
        restarts=again or record.runtime.restarts,
    )
    if again is not None:
        return wait_for_restart(context, record)
    if record.spec.auto_remove and not record.runtime.restarts.kept:
        remove_ended(context, record)
        return None
    return record


def _why_unknown(context: Context) -> str:
    """Say why nobody knows an exit code: conmon was killed, or had no room to write it."""
    with suppress(OSError):
        if not free_bytes(context.bundles):
            return f"its exit code could not be written: no space left in {context.bundles}"
    return MONITOR_LOST


def remove_ended(context: Context, record: ContainerRecord) -> None:
    """Remove a container of which no process is left; the caller holds its lock.

    Raises:
        Busy: if somebody still uses its snapshot; it stays in the state *removing*.
    """
    gone_with_it = record.spec.auto_remove or record.runtime.remove_volumes
    record = context.rows.update(record, state=ContainerState.REMOVING, remove_volumes=gone_with_it)
    remove_snapshot(context, record)
    discard(context, record)


def remove(
    context: Context, container_id: str, *, force: bool = False, volumes: bool = False
) -> None:
    """Remove a container; with *force* it is killed first, and goes later if it is in use now.

    With *volumes*, its anonymous volumes that no other container uses go with it.

    Raises:
        FailedPrecondition: in Docker's words, if it runs and *force* is not given.
        Busy: if somebody still uses its snapshot; without *force* nothing has changed then.
    """
    with context.locked(container_id, "is removing it"):
        record = context.rows.find(container_id)
        if record is None:
            raise NotFound("container", container_id)
        if record.state.lives:
            if not force:
                raise FailedPrecondition(_running_refusal(record))
            if record.runtime.monitor == "direct":
                _end_direct(context, record)
            cancel_restart(record)
            stop_monitor(context, record)
            clean_up(context, record)
            record = context.rows.update(
                record, events=("kill", "die"), state=ContainerState.EXITED,
                exit_code=KILLED, finished_ns=time.time_ns(), monitor="",
            )  # fmt: skip
        clean_up(context, record)
        try:
            asked = replace(record.runtime, remove_volumes=volumes)
            remove_ended(context, replace(record, runtime=asked))
        except Busy:
            if not force:
                context.rows.update(record)  # as it was: a refusal condemns nothing
            raise


def _running_refusal(record: ContainerRecord) -> str:
    if record.state is ContainerState.PAUSED:
        return (
            f"You cannot remove a paused container {record.id}. Unpause and then stop the "
            "container before attempting removal or force remove"
        )
    return (
        f"You cannot remove a {record.state.value} container {record.id}. Stop the container "
        "before attempting removal or force remove"
    )


def _end_direct(context: Context, record: ContainerRecord) -> None:
    """The process that runs it notices the end and still has its root open for a moment."""
    context.cgroup(record).kill()
    deadline = time.monotonic() + _EXIT_FILE_SECONDS
    while (context.running_directory / "runtime" / record.id).exists():
        if time.monotonic() > deadline:
            return
        time.sleep(_POLL_SECONDS)
