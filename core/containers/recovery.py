"""Finishing what killed processes left: every row whose owner is gone, and whatever has no row.

Runs whenever a root is opened, beside other processes at work: a container whose lock is held is
somebody's, and is left alone. What lies around is listed before the rows are read, and a row is
written before anything of a container exists, so nothing living is taken for a leftover.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..effects import effect
from ..linux.cgroups import Cgroup
from ..linux.process import boot_id
from ..volumes import rows as volume_rows
from .context import Context
from .creating import discard
from .finishing import record_exit, remove_ended
from .freezing import held_still, thaw_if_forgotten
from .launching import clean_up, stop_monitor
from .model import ContainerRecord, ContainerState
from .names import is_id
from .restarting import wait_for_restart
from .rotation import ensure_rotator
from .starting import give_up_quietly

logger = logging.getLogger("stowage.containers")

#: Docker's exit code for what a reboot ended.
_REBOOTED = 255


def recover(context: Context) -> None:
    """Finish or take back all that killed processes left; goes on after a failure. Idempotent."""
    running = {*_cgroups(context), *_names(context.bundles), *_names(_states(context))}
    kept = set(_names(context.root.layout.containers))
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
    for endpoint in context.root.networks.orphaned_endpoints():
        _guarded(endpoint.container_id, partial(context.root.networks.disconnect, endpoint))
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
            _finish(context, record)


def _owner_lives(record: ContainerRecord) -> bool:
    """Whether the process that is to record this container's end is there to do it."""
    process = record.runtime.monitor_process
    return process is not None and process.alive


def _finish(context: Context, record: ContainerRecord) -> None:
    if record.state is ContainerState.REMOVING:
        clean_up(context, record)
        remove_ended(context, record)
    elif record.state is ContainerState.RESTARTING:
        _go_on_restarting(context, record)
    elif record.state.lives:
        rebooted = _rebooted(record)
        code = context.files(record.id).exit_code()
        record_exit(
            context, record, _REBOOTED if rebooted and code is None else code,
            may_restart=not rebooted,
        )  # fmt: skip
    elif not record.runtime.prepared:
        clean_up(context, record)
        discard(context, record)
    elif record.runtime.starting:
        give_up_quietly(context, record)
    elif record.runtime.restarts.kept_by is not None and not record.runtime.restarts.kept:
        _give_up_keeping(context, record)


def _go_on_restarting(context: Context, record: ContainerRecord) -> None:
    """Who waited, or was starting it, was killed. After a reboot `system resume` starts it."""
    stop_monitor(context, record)
    clean_up(context, record)
    rebooted = _rebooted(record)
    record = context.rows.update(
        record,
        state=ContainerState.EXITED if rebooted else ContainerState.RESTARTING,
        starting=False,
        monitor="",
        monitor_process=None,
    )
    if not rebooted:
        wait_for_restart(context, record)


def _give_up_keeping(context: Context, record: ContainerRecord) -> None:
    """Who stopped it to start it again was killed in between."""
    if record.spec.auto_remove:
        remove_ended(context, record)
    else:
        restarts = replace(record.runtime.restarts, kept_by=None)
        context.rows.update(record, restarts=restarts)


def _rebooted(record: ContainerRecord) -> bool:
    process = record.runtime.monitor_process or record.runtime.process
    booted = process.boot_id if process is not None else record.runtime.restarts.boot_id
    return booted not in ("", boot_id())


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
            _end(context, container_id)
            context.files(container_id).remove()


def _quiet(context: Context, container_id: str) -> None:
    """End what runs of a container that is recorded as not running: a start that was killed."""
    with context.locked_if_free(container_id, "is recovering it") as held:
        record = context.rows.find(container_id) if held else None
        if record is None or record.state.lives or _owner_lives(record):
            return
        stop_monitor(context, record)
        clean_up(context, record)


def _end(context: Context, container_id: str) -> None:
    cgroup: Cgroup = context.cgroup_without_row(container_id)
    cgroup.kill()
    with effect("runtime.forget", id=container_id):
        shutil.rmtree(_states(context) / container_id, ignore_errors=True)
    cgroup.remove()
