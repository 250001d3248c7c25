"""What follows a container's end: recording it, stopping it, removing it.

conmon's exit command comes here, and so does recovery when that command was killed.
"""

from __future__ import annotations

import signal
import time

from ..errors import Busy, FailedPrecondition, NotFound
from ..linux.controllers import oom_kills
from ..linux.process import send_signal, wait_gone
from .context import Context
from .creating import discard, parse_signal, remove_snapshot
from .launching import clean_up, stop_monitor
from .model import STOP_TIMEOUT_SECONDS, ContainerRecord, ContainerState
from .processes import first_process

KILLED = 137
_EXIT_FILE_SECONDS = 2.0
_POLL_SECONDS = 0.02
_REMOVAL_SECONDS = 10.0


def finish(context: Context, container_id: str, run: str) -> None:
    """Record the end of *run*, which conmon has seen end, and clean up after it.

    Nothing happens if that is done already, another run has begun or the container is gone.
    Idempotent.

    Raises:
        FailedPrecondition: if that run has not ended.
    """
    if context.rows.find(container_id) is None:
        return
    with context.locked(container_id, "is recording its end"):
        record = context.rows.find(container_id)
        if record is None or not record.state.lives or record.runtime.monitor != "conmon":
            return
        if record.runtime.run != run:
            return
        exit_code = context.files(record.id).exit_code()
        process = record.runtime.process
        if exit_code is None and process is not None and process.alive:
            raise FailedPrecondition(f"container {record.id} has not ended")
        record_exit(context, record, exit_code)


def record_exit(
    context: Context, record: ContainerRecord, exit_code: int | None, *, error: str = ""
) -> ContainerRecord | None:
    """Record that a live container has ended, clean up, and remove it if it asked for that.

    None as *exit_code* means that nobody saw it end: 137. The caller holds the lock. Returns
    the new record, or None if the container is gone.
    """
    # conmon may be killed, or not look in time; the kernel counts all the same
    oom_killed = context.files(record.id).oom_killed or oom_kills(context.cgroup(record)) > 0
    clean_up(context, record)
    record = context.rows.update(
        record,
        state=ContainerState.EXITED,
        events=("oom", "die") if oom_killed else ("die",),
        exit_code=KILLED if exit_code is None else exit_code,
        finished_ns=time.time_ns(),
        oom_killed=oom_killed,
        error=error or ("monitor lost" if exit_code is None else ""),
        monitor="",
        monitor_process=None,
        process=None,
        starting=False,
    )
    if record.spec.auto_remove:
        remove_ended(context, record)
        return None
    return record


def remove_ended(context: Context, record: ContainerRecord) -> None:
    """Remove a container of which no process is left; the caller holds its lock.

    Raises:
        Busy: if somebody still uses its snapshot; it stays in the state *removing*.
    """
    record = context.rows.update(record, state=ContainerState.REMOVING)
    remove_snapshot(context, record)
    discard(context, record)


