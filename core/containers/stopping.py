"""Ending a container at its user's wish: signals, ``stop``; and that it is not restarted then."""

from __future__ import annotations

import signal
from contextlib import suppress

from msgspec.structs import replace

from ..errors import FailedPrecondition, NotFound
from ..linux.process import ProcessIdentity, send_signal, wait_gone
from .context import Context
from .creating import parse_signal
from .freezing import unpause
from .model import STOP_TIMEOUT_SECONDS, ContainerRecord, ContainerState
from .processes import first_process
from .restarting import cancel_restart
from .waiting import wait


def kill(context: Context, record: ContainerRecord, signal_name: str = "KILL") -> None:
    """Send a signal to a container's first process.

    SIGKILL and the container's stop signal mean that its user stops it: it is not restarted, and
    runs on if it is paused. After SIGKILL this returns once the end is recorded, or after
    ``STOP_TIMEOUT_SECONDS``.

    Raises:
        FailedPrecondition: "Cannot kill container: x: Container … is not running".
        InvalidArgument: "Invalid signal: x".
    """
    number = parse_signal(signal_name)
    if number in (signal.SIGKILL, _stop_signal(record)):
        restarting = record.state is ContainerState.RESTARTING
        record = _stopped_by_user(context, record) or record
        if restarting and not record.state.lives:
            return
    if not _signal(context, record, number):
        raise FailedPrecondition(
            f"Cannot kill container: {record.name}: Container {record.id} is not running"
        )
    if number == signal.SIGKILL:
        with suppress(TimeoutError, NotFound):
            wait(context, record.id, STOP_TIMEOUT_SECONDS)


def _stop_signal(record: ContainerRecord) -> int:
    return parse_signal(record.spec.stop_signal or "TERM")


def _stopped_by_user(
    context: Context, record: ContainerRecord, *, kept_by: ProcessIdentity | None = None
) -> ContainerRecord | None:
    """Record that a container's user stops it, which ends one that waits to be restarted.

    Returns the container as it is now, or None if it is gone.
    """
    with context.locked(record.id, "is stopping it"):
        now = context.rows.find(record.id)
        if now is None or not now.state.lives:
            return now
        restarts = replace(now.runtime.restarts, stopped=True, kept_by=kept_by)
        if now.state is not ContainerState.RESTARTING:
            return context.rows.update(now, restarts=restarts)
        cancel_restart(now)
        return context.rows.update(
            now, state=ContainerState.EXITED, monitor_process=None, restarts=restarts
        )


def _signal(context: Context, record: ContainerRecord, number: int) -> bool:
    """Signal the first process, and let one that stands still run on if that is to end it."""
    process = first_process(context, record)
    if not record.state.lives or process is None or not send_signal(process, number):
        return False
    context.rows.record_event(record, "kill", signal=str(number))
    if number in (signal.SIGKILL, _stop_signal(record)):
        _unpause(context, record)
    cgroup = context.cgroup(record)
    if number == signal.SIGKILL and cgroup.frozen:  # for a commit
        cgroup.thaw()
    return True


def _unpause(context: Context, record: ContainerRecord) -> None:
    if record.state is ContainerState.PAUSED:
        try:
            unpause(context, record.id)
        except FailedPrecondition:  # somebody else has, or it has ended
            pass


def stop(
    context: Context,
    record: ContainerRecord,
    timeout_seconds: float | None = None,
    signal_name: str = "",
    *,
    kept_by: ProcessIdentity | None = None,
) -> None:
    """Ask a container to end by its stop signal (or *signal_name*), and kill it after the
    time-out (never, for a negative one).

    A container that does not run is left alone. Returns once its end is recorded. A process
    *kept_by*, which starts it again, keeps it from being removed at that end.

    Raises:
        InvalidArgument: "Invalid signal: x".
    """
    number = parse_signal(signal_name) if signal_name else _stop_signal(record)
    now = _stopped_by_user(context, record, kept_by=kept_by)
    if now is None:
        return
    if now.state.lives:
        _end(context, now, number, timeout_seconds)
    if record.state.lives and (after := context.rows.find(record.id)) is not None:
        context.rows.record_event(after, "stop")


def _end(
    context: Context, record: ContainerRecord, number: int, timeout_seconds: float | None
) -> None:
    if timeout_seconds is None:
        asked = record.spec.stop_timeout_seconds
        timeout_seconds = STOP_TIMEOUT_SECONDS if asked is None else asked
    process = first_process(context, record)
    if process is not None:
        _signal(context, record, number)
        _unpause(context, record)
        patience = None if timeout_seconds < 0 else timeout_seconds
        context.root.metastore.rest()
        if not wait_gone(process, patience):
            _signal(context, record, signal.SIGKILL)
            wait_gone(process, STOP_TIMEOUT_SECONDS)
    wait(context, record.id)
