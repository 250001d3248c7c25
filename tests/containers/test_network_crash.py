"""Killed or failing at any step of its network, a container leaves no row, rule, link or port."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stowage.engine import Engine
from stowage.errors import StowageError

from .boxes import Boxes
from .wires import assert_quiet

pytestmark = pytest.mark.requires("containers", "conmon", "busybox")

#: Effects of a network: what makes, changes or takes away something outside the container's files.
NETWORK = (
    "address", "bridge", "conntrack", "link", "lock", "namespace", "nft", "port", "sandbox",
    "sysctl",
)  # fmt: skip


def run(engine: Engine) -> None:
    """A run with a port, in process."""
    engine.run("busybox", ["true"], ports=["8080:80", "5353:53/udp"])


def start(engine: Engine) -> None:
    """A detached one, which stays."""
    engine.start(engine.create("busybox", ["sleep", "60"], ports=["8080:80"]).id)


def stop(engine: Engine) -> None:
    """The end of one that runs, by force."""
    for record in engine.containers.list():
        engine.containers.remove(record.id, force=True)


@pytest.fixture(autouse=True)
def quiet(boxes: Boxes) -> Iterator[None]:
    boxes.run("true", network=None)
    yield
    boxes.clear()
    assert_quiet(boxes)


def in_a_child(root: Path, rules: str, work: Callable[[Engine], None]) -> int:
    """Do *work* in a process of its own, with faults, and return how it ended: 0, 2 for a refusal,
    or -9."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.environ["STOWAGE_FAULTS"] = rules
            with Engine(root, observers=["faults"]) as engine:
                code = 0
                work(engine)
        except (StowageError, OSError):
            code = 2
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, 2, -9)
    return code


def steps(root: Path, record: Path, work: Callable[[Engine], None]) -> list[int]:
    """Return the numbers of the effects to interrupt: of each name the first and the last one."""
    assert in_a_child(root, f"record:{record}", work) == 0
    lines = [line.split() for line in record.read_text().splitlines()]
    names = [name for _, subject, name in lines if subject == "effect"]
    numbered = list(enumerate(names, start=1))
    wanted = {name for name in names if name.partition(".")[0] in NETWORK}
    last = {name: number for number, name in numbered}
    first = {name: number for number, name in reversed(numbered)}
    return sorted({first[name] for name in wanted} | {last[name] for name in wanted})


@pytest.mark.parametrize("fault", ["kill", "after:kill", "errno=ENOMEM"])
@pytest.mark.parametrize("work", [run, start], ids=lambda work: work.__name__)
def test_a_container_that_was_coming_up(
    work: Callable[[Engine], None], fault: str, boxes: Boxes, tmp_path: Path
) -> None:
    numbers = steps(boxes.root, tmp_path / "record", work)
    assert len(numbers) > 10
    boxes.open()
    boxes.clear()

    ends = []
    for number in numbers:
        ends.append(in_a_child(boxes.root, f"effect=*:n={number}:{fault}", work))
        boxes.open()
        boxes.clear()
        assert_quiet(boxes)
    # one run has a few effects more or less than another: not every last one is reached
    wanted = -9 if fault.endswith("kill") else 2
    assert ends.count(wanted) > len(ends) / 2


@pytest.mark.parametrize("fault", ["kill", "after:kill", "errno=ENOMEM"])
def test_a_container_that_was_going_away(fault: str, boxes: Boxes, tmp_path: Path) -> None:
    start(boxes.engine)
    numbers = steps(boxes.root, tmp_path / "record", stop)
    assert numbers

    for number in numbers:
        start(boxes.engine)
        in_a_child(boxes.root, f"effect=*:n={number}:{fault}", stop)
        boxes.open()
        boxes.clear()
        assert_quiet(boxes)
