"""Changing the limits of a container that exists, also while it runs.

They are recorded first, so that the next start applies them whatever happens; what the kernel
refuses is taken back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from ..effects import effect
from ..errors import FailedPrecondition, InvalidArgument, NotFound, StowageError
from ..linux.controllers import set_pids_limit
from .context import Context
from .model import ContainerRecord, ContainerSpec, ContainerState
from .resource_checks import verified
from .resource_config import apply_io_weights, resource_config
from .resources import Resources

#: What may be changed, by field of :class:`Resources`.
CHANGEABLE = frozenset(
    {
        "memory_bytes", "memory_swap_bytes", "memory_reservation_bytes", "nano_cpus",
        "cpu_shares", "cpu_period", "cpu_quota", "cpuset_cpus", "cpuset_mems", "pids_limit",
        "blkio_weight",
    }
)  # fmt: skip

#: What the kernel has where a container has no limit.
_UNLIMITED = {
    "memory_bytes": -1, "memory_swap_bytes": -1, "cpu_shares": 1024, "cpu_quota": -1,
}  # fmt: skip


def update(
    context: Context, container_id: str, limits: Mapping[str, Any], **wishes: Any
) -> ContainerRecord:
    """Change *limits* (by field of :class:`Resources`) of a container and return it.

    *wishes* are other fields of its specification, which hold from its next end or start on.

    Raises:
        InvalidArgument: for limits that cannot be, or not together with those that it has.
        FailedPrecondition: if it is being removed.
        CommandFailed: if the kernel refuses them; then all is as before.
    """
    unknown = set(limits) - CHANGEABLE
    if unknown:
        raise InvalidArgument(f"{', '.join(sorted(unknown))} cannot be changed")
    with context.locked(container_id, "is updating it"):
        record = context.rows.find(container_id)
        if record is None:
            raise NotFound("container", container_id)
        try:
            return _update(context, record, limits, wishes)
        except StowageError as error:
            error.brief = f"Cannot update container {record.id}: {error.brief}"
            raise


def _update(
    context: Context,
    record: ContainerRecord,
    limits: Mapping[str, Any],
    wishes: Mapping[str, Any],
) -> ContainerRecord:
    if record.state in (ContainerState.REMOVING, ContainerState.DEAD):
        raise FailedPrecondition('Container is marked for removal and cannot be "update".')
    if "restart" in wishes and record.spec.auto_remove:
        raise InvalidArgument(
            "Restart policy cannot be updated because AutoRemove is enabled for the container"
        )
    asked = verified(Resources(**limits), update=True)
    spec = replace(record.spec, resources=_joined(record.spec.resources, asked, limits), **wishes)
    changed = context.rows.respecify(record, spec)
    if limits and record.state in (ContainerState.RUNNING, ContainerState.PAUSED):
        try:
            _apply(context, changed, asked, limits)
        except BaseException:
            _take_back(context, changed, record.spec, limits)
            raise
    context.rows.record_event(changed, "update")
    return changed


def _joined(before: Resources, asked: Resources, limits: Mapping[str, Any]) -> Resources:
    """Return what the container then has, as Docker joins both."""
    for nano, other, words in (
        (asked.nano_cpus, before.cpu_period, "Nano CPUs cannot be updated as CPU Period"),
        (asked.nano_cpus, before.cpu_quota, "Nano CPUs cannot be updated as CPU Quota"),
        (asked.cpu_period, before.nano_cpus, "CPU Period cannot be updated as NanoCPUs"),
        (asked.cpu_quota, before.nano_cpus, "CPU Quota cannot be updated as NanoCPUs"),
    ):
        if nano and other:
            raise InvalidArgument(f"Conflicting options: {words} has already been set")
    unlimited = before.memory_swap_bytes == -1
    if (
        asked.memory_bytes > before.memory_swap_bytes
        and not asked.memory_swap_bytes
        and not unlimited
    ):
        raise InvalidArgument(
            "Memory limit should be smaller than already set memoryswap limit, "
            "update the memoryswap at the same time"
        )
    changes = {name: getattr(asked, name) for name in limits}
    if "pids_limit" in changes:
        changes["pids_limit"] = max(changes["pids_limit"], 0)
    return replace(before, **changes)


def _apply(
    context: Context, record: ContainerRecord, asked: Resources, limits: Mapping[str, Any]
) -> None:
    cgroup, files = context.cgroup(record), context.files(record.id)
    config = resource_config(replace(asked, pids_limit=0))
    if config:
        place = files.bundle / "update.json"
        with effect("container.write_limits", path=place):
            place.write_text(json.dumps(config))
        context.runtime_of(record).update(record.id, place, files.runtime_log)
    apply_io_weights(cgroup, asked)
    if "pids_limit" in limits:
        set_pids_limit(cgroup, asked.pids_limit)


def _take_back(
    context: Context, changed: ContainerRecord, before: ContainerSpec, limits: Mapping[str, Any]
) -> None:
    record = context.rows.respecify(changed, before)
    known = {name: getattr(before.resources, name) for name in limits}
    if "nano_cpus" in known:
        known.setdefault("cpu_quota", before.resources.cpu_quota)
    known = {name: value or _UNLIMITED.get(name, value) for name, value in known.items()}
    try:
        _apply(context, record, Resources(**known), limits)
    except StowageError:
        pass  # the one that was refused has changed nothing; this was for those before it
