"""Killed or failing at any step of its network, a container leaves no row, rule, link or port."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .boxes import Boxes
from .victims import Victims, start, victims
from .wires import assert_quiet

pytestmark = pytest.mark.requires("containers", "conmon", "busybox")

#: Effects of a network: what makes, changes or takes away something outside the container's files.
NETWORK = (
    "address", "bridge", "conntrack", "link", "lock", "namespace", "nft", "port", "sandbox",
    "sysctl",
)  # fmt: skip


@pytest.fixture(autouse=True)
def quiet(boxes: Boxes) -> Iterator[None]:
    boxes.run("true", network=None)
    yield
    boxes.clear()
    assert_quiet(boxes)


def steps(these: Victims, record: Path, work: str) -> list[int]:
    """Return the numbers of the effects to interrupt: of each name the first and the last one."""
    assert these.end(work, f"record:{record}") == 0
    lines = [line.split() for line in record.read_text().splitlines()]
    names = [name for _, subject, name in lines if subject == "effect"]
    numbered = list(enumerate(names, start=1))
    wanted = {name for name in names if name.partition(".")[0] in NETWORK}
    last = {name: number for number, name in numbered}
    first = {name: number for number, name in reversed(numbered)}
    return sorted({first[name] for name in wanted} | {last[name] for name in wanted})


@pytest.mark.parametrize("fault", ["kill", "after:kill", "errno=ENOMEM"])
@pytest.mark.parametrize("work", ["run", "start"])
def test_a_container_that_was_coming_up(
    work: str, fault: str, boxes: Boxes, tmp_path: Path
) -> None:
    with victims(boxes.root) as these:
        numbers = steps(these, tmp_path / "record", work)
        assert len(numbers) > 10
        boxes.open()
        boxes.clear()

        ends = []
        for number in numbers:
            ends.append(these.end(work, f"effect=*:n={number}:{fault}"))
            boxes.open()
            boxes.clear()
            assert_quiet(boxes)
    # one run has a few effects more or less than another: not every last one is reached
    wanted = -9 if fault.endswith("kill") else 2
    assert ends.count(wanted) > len(ends) / 2


@pytest.mark.parametrize("fault", ["kill", "after:kill", "errno=ENOMEM"])
def test_a_container_that_was_going_away(fault: str, boxes: Boxes, tmp_path: Path) -> None:
    start(boxes.engine)
    with victims(boxes.root) as these:
        numbers = steps(these, tmp_path / "record", "stop")
        assert numbers

        for number in numbers:
            start(boxes.engine)
            these.end("stop", f"effect=*:n={number}:{fault}")
            boxes.open()
            boxes.clear()
            assert_quiet(boxes)