def remove(context: Context, container_id: str, *, force: bool = False) -> None:
    """Remove a container; with *force* it is killed first, and goes later if it is in use now.

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
            stop_monitor(context, record)
            clean_up(context, record)
            record = context.rows.update(
                record, events=("kill", "die"), state=ContainerState.EXITED,
                exit_code=KILLED, finished_ns=time.time_ns(), monitor="",
            )  # fmt: skip
        clean_up(context, record)
        try:
            remove_ended(context, record)
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
        f"You cannot remove a running container {record.id}. Stop the container before "
        "attempting removal or force remove"
    )


def _end_direct(context: Context, record: ContainerRecord) -> None:
    """The process that runs it notices the end and still has its root open for a moment."""
    context.cgroup(record).kill()
    deadline = time.monotonic() + _EXIT_FILE_SECONDS
    while (context.running_directory / "runtime" / record.id).exists():
        if time.monotonic() > deadline:
            return
        time.sleep(_POLL_SECONDS)


# --- signals ----------------------------------------------------------------------------------


def kill(context: Context, record: ContainerRecord, signal_name: str = "KILL") -> None:
    """Send a signal to a container's first process.

    Raises:
        FailedPrecondition: "Cannot kill container: x: Container … is not running".
        InvalidArgument: "Invalid signal: x".
    """
    number = parse_signal(signal_name)
    if not _signal(context, record, number):
        raise FailedPrecondition(
            f"Cannot kill container: {record.name}: Container {record.id} is not running"
        )
    context.rows.record_event(record, "kill", signal=str(number))


def _signal(context: Context, record: ContainerRecord, number: int) -> bool:
    """Signal the first process; a frozen one that is to die is thawed."""
    process = first_process(context, record)
    if not record.state.lives or process is None or not send_signal(process, number):
        return False
    cgroup = context.cgroup(record)
    if number == signal.SIGKILL and cgroup.frozen:
        cgroup.thaw()
    return True


def stop(context: Context, record: ContainerRecord, timeout_seconds: float | None = None) -> None:
    """Ask a container to end by its stop signal, and kill it after the time-out (never, for a
    negative one).

    A container that does not run is left alone. Returns once its end is recorded.
    """
    if not record.state.lives:
        return
    if timeout_seconds is None:
        asked = record.spec.stop_timeout_seconds
        timeout_seconds = STOP_TIMEOUT_SECONDS if asked is None else asked
    process = first_process(context, record)
    if process is not None:
        _signal(context, record, parse_signal(record.spec.stop_signal or "TERM"))
        patience = None if timeout_seconds < 0 else timeout_seconds
        if not wait_gone(process, patience):
            _signal(context, record, parse_signal("KILL"))
            wait_gone(process, STOP_TIMEOUT_SECONDS)
    wait(context, record.id)
    after = context.rows.find(record.id)
    if after is not None:
        context.rows.record_event(after, "stop")


def wait(context: Context, container_id: str, timeout_seconds: float | None = None) -> int:
    """Wait until a container has ended and return its exit code, a removed one's as well.

    Raises:
        TimeoutError: if it still lives after that time.
    """
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    while True:
        record = context.rows.find(container_id)
        if record is None:
            code = context.rows.exit_code_of_removed(container_id)
            if code is None:
                raise NotFound("container", container_id)
            return code
        if _settled(record):
            return record.runtime.exit_code
        if deadline is not None and time.monotonic() > deadline:
            raise TimeoutError(f"container {record.short_id} still runs")
        _wait_a_little(context, record, deadline)


def _settled(record: ContainerRecord) -> bool:
    """Whether nothing more will happen: one that is to be removed is waited for until it is."""
    if record.state.lives or record.runtime.starting:
        return False
    if record.state is ContainerState.CREATED:
        return True
    removing = record.spec.auto_remove or record.state is ContainerState.REMOVING
    ended_seconds = (time.time_ns() - record.runtime.finished_ns) / 1e9
    return not removing or ended_seconds > _REMOVAL_SECONDS


def _wait_a_little(context: Context, record: ContainerRecord, deadline: float | None) -> None:
    monitor = record.runtime.monitor_process
    if record.runtime.monitor != "conmon" or monitor is None:
        time.sleep(_POLL_SECONDS)
        return
    left = None if deadline is None else max(0.0, deadline - time.monotonic())
    if not wait_gone(monitor, left):
        return
    after = context.rows.find(record.id)
    if after is not None and after.state.lives:  # conmon was killed, or its exit command was
        lost(context, after)


def lost(context: Context, record: ContainerRecord) -> None:
    """Finish a live container whose conmon is gone: kill what runs on, and record it."""
    with context.locked(record.id, "is recording its end"):
        now = context.rows.find(record.id)
        if now is None or not now.state.lives:
            return
        if now.runtime.monitor_process == record.runtime.monitor_process:
            record_exit(context, now, context.files(now.id).exit_code())
