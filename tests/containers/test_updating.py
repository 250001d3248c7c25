"""Other limits for a container that exists: at once, at its next start, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stowage.containers.model import ContainerRecord
from stowage.containers.resources import Resources
from stowage.errors import CommandFailed, InvalidArgument, NotFound

from .boxes import Boxes

MEMORY = ("memory.limit_in_bytes", "memory.max")


def limit(boxes: Boxes, record: ContainerRecord, *names: str) -> str:
    """What the first of these files of a container's cgroup says."""
    for directory in boxes.cgroup(record).directories():
        for name in names:
            file = Path(directory, name)
            if file.exists():
                return file.read_text().strip()
    raise AssertionError(names)


def test_limits_change_while_it_runs_and_stay(by_runtime: Boxes) -> None:
    boxes = by_runtime
    record = boxes.start("sleep", "60", resources=Resources(memory_bytes=64 << 20))
    changes: dict[str, Any] = {
        "memory_bytes": 32 << 20, "cpu_shares": 200, "pids_limit": 50, "cpuset_cpus": "0",
        "blkio_weight": 200,
    }  # fmt: skip

    def seen() -> list[str]:
        weight = ("blkio.weight", "blkio.bfq.weight", "io.bfq.weight", "io.weight")
        return [
            limit(boxes, record, *names).split()[-1]
            for names in (MEMORY, ("pids.max",), ("cpuset.cpus",), weight)
        ]

    boxes.containers.update(record.id, changes)
    now = seen()
    assert now[:3] == [str(32 << 20), "50", "0"]
    assert now[3] in ("200", "1919")

    boxes.containers.stop(record.id, timeout_seconds=0)
    boxes.containers.start(record.id)
    assert seen() == now
    assert boxes.containers.get(record.id).spec.resources == Resources(
        memory_swap_bytes=128 << 20, shm_size_bytes=64 << 20, **changes
    )


def test_limits_are_taken_back(by_runtime: Boxes) -> None:
    boxes = by_runtime
    asked = Resources(memory_bytes=64 << 20, pids_limit=50)
    record = boxes.start("sleep", "60", resources=asked)

    updated = boxes.containers.update(record.id, {"pids_limit": -1, "memory_swap_bytes": -1})

    assert limit(boxes, record, "pids.max") == "max"
    assert (updated.spec.resources.pids_limit, updated.spec.resources.memory_swap_bytes) == (0, -1)


def test_a_stopped_container_has_them_from_its_next_start_on(boxes: Boxes) -> None:
    record = boxes.containers.create(boxes.spec("sleep", "60"))
    boxes.containers.update(record.id, {"pids_limit": 33})
    boxes.containers.start(record.id)

    assert limit(boxes, record, "pids.max") == "33"


@pytest.mark.parametrize(
    ("before", "changes", "message"),
    [
        ({}, {"memory_bytes": 1}, "Minimum memory limit allowed is 6MB"),
        (
            {"memory_bytes": 8 << 20}, {"memory_bytes": 32 << 20},
            "Memory limit should be smaller than already set memoryswap limit, update the "
            "memoryswap at the same time",
        ),
        (
            {"nano_cpus": 10**9}, {"cpu_quota": 5000},
            "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set",
        ),
        (
            {"cpu_period": 5000}, {"nano_cpus": 10**9},
            "Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_and_nothing_changes(
    boxes: Boxes, before: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    record = boxes.containers.create(boxes.spec("true", resources=Resources(**before)))
    with pytest.raises(InvalidArgument) as refusal:
        boxes.containers.update(record.id, changes)

    assert refusal.value.brief == f"Cannot update container {record.id}: {message}"
    assert boxes.containers.get(record.id).spec == record.spec


def test_what_the_kernel_refuses_is_taken_back(
    by_runtime: Boxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quota beyond what it can count; what was set before it is undone."""
    monkeypatch.setattr("stowage.containers.resource_checks._MOST_QUOTA", 1 << 62)
    boxes = by_runtime
    record = boxes.start("sleep", "60", resources=Resources(pids_limit=50, cpu_period=1000))
    with pytest.raises(CommandFailed, match="OCI runtime update failed"):
        boxes.containers.update(
            record.id,
            {"memory_bytes": 8 << 20, "memory_swap_bytes": 8 << 20, "cpu_quota": 1 << 62},
        )

    assert boxes.containers.get(record.id).spec == record.spec
    assert limit(boxes, record, *MEMORY) in ("max", str((1 << 63) - 4096))
    assert limit(boxes, record, "pids.max") == "50"


def test_only_a_container_and_only_limits_are_updated(boxes: Boxes) -> None:
    with pytest.raises(NotFound, match="No such container: nosuch"):
        boxes.containers.update("nosuch", {"pids_limit": 1})
    record = boxes.containers.create(boxes.spec("true"))
    with pytest.raises(InvalidArgument, match="ulimits cannot be changed"):
        boxes.containers.update(record.id, {"ulimits": {}})
