"""The limits of ``run``, ``create`` and ``update``, and what they ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from ..containers.resource_values import (
    parse_device_bps,
    parse_device_iops,
    parse_memory_swap,
    parse_ulimit,
    parse_weight_device,
)
from ..containers.resources import Resources
from ..containers.units import parse_memory, parse_nano_cpus
from .flags import Flag, Parsed, integer, many, switch


def _one(
    name: str, meaning: str, parse: Callable[[str], object], short: str = "", *, value: str = "int"
) -> Flag:
    return Flag(name, meaning, short, value=value, parse=parse)


#: Those that may be changed while the container runs.
UPDATE_FLAGS: Sequence[Flag] = (
    _one(
        "blkio-weight",
        "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)",
        integer,
        value="uint16",
    ),
    _one("cpu-period", "Limit CPU CFS (Completely Fair Scheduler) period", integer),
    _one("cpu-quota", "Limit CPU CFS (Completely Fair Scheduler) quota", integer),
    _one("cpu-shares", "CPU shares (relative weight)", integer, "c"),
    _one("cpus", "Number of CPUs", parse_nano_cpus, value="decimal"),
    Flag("cpuset-cpus", "CPUs in which to allow execution (0-3, 0,1)"),
    Flag("cpuset-mems", "MEMs in which to allow execution (0-3, 0,1)"),
    _one("memory", "Memory limit", parse_memory, "m", value="bytes"),
    _one("memory-reservation", "Memory soft limit", parse_memory, value="bytes"),
    _one(
        "memory-swap",
        "Swap limit equal to memory plus swap: '-1' to enable unlimited swap",
        parse_memory_swap,
        value="bytes",
    ),
    _one("pids-limit", "Tune container pids limit (set -1 for unlimited)", integer),
)

FLAGS: Sequence[Flag] = (
    *UPDATE_FLAGS,
    many(
        "blkio-weight-device",
        "Block IO weight (relative device weight)",
        parse=parse_weight_device,
    ),
    Flag("cgroup-parent", "Optional parent cgroup for the container"),
    many(
        "device-read-bps",
        "Limit read rate (bytes per second) from a device",
        parse=parse_device_bps,
    ),
    many(
        "device-read-iops",
        "Limit read rate (IO per second) from a device",
        parse=parse_device_iops,
    ),
    many(
        "device-write-bps",
        "Limit write rate (bytes per second) to a device",
        parse=parse_device_bps,
    ),
    many(
        "device-write-iops",
        "Limit write rate (IO per second) to a device",
        parse=parse_device_iops,
    ),
    _one("memory-swappiness", "Tune container memory swappiness (0 to 100)", integer),
    switch("oom-kill-disable", "Disable OOM Killer"),
    _one("oom-score-adj", "Tune host's OOM preferences (-1000 to 1000)", integer),
    _one("shm-size", "Size of /dev/shm", parse_memory, value="bytes"),
    many("ulimit", "Ulimit options", value="ulimit", parse=parse_ulimit),
)

#: flag -> field, for flags that hold one value
_FIELDS = {
    "blkio-weight": "blkio_weight",
    "cpu-period": "cpu_period",
    "cpu-quota": "cpu_quota",
    "cpu-shares": "cpu_shares",
    "cpus": "nano_cpus",
    "cpuset-cpus": "cpuset_cpus",
    "cpuset-mems": "cpuset_mems",
    "memory": "memory_bytes",
    "memory-reservation": "memory_reservation_bytes",
    "memory-swap": "memory_swap_bytes",
    "pids-limit": "pids_limit",
    "blkio-weight-device": "blkio_weight_device",
    "cgroup-parent": "cgroup_parent",
    "device-read-bps": "device_read_bps",
    "device-read-iops": "device_read_iops",
    "device-write-bps": "device_write_bps",
    "device-write-iops": "device_write_iops",
    "oom-kill-disable": "oom_kill_disable",
    "oom-score-adj": "oom_score_adj",
    "shm-size": "shm_size_bytes",
}


def changes(parsed: Parsed) -> dict[str, Any]:
    """Return what the flags that were given ask for, by field of :class:`Resources`."""
    return {
        field: parsed.typed(flag, object) for flag, field in _FIELDS.items() if flag in parsed.given
    }


def requested_resources(parsed: Parsed) -> Resources:
    """Return the limits that the flags of ``run`` or ``create`` ask for."""
    asked = replace(Resources(), **changes(parsed), ulimits=dict(parsed.typed("ulimit", tuple)))
    swappiness = parsed.number("memory-swappiness")
    return asked if swappiness in (None, -1) else replace(asked, memory_swappiness=swappiness)
