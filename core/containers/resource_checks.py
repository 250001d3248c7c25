"""Which limits can be: Docker's bounds, and what this machine's kernel has."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from ..errors import InvalidArgument
from ..linux.controllers import Support, support
from ..numbers import INT64_MAX
from ..records import field_names
from .resource_values import device_number, parse_list
from .resources import DEVICE_VALUES, Resources

logger = logging.getLogger("stowage.containers")

#: Below it a runtime cannot start.
MINIMUM_MEMORY_BYTES = 6 << 20
_CPU_SHARES = (2, 262144)
_MOST_PIDS = 4_194_304
"""PID_MAX_LIMIT of include/linux/threads.h."""
_MOST_QUOTA = (1 << 44) - 1
"""MAX_BW of kernel/sched/sched.h."""
#: What needs nothing of cgroups, and most containers have: the kernel is not asked for it.
_UNCHECKED: dict[str, Any] = {"ulimits": {}, "shm_size_bytes": 0, "cgroup_parent": ""}


def verified(asked: Resources, *, update: bool = False, able: Support | None = None) -> Resources:
    """Return what the kernel can do of *asked*, warning of what is discarded.

    With *update* memory and swap may be limited one without the other.

    Raises:
        InvalidArgument: in Docker's words.
    """
    _check_always(asked)
    if replace(asked, **_UNCHECKED) == Resources():
        return asked
    able = able or support()
    got = _discard(asked, able)
    _check_memory(got, update=update)
    got = _check_cpu(got)
    _check_sets(got, able)
    if got.blkio_weight and not 10 <= got.blkio_weight <= 1000:
        raise InvalidArgument("Range of blkio weight is from 10 to 1000")
    for name in DEVICE_VALUES:
        for one in getattr(got, name):
            device_number(one.path)
            if not Path(one.path).is_block_device():
                raise InvalidArgument(f"{one.path} is not a block device")
    if not -1000 <= got.oom_score_adj <= 1000:
        raise InvalidArgument(
            f"Invalid value {got.oom_score_adj}, range for oom score adj is [-1000, 1000]"
        )
    if got.memory_bytes and not got.memory_swap_bytes and not update:
        got = replace(got, memory_swap_bytes=min(2 * got.memory_bytes, INT64_MAX))
    if got.pids_limit > _MOST_PIDS:
        raise InvalidArgument(
            f"Invalid value {got.pids_limit}, the pids limit is at most {_MOST_PIDS}"
        )
    return replace(got, pids_limit=max(got.pids_limit, 0) if not update else got.pids_limit)


def _check_always(asked: Resources) -> None:
    if asked.shm_size_bytes < 0:
        raise InvalidArgument("SHM size can not be less than 0")
    if ".." in asked.cgroup_parent.split("/"):
        raise InvalidArgument(
            f"invalid cgroup parent: {asked.cgroup_parent!r} contains '..'",
            resolution="name it from the root of the hierarchy on, as in /batch/night",
        )
    for name in field_names(Resources):
        value = getattr(asked, name)
        if name != "nano_cpus" and isinstance(value, int) and abs(value) > INT64_MAX:
            raise InvalidArgument(f"{name} is larger than 64 bits hold: {value}")


def _discard(asked: Resources, able: Support) -> Resources:
    """Take out what the kernel has not, in the words of dockerd's warnings."""
    got = asked

    def drop(unable: bool, text: str, **changes: Any) -> None:
        nonlocal got
        if unable:
            logger.warning("%s", text)
            got = replace(got, **changes)

    missing = "Your kernel does not support %s or the cgroup is not mounted. %s"
    drop(
        bool(got.memory_bytes) and not able.memory,
        missing % ("memory limit capabilities", "Limitation discarded."),
        memory_bytes=0, memory_swap_bytes=-1,
    )  # fmt: skip
    drop(
        bool(got.memory_bytes) and got.memory_swap_bytes != -1 and not able.swap,
        missing % ("swap limit capabilities", "Memory limited without swap."),
        memory_swap_bytes=-1,
    )
    drop(
        got.memory_swappiness is not None and not able.swappiness,
        missing % ("memory swappiness capabilities", "Memory swappiness discarded."),
        memory_swappiness=None,
    )
    drop(
        bool(got.memory_reservation_bytes) and not able.memory,
        missing % ("memory soft limit capabilities", "Limitation discarded."),
        memory_reservation_bytes=0,
    )
    drop(
        got.oom_kill_disable and not able.oom_kill_disable,
        "Your kernel does not support OomKillDisable. OomKillDisable discarded.",
        oom_kill_disable=False,
    )
    drop(
        got.pids_limit > 0 and not able.pids,
        missing % ("PIDs limit capabilities", "PIDs limit discarded."),
        pids_limit=0,
    )
    drop(
        got.cpu_shares > 0 and not able.cpu,
        missing % ("CPU shares", "Shares discarded."),
        cpu_shares=0,
    )
    drop(
        bool(got.cpu_period or got.cpu_quota) and not able.cpu,
        "Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.",
        cpu_period=0, cpu_quota=0,
    )  # fmt: skip
    drop(
        bool(got.cpuset_cpus or got.cpuset_mems) and not able.cpuset,
        missing % ("cpuset", "Cpuset discarded."),
        cpuset_cpus="", cpuset_mems="",
    )  # fmt: skip
    drop(
        bool(got.blkio_weight or got.blkio_weight_device) and not able.io,
        missing % ("Block I/O weight", "Weight discarded."),
        blkio_weight=0, blkio_weight_device=(),
    )  # fmt: skip
    drop(
        any(getattr(got, name) for name in DEVICE_VALUES) and not able.io,
        missing % ("Block I/O limits", "Block I/O limits discarded."),
        **dict.fromkeys(DEVICE_VALUES, ()),
    )
    if got.oom_kill_disable and not got.memory_bytes:
        logger.warning(
            "OOM killer is disabled for the container, but no memory limit is set, this can "
            "result in the system running out of resources."
        )
    if got.nano_cpus and not able.cpu:
        raise InvalidArgument(
            "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the "
            "cgroup is not mounted"
        )
    return got


