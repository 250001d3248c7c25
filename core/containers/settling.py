"""Finishing or taking back what a killed process has begun with a container."""

from __future__ import annotations

import shutil

from msgspec.structs import replace

from ..effects import effect
from ..linux.process import boot_id
from .context import Context
from .creating import discard
from .finishing import record_exit, remove_ended
from .launching import clean_up, stop_monitor
from .model import ContainerRecord, ContainerState
from .restarting import wait_for_restart
from .starting import give_up_quietly

#: Docker's exit code for what a reboot ended.
_REBOOTED = 255


def settle(context: Context, record: ContainerRecord) -> None:
    """Bring a container whose owner is gone to a state that nobody has to end; the caller holds
    its lock."""
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


def end_quietly(context: Context, record: ContainerRecord) -> None:
    """End what runs of a container that is recorded as not running; the caller holds its lock."""
    stop_monitor(context, record)
    clean_up(context, record)


def sweep(context: Context, container_id: str) -> None:
    """Remove all that is left of a container without a row; the caller holds its lock."""
    cgroup = context.cgroup_without_row(container_id)
    cgroup.kill()
    with effect("runtime.forget", id=container_id):
        shutil.rmtree(context.running_directory / "runtime" / container_id, ignore_errors=True)
    cgroup.remove()
    context.files(container_id).remove()
