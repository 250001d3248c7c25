"""Letting a container stand still: until it is unpaused, or for as long as somebody needs it.

Who changes that holds the container's freeze lock, shared, from before until after. The last one
deletes its file, and lets the container run on unless its row says that it is paused. A file that
nobody holds is of a process that was killed; recovery does the same then.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..errors import FailedPrecondition, NotFound
from .context import Context
from .model import ContainerRecord, ContainerState

_PREFIX = "freeze-"
_WAIT_SECONDS = 10.0


def pause(context: Context, container_id: str) -> ContainerRecord:
    """Let a container stand still until it is unpaused; returns it.

    Raises:
        FailedPrecondition: in Docker's words, if it does not run, is paused already or restarts,
            or if its processes do not stop.
    """
    with context.locked(container_id, "is pausing it"):
        record = _found(context, container_id)
        if not record.state.lives:
            raise FailedPrecondition(f"Container {record.id} is not running")
        if record.state is ContainerState.PAUSED:
            raise FailedPrecondition(f"Container {record.id} is already paused")
        require_settled(record)
        with _freezing(context, record):
            _freeze(context, record)
            return context.rows.update(record, state=ContainerState.PAUSED, events=("pause",))


def unpause(context: Context, container_id: str) -> ContainerRecord:
    """Let a paused container run on, at once or when nobody else wants it to stand still.

    Raises:
        FailedPrecondition: "Container … is not paused".
    """
    with context.locked(container_id, "is unpausing it"):
        record = _found(context, container_id)
        if record.state is not ContainerState.PAUSED:
            raise FailedPrecondition(f"Container {record.id} is not paused")
        with _freezing(context, record):
            return context.rows.update(record, state=ContainerState.RUNNING, events=("unpause",))


def _found(context: Context, container_id: str) -> ContainerRecord:
    record = context.rows.find(container_id)
    if record is None:
        raise NotFound("container", container_id)
    return record


def require_settled(record: ContainerRecord) -> None:
    """Refuse what makes no sense between two runs of a container.

    Raises:
        FailedPrecondition: in Docker's words.
    """
    if record.state is ContainerState.RESTARTING:
        raise FailedPrecondition(
            f"Container {record.id} is restarting, wait until the container is running"
        )


@contextmanager
def frozen(context: Context, record: ContainerRecord, *, wanted: bool = True) -> Iterator[None]:
    """Let a running container stand still for the time of the ``with``.

    Several may ask for it at once: it runs on when the last of them is done, and if that is
    killed, when the root is next opened. One that is paused stays so.

    Raises:
        FailedPrecondition: if its processes do not stop.
    """
    if not wanted or record.state is not ContainerState.RUNNING:
        yield
        return
    with _freezing(context, record):
        _freeze(context, record)
        yield


@contextmanager
def _freezing(context: Context, record: ContainerRecord) -> Iterator[None]:
    lease = context.locks.acquire(
        _PREFIX + record.id,
        exclusive=False,
        subject=f"container {record.short_id}",
        wait_seconds=_WAIT_SECONDS,
    )
    try:
        with lease:
            yield
    finally:
        thaw_if_forgotten(context, record.id)


def _freeze(context: Context, record: ContainerRecord) -> None:
    try:
        context.cgroup(record).freeze()
    except FileNotFoundError:  # ended meanwhile
        pass
    except TimeoutError as error:
        raise FailedPrecondition(
            f"container {record.id} cannot be paused", details=str(error)
        ) from error


def thaw_if_forgotten(context: Context, container_id: str) -> None:
    """Let a container run on if nobody is left who wants it to stand still. Idempotent."""
    lease = context.locks.try_acquire(_PREFIX + container_id, exclusive=True)
    if lease is None:
        return
    with lease:
        record = context.rows.find(container_id)
        if record is None or record.state is not ContainerState.PAUSED:
            cgroup = context.cgroup(record) if record else context.cgroup_without_row(container_id)
            try:
                cgroup.thaw()
            except FileNotFoundError:  # ended meanwhile
                pass
        lease.discard()


def held_still(context: Context) -> Sequence[str]:
    """Return the ids of the containers that somebody lets stand still, or let when killed."""
    names = os.listdir(context.locks.directory)
    return [name.removeprefix(_PREFIX) for name in names if name.startswith(_PREFIX)]