def _check_memory(got: Resources, *, update: bool) -> None:
    memory, swap, reserved = (
        got.memory_bytes, got.memory_swap_bytes, got.memory_reservation_bytes,
    )  # fmt: skip
    if memory and memory < MINIMUM_MEMORY_BYTES:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if memory and 0 < swap < memory:
        raise InvalidArgument(
            "Minimum memoryswap limit should be larger than memory limit, see usage"
        )
    if swap > 0 and not memory and not update:
        raise InvalidArgument(
            "You should always set the Memory limit when using Memoryswap limit, see usage"
        )
    if got.memory_swappiness is not None and not 0 <= got.memory_swappiness <= 100:
        raise InvalidArgument(
            f"invalid value: {got.memory_swappiness}. Valid memory swappiness range is 0-100"
        )
    if reserved and reserved < MINIMUM_MEMORY_BYTES:
        raise InvalidArgument("Minimum memory reservation allowed is 6MB")
    if memory and memory < reserved:
        raise InvalidArgument(
            "Minimum memory limit can not be less than memory reservation limit, see usage"
        )


def _check_cpu(got: Resources) -> Resources:
    if got.nano_cpus and got.cpu_period:
        raise InvalidArgument("Conflicting options: Nano CPUs and CPU Period cannot both be set")
    if got.nano_cpus and got.cpu_quota:
        raise InvalidArgument("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
    count = len(os.sched_getaffinity(0))
    if not 0 <= got.nano_cpus <= count * 10**9:
        raise InvalidArgument(
            f"Range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available"
        )
    if 0 < got.nano_cpus < 10**7:  # a quota below 1 ms is refused by the kernel
        raise InvalidArgument(
            f"Range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available"
        )
    if got.cpu_period and not 1000 <= got.cpu_period <= 1_000_000:
        raise InvalidArgument(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    if 0 < got.cpu_quota < 1000:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if got.cpu_quota > _MOST_QUOTA:
        raise InvalidArgument(f"CPU cfs quota can not be larger than {_MOST_QUOTA} microseconds")
    got = replace(got, cpu_quota=max(got.cpu_quota, -1))
    if got.cpu_shares < 0:
        raise InvalidArgument("shares: invalid argument")
    if got.cpu_shares:
        least, most = _CPU_SHARES
        return replace(got, cpu_shares=min(max(got.cpu_shares, least), most))
    return got


def _check_sets(got: Resources, able: Support) -> None:
    for asked, there, kind, things in (
        (got.cpuset_cpus, able.cpus, "cpus", "CPUs"),
        (got.cpuset_mems, able.mems, "mems", "memory nodes"),
    ):
        try:
            wanted = parse_list(asked)
        except ValueError as error:
            raise InvalidArgument(f"Invalid value {asked} for cpuset {kind}: {error}") from None
        if not wanted <= parse_list(there):
            raise InvalidArgument(
                f"Requested {things} are not available - requested {asked}, available: {there}"
            )
