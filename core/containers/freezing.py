"""Letting a container stand still for a while, such that a kill of who asked for it is undone.

Who does holds the container's freeze lock, shared, from before until after. The last one deletes
its file: one that nobody holds is of a process that was killed, and recovery lets that container
run on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..errors import FailedPrecondition
from .context import Context
from .model import ContainerRecord, ContainerState

_PREFIX = "freeze-"


@contextmanager
def frozen(context: Context, record: ContainerRecord, *, wanted: bool = True) -> Iterator[None]:
    """Let a running container stand still for the time of the ``with``.

    Several may ask for it at once: it runs on when the last of them is done, and if that is
    killed, when the root is next opened. One that is paused stays so.

    Raises:
        FailedPrecondition: if its processes do not stop.
    """
    if not wanted or not record.state.lives or record.state is ContainerState.PAUSED:
        yield
        return
    lease = context.locks.acquire(
        _PREFIX + record.id, exclusive=False, subject=f"container {record.short_id}"
    )
    try:
        with lease:
            _freeze(context, record)
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
