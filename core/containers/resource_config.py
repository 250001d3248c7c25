"""Limits in the words of the OCI runtime specification.

What a runtime sets is here; weights of I/O are not, for crun has none under bfq
(:func:`apply_io_weights`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import NotSupported
from ..linux.cgroups import Cgroup
from ..linux.controllers import set_io_weights
from .resource_values import device_number
from .resources import DeviceValue, Resources

_NO_LIMIT = (1 << 64) - 1
_CFS_PERIOD = 100_000


def resource_config(resources: Resources) -> dict[str, Any]:
    """Return ``linux.resources`` without its devices; empty where nothing is limited.

    Raises:
        InvalidArgument: if a device is gone.
    """
    found: dict[str, Any] = {
        "memory": _memory(resources),
        "cpu": _cpu(resources),
        "blockIO": _block_io(resources),
    }
    if resources.pids_limit:
        found["pids"] = {"limit": resources.pids_limit}
    return {key: value for key, value in found.items() if value}


def rlimits(resources: Resources) -> list[dict[str, Any]]:
    """Return ``process.rlimits``."""
    return [
        {
            "type": f"RLIMIT_{name.upper()}",
            "soft": _NO_LIMIT if limit.soft == -1 else limit.soft,
            "hard": _NO_LIMIT if limit.hard == -1 else limit.hard,
        }
        for name, limit in resources.ulimits.items()
    ]


def apply_io_weights(cgroup: Cgroup, resources: Resources) -> None:
    """Give *cgroup* the weights of I/O that are asked for.

    Raises:
        NotSupported: if the kernel or the scheduler of a device has none.
    """
    if not resources.blkio_weight and not resources.blkio_weight_device:
        return
    devices = [(device_number(one.path), one.value) for one in resources.blkio_weight_device]
    try:
        set_io_weights(cgroup, resources.blkio_weight, devices)
    except OSError as error:
        raise NotSupported(
            "Your kernel does not support this Block I/O weight",
            details=str(error),
            resolution="weights need the scheduler bfq: "
            "echo bfq > /sys/block/DEVICE/queue/scheduler",
        ) from error


def _memory(resources: Resources) -> dict[str, Any]:
    memory: dict[str, Any] = {
        "limit": resources.memory_bytes,
        "reservation": resources.memory_reservation_bytes,
        "swap": resources.memory_swap_bytes,
    }
    memory = {key: value for key, value in memory.items() if value}
    if resources.memory_swappiness is not None:
        memory["swappiness"] = resources.memory_swappiness
    if resources.oom_kill_disable:
        memory["disableOOMKiller"] = True
    return memory


def _cpu(resources: Resources) -> dict[str, Any]:
    period, quota = resources.cpu_period, resources.cpu_quota
    if resources.nano_cpus:
        period, quota = _CFS_PERIOD, resources.nano_cpus * _CFS_PERIOD // 10**9
    cpu: dict[str, Any] = {
        "shares": resources.cpu_shares,
        "period": period,
        "quota": quota,
        "cpus": resources.cpuset_cpus,
        "mems": resources.cpuset_mems,
    }
    return {key: value for key, value in cpu.items() if value}


def _block_io(resources: Resources) -> dict[str, Any]:
    limits = {
        "throttleReadBpsDevice": resources.device_read_bps,
        "throttleWriteBpsDevice": resources.device_write_bps,
        "throttleReadIOPSDevice": resources.device_read_iops,
        "throttleWriteIOPSDevice": resources.device_write_iops,
    }
    return {key: _rates(values) for key, values in limits.items() if values}


def _rates(values: Sequence[DeviceValue]) -> list[dict[str, int]]:
    found = []
    for one in values:
        major, minor = device_number(one.path)
        found.append({"major": major, "minor": minor, "rate": one.value})
    return found
