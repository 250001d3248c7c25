"""The limits of a container as ``inspect`` shows them in ``HostConfig``."""

from __future__ import annotations

from collections.abc import Sequence

from .resources import DeviceValue, Resources


def host_resources(resources: Resources) -> dict[str, object]:
    """Return the keys of ``HostConfig`` that tell *resources*."""
    return {
        "Memory": resources.memory_bytes,
        "MemorySwap": resources.memory_swap_bytes,
        "MemoryReservation": resources.memory_reservation_bytes,
        "MemorySwappiness": resources.memory_swappiness,
        "OomKillDisable": resources.oom_kill_disable,
        "NanoCpus": resources.nano_cpus,
        "CpuShares": resources.cpu_shares,
        "CpuPeriod": resources.cpu_period,
        "CpuQuota": resources.cpu_quota,
        "CpusetCpus": resources.cpuset_cpus,
        "CpusetMems": resources.cpuset_mems,
        "PidsLimit": resources.pids_limit if resources.pids_limit > 0 else None,
        "BlkioWeight": resources.blkio_weight,
        "BlkioWeightDevice": _values(resources.blkio_weight_device, "Weight"),
        "BlkioDeviceReadBps": _values(resources.device_read_bps, "Rate") or None,
        "BlkioDeviceWriteBps": _values(resources.device_write_bps, "Rate") or None,
        "BlkioDeviceReadIOps": _values(resources.device_read_iops, "Rate") or None,
        "BlkioDeviceWriteIOps": _values(resources.device_write_iops, "Rate") or None,
        "Ulimits": [
            {"Name": name, "Hard": limit.hard, "Soft": limit.soft}
            for name, limit in resources.ulimits.items()
        ] or None,
        "OomScoreAdj": resources.oom_score_adj,
        "ShmSize": resources.shm_size_bytes,
        "CgroupParent": resources.cgroup_parent,
    }  # fmt: skip


def _values(values: Sequence[DeviceValue], key: str) -> list[dict[str, object]]:
    return [{"Path": one.path, key: one.value} for one in values]
