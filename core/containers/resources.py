"""What a container may use: the limits of ``run`` and ``update``, as asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from ..config_types import Ulimit
from ..records import as_dict, field_names

#: Docker's default of /dev/shm.
SHM_SIZE_BYTES = 64 << 20


class DeviceValue(Struct, frozen=True):
    """A weight, or a rate per second, of the host's block device at *path*."""

    path: str
    value: int


class Resources(Struct, frozen=True):
    """Limits of a container; 0, None or empty where there is none.

    *memory_swap_bytes* is memory and swap together, -1 without a limit. *nano_cpus* is in
    billionths of a CPU, *cpu_period* and *cpu_quota* in microseconds.
    """

    memory_bytes: int = 0
    memory_swap_bytes: int = 0
    memory_reservation_bytes: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool = False
    nano_cpus: int = 0
    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids_limit: int = 0
    blkio_weight: int = 0
    blkio_weight_device: tuple[DeviceValue, ...] = ()
    device_read_bps: tuple[DeviceValue, ...] = ()
    device_write_bps: tuple[DeviceValue, ...] = ()
    device_read_iops: tuple[DeviceValue, ...] = ()
    device_write_iops: tuple[DeviceValue, ...] = ()
    ulimits: Mapping[str, Ulimit] = field(default_factory=dict)
    oom_score_adj: int = 0
    shm_size_bytes: int = 0
    """Of ``/dev/shm``; 0 is the configured default until it is made."""
    cgroup_parent: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return as_dict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Resources:
        """Read what :meth:`to_json` gave; unknown keys are ignored."""
        known = {name: plain[name] for name in field_names(cls) if name in plain}
        for name in DEVICE_VALUES:
            known[name] = tuple(DeviceValue(**one) for one in known.get(name, ()))
        limits = known.get("ulimits", {}).items()
        known["ulimits"] = {name: Ulimit(**limit) for name, limit in limits}
        return cls(**known)


#: The fields that hold a value per device.
DEVICE_VALUES = (
    "blkio_weight_device", "device_read_bps", "device_write_bps", "device_read_iops",
    "device_write_iops",
)  # fmt: skip


def with_defaults(
    asked: Resources, ulimits: Mapping[str, Ulimit], shm_size_bytes: int
) -> Resources:
    """Return *asked* with what is configured for all containers filled in."""
    return replace(
        asked,
        ulimits={**ulimits, **asked.ulimits},
        shm_size_bytes=asked.shm_size_bytes or shm_size_bytes,
    )
