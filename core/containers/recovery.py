"""Finishing what killed processes left: every row whose owner is gone, and whatever has no row.

Runs whenever a root is opened, beside other processes at work: a container whose lock is held is
somebody's, and is left alone. What lies around is listed before the rows are read, and a row is
written before anything of a container exists, so nothing living is taken for a leftover.

Every command pays for the look; what finishes is imported only when there is something to finish
(:mod:`.settling`).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from ..volumes import rows as volume_rows
from .context import Context
from .freezing import held_still, thaw_if_forgotten
from .model import ContainerRecord
from .names import is_id
from .rotation import end_rotation, ensure_rotator, rotating

logger = logging.getLogger("stowage.containers")


def recover(context: Context) -> None:
    """Finish or take back all that killed processes left; goes on after a failure. Idempotent."""
    running = {*_cgroups(context), *_names(context.bundles), *_names(_states(context))}
    kept = {*_names(context.root.layout.containers), *context.with_lock()}
    wishes = rotating(context)
    for record in context.rows.unsettled():
        _guarded(record.id, partial(_settle, context, record))
    states = context.rows.states()
    for container_id in (running | kept) - set(states):
        _guarded(container_id, partial(_sweep, context, container_id))
    for container_id in running & set(states):
        if not states[container_id].lives:
            _guarded(container_id, partial(_quiet, context, container_id))
    for container_id in held_still(context):
        _guarded(container_id, partial(thaw_if_forgotten, context, container_id))
    if volume_rows.unfinished(context.root.metastore.read()):
        context.root.volumes.recover()
    if context.rows.endpoint_without_container():
        for endpoint in context.root.networks.orphaned_endpoints():
            _guarded(endpoint.container_id, partial(context.root.networks.disconnect, endpoint))
    for container_id in wishes - set(states):
        end_rotation(context, container_id)
    ensure_rotator(context)


def _guarded(container_id: str, step: Callable[[], None]) -> None:
    try:
        step()
    except Exception as error:  # noqa: BLE001  # whatever it is, the root must open
        logger.warning("recovery of container %s: %s", container_id[:12], error)


# --- rows -------------------------------------------------------------------------------------


def _settle(context: Context, seen: ContainerRecord) -> None:
    """Bring one row and the kernel together, unless its owner lives."""
    if _owner_lives(seen):
        return
    with context.locked_if_free(seen.id, "is recovering it") as held:
        record = context.rows.find(seen.id) if held else None
        if record is not None and not _owner_lives(record):
            from .settling import settle

            settle(context, record)


def _owner_lives(record: ContainerRecord) -> bool:
    """Whether the process that is to record this container's end is there to do it."""
    process = record.runtime.monitor_process
    return process is not None and process.alive


# --- what has no row --------------------------------------------------------------------------


def _cgroups(context: Context) -> Iterable[str]:
    return [name for name in context.cgroup_parent.children() if is_id(name)]


def _names(parent: Path) -> Iterable[str]:
    try:
        return [name for name in os.listdir(parent) if is_id(name)]
    except FileNotFoundError:
        return []


def _states(context: Context) -> Path:
    return context.running_directory / "runtime"


def _sweep(context: Context, container_id: str) -> None:
    """Remove what lies around of a container that has no row."""
    with context.locked_if_free(container_id, "is sweeping up after it") as held:
        if held and context.rows.find(container_id) is None:
            from .settling import sweep

            sweep(context, container_id)


def _quiet(context: Context, container_id: str) -> None:
    """End what runs of a container that is recorded as not running: a start that was killed."""
    with context.locked_if_free(container_id, "is recovering it") as held:
        record = context.rows.find(container_id) if held else None
        if record is None or record.state.lives or _owner_lives(record):
            return
        from .settling import end_quietly

        end_quietly(context, record)
