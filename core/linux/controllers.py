"""What the kernel's cgroup controllers can do here, on cgroup v1, hybrid and v2.

Sources: Documentation/admin-guide/cgroup-v1/*.rst, cgroup-v2.rst and block/bfq-iosched.rst.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from msgspec import Struct

from ..effects import effect
from .cgroups import Cgroup, hierarchies


class Support(Struct, frozen=True):
    """Which limits can be set; *cpus* and *mems* are what there is, as a list (``0-3``)."""

    memory: bool
    swap: bool
    swappiness: bool
    oom_kill_disable: bool
    pids: bool
    cpu: bool
    cpuset: bool
    io: bool
    cpus: str
    mems: str


@lru_cache(maxsize=1)
def support() -> Support:
    """Return what this machine's cgroups can do; found out once."""
    known = hierarchies()
    unified: set[str] = set()
    if known.unified is not None:
        unified = set(_read(f"{known.unified}/cgroup.controllers").split())

    def v1(name: str) -> bool:
        return any(os.path.exists(f"{base}/{name}") for base in known.v1)

    return Support(
        memory="memory" in unified or v1("memory.limit_in_bytes"),
        swap="memory" in unified or v1("memory.memsw.limit_in_bytes"),
        swappiness=v1("memory.swappiness"),
        oom_kill_disable=v1("memory.oom_control"),
        # the root cgroup has no limit, so no file of it
        pids="pids" in unified or any(os.path.basename(base) == "pids" for base in known.v1),
        cpu="cpu" in unified or v1("cpu.cfs_quota_us"),
        cpuset="cpuset" in unified or v1("cpuset.cpus"),
        io="io" in unified or v1("blkio.throttle.read_bps_device"),
        cpus=_first(("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus")),
        mems=_first(("cpuset.mems.effective", "cpuset.effective_mems", "cpuset.mems")),
    )


def _first(names: Iterable[str]) -> str:
    """Return what the first of these files of a root cgroup says."""
    bases = hierarchies().all
    return next(filter(None, (_read(f"{base}/{name}") for name in names for base in bases)), "")


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def oom_kills(cgroup: Cgroup) -> int:
    """Return how many processes of *cgroup* the kernel has killed for want of memory."""
    for directory in cgroup.directories():
        for name in ("memory.events", "memory.oom_control"):
            for line in _read(f"{directory}/{name}").splitlines():
                key, _, value = line.partition(" ")
                if key == "oom_kill":
                    return int(value)
    return 0


def set_pids_limit(cgroup: Cgroup, limit: int) -> None:
    """Let *cgroup* have at most *limit* processes, or any number of them if it is 0 or less.

    Written here and not by the runtime: crun cannot take a limit back.
    """
    for directory in cgroup.directories():
        if os.path.exists(f"{directory}/pids.max"):
            _write(f"{directory}/pids.max", str(limit) if limit > 0 else "max")


# --- I/O weights ------------------------------------------------------------------------------


def set_io_weights(
    cgroup: Cgroup, weight: int, devices: Iterable[tuple[tuple[int, int], int]] = ()
) -> None:
    """Give *cgroup* a share of disk time, 10 to 1000, and perhaps another one per device.

    Written here and not by the runtime: crun knows no weight of bfq, whose files have their own
    names. A weight of 0 changes nothing.

    Raises:
        FileNotFoundError: if the kernel has no file for it.
        OSError: if a device's scheduler knows no weights.
    """
    _enable_io(cgroup)
    found = list(cgroup.directories())
    if weight:
        path, is_scaled = _weight_file(found)
        text = str(_to_io_weight(weight)) if is_scaled else str(weight)
        _write(path, f"default {text}" if is_scaled else text)
    for (major, minor), value in devices:
        path, is_scaled = _weight_device_file(found)
        text = str(_to_io_weight(value)) if is_scaled else str(value)
        _write(path, f"{major}:{minor} {text}")


def _weight_file(directories: list[str]) -> tuple[str, bool]:
    return _existing(
        directories,
        ("blkio.weight", False), ("blkio.bfq.weight", False), ("io.bfq.weight", False),
        ("io.weight", True),
    )  # fmt: skip


def _weight_device_file(directories: list[str]) -> tuple[str, bool]:
    return _existing(
        directories,
        ("blkio.weight_device", False), ("blkio.bfq.weight_device", False),
        ("io.bfq.weight", False), ("io.weight", True),
    )  # fmt: skip


def _existing(directories: list[str], *names: tuple[str, bool]) -> tuple[str, bool]:
    for directory, (name, is_scaled) in ((d, n) for d in directories for n in names):
        if os.path.exists(f"{directory}/{name}"):
            return f"{directory}/{name}", is_scaled
    raise FileNotFoundError("no file for weights of I/O")


def _to_io_weight(weight: int) -> int:
    """From 10 to 1000 to the 1 to 10000 of ``io.weight``, as runc converts it."""
    return 1 + (weight - 10) * 9999 // 990


def _write(path: str, text: str) -> None:
    with effect("cgroup.set", path=path, text=text):
        Path(path).write_text(text)


def _enable_io(cgroup: Cgroup) -> None:
    """On v2 a controller must be handed down from every parent."""
    base = hierarchies().unified
    if base is None or "io" not in _read(f"{base}/cgroup.controllers").split():
        return
    for parent in _parents(cgroup.path):
        control = f"{base}{parent}/cgroup.subtree_control"
        if "io" not in _read(control).split():
            _write(control, "+io")


def _parents(path: str) -> Iterator[str]:
    parts = path.strip("/").split("/")[:-1]
    yield ""
    for count in range(1, len(parts) + 1):
        yield "/" + "/".join(parts[:count])
