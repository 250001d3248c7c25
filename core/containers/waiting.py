"""Waiting for a container's end, and noticing that who was to record it is gone."""

from __future__ import annotations

import time

from ..errors import NotFound
from ..linux.process import wait_any_gone, wait_gone
from .context import Context
from .finishing import finish, record_exit
from .model import ContainerRecord, ContainerState

_POLL_SECONDS = 0.02
_REMOVAL_SECONDS = 10.0
_EXIT_CODE_SECONDS = 0.003
"""What conmon needs from a container's end to the exit code."""


def wait(context: Context, container_id: str, timeout_seconds: float | None = None) -> int:
    """Wait until a container has ended and return its exit code, a removed one's as well.

    One that its policy restarts has ended all the same; one that waits to be restarted is waited
    for until its next end.

    Raises:
        TimeoutError: if it still lives after that time.
    """
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    first: ContainerRecord | None = None
    while True:
        record = context.rows.find(container_id)
        if record is None:
            return _last_exit_code(context, container_id)
        if _settled(record):
            return record.runtime.exit_code
        first = first or record
        if _has_ended_since(first, record):
            restarting = record.state is ContainerState.RESTARTING
            return record.runtime.exit_code if restarting else _last_exit_code(context, record.id)
        if deadline is not None and time.monotonic() > deadline:
            raise TimeoutError(f"container {record.short_id} still runs")
        _wait_a_little(context, record, deadline)


def _has_ended_since(first: ContainerRecord, now: ContainerRecord) -> bool:
    """Whether a restart was counted, or another run began that none was to precede."""
    if first.runtime.restarts.count != now.runtime.restarts.count:
        return True
    return first.state is not ContainerState.RESTARTING and first.runtime.run != now.runtime.run


def _last_exit_code(context: Context, container_id: str) -> int:
    """What the journal says, the one witness of a run that was followed by another or a removal."""
    code = context.rows.last_exit_code(container_id)
    if code is None:
        raise NotFound("container", container_id)
    return code


def _settled(record: ContainerRecord) -> bool:
    """Whether nothing more will happen: one that is to be removed is waited for until it is."""
    if record.state.lives or record.runtime.starting:
        return False
    if record.state is ContainerState.CREATED:
        return True
    removing = record.spec.auto_remove and not record.runtime.restarts.kept
    removing = removing or record.state is ContainerState.REMOVING
    ended_seconds = (time.time_ns() - record.runtime.finished_ns) / 1e9
    return not removing or ended_seconds > _REMOVAL_SECONDS


def _wait_a_little(context: Context, record: ContainerRecord, deadline: float | None) -> None:
    context.root.metastore.rest()
    monitor = record.runtime.monitor_process
    if record.runtime.monitor != "conmon" or monitor is None:
        time.sleep(_POLL_SECONDS)
        return
    if _finished_here(context, record):
        return
    left = None if deadline is None else max(0.0, deadline - time.monotonic())
    process = record.runtime.process
    if process is not None and process.alive:
        if wait_any_gone((process, monitor), left) and not process.alive:
            time.sleep(_EXIT_CODE_SECONDS)
    elif monitor.alive:
        wait_gone(monitor, _POLL_SECONDS if left is None else min(left, _POLL_SECONDS))
    if not monitor.alive:
        after = context.rows.find(record.id)
        if after is not None and after.runtime.monitor_process == monitor:
            lost(context, after)  # conmon was killed, or its exit command was


def _finished_here(context: Context, record: ContainerRecord) -> bool:
    """Record an end that conmon has told of: its exit command, a program that first has to start,
    is to do that, but who waits is here already."""
    process = record.runtime.process
    if record.spec.restart.restarts or process is None or not record.runtime.run:
        return False  # who restarts it outlives this process
    if process.alive or context.files(record.id).exit_code() is None:
        return False
    finish(context, record.id, record.runtime.run)
    return True


def lost(context: Context, record: ContainerRecord) -> None:
    """Finish a live container whose conmon is gone: kill what runs on, and record it."""
    with context.locked(record.id, "is recording its end"):
        now = context.rows.find(record.id)
        if now is None or not now.state.lives:
            return
        if now.runtime.monitor_process == record.runtime.monitor_process:
            record_exit(context, now, context.files(now.id).exit_code())
