"""Pausing: a container stands still until it is unpaused, whoever else wants it to."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from stowage.containers.model import ContainerState
from stowage.errors import CommandFailed, FailedPrecondition, InvalidArgument

from .boxes import Boxes, until


def test_a_paused_container_stands_still(boxes: Boxes) -> None:
    """And says so, to exec, to rm and to start as well, in Docker's words."""
    record = boxes.start("sleep", "60")
    boxes.containers.pause(record.id)
    boxes.open()

    assert boxes.cgroup(record).frozen
    assert boxes.containers.get(record.id).state is ContainerState.PAUSED
    for refused, words in (
        (lambda: boxes.containers.pause(record.id), f"Container {record.id} is already paused"),
        (
            lambda: boxes.shell(record, "true"),
            f"Container {record.name} is paused, unpause the container before exec",
        ),
        (
            lambda: boxes.containers.remove(record.id),
            f"You cannot remove a paused container {record.id}. Unpause and then stop the "
            "container before attempting removal or force remove",
        ),
        (
            lambda: boxes.containers.start(record.id),
            "cannot start a paused container, try unpause instead",
        ),
        (
            lambda: boxes.containers.attach(record.id),
            "You cannot attach to a paused container, unpause it first",
        ),
    ):
        with pytest.raises(FailedPrecondition) as error:
            refused()
        assert error.value.brief == words
    boxes.containers.unpause(record.id)
    assert not boxes.cgroup(record).frozen
    assert boxes.shell(record, "echo on") == "on\n"
    assert list(boxes.engine.layout.locks.glob("freeze-*")) == []


def test_only_what_runs_can_be_paused_and_only_what_is_paused_unpaused(boxes: Boxes) -> None:
    record = boxes.containers.create(boxes.spec("sleep", "60"))

    with pytest.raises(FailedPrecondition, match=f"^Container {record.id} is not running$"):
        boxes.containers.pause(record.id)
    with pytest.raises(FailedPrecondition, match=f"^Container {record.id} is not paused$"):
        boxes.containers.unpause(record.id)


def test_a_commit_leaves_a_paused_container_so(boxes: Boxes) -> None:
    record = boxes.start("sleep", "60")
    with boxes.containers.frozen(record.id):
        boxes.containers.pause(record.id)
    assert boxes.cgroup(record).frozen
    with boxes.containers.frozen(record.id):
        pass
    assert boxes.cgroup(record).frozen
    with boxes.containers.frozen(record.id):
        boxes.containers.unpause(record.id)

    assert not boxes.cgroup(record).frozen


@pytest.mark.parametrize("verb", ["stop", "kill", "remove"])
def test_a_paused_container_can_be_ended(boxes: Boxes, verb: str) -> None:
    record = boxes.start("sh", "-c", "trap 'exit 6' TERM; while :; do sleep 0.02; done")
    until(lambda: boxes.shell(record, "ps").count("sleep"), "the trap to be set")
    boxes.containers.pause(record.id)
    if verb == "stop":
        boxes.containers.stop(record.id, 20)
        code = 6
    elif verb == "kill":
        boxes.containers.kill(record.id)
        code = 137
    else:
        boxes.containers.remove(record.id, force=True)
        assert boxes.containers.list() == []
        return

    assert boxes.containers.wait(record.id, timeout_seconds=20) == code
    assert boxes.containers.get(record.id).state is ContainerState.EXITED


@pytest.mark.parametrize("effect", ["cgroup.freeze", "cgroup.thaw"])
def test_a_kill_in_the_middle_is_undone(boxes: Boxes, effect: str) -> None:
    """Frozen and recorded as paused, or neither."""
    record = boxes.start("sleep", "60")
    verb = "pause"
    if effect == "cgroup.thaw":
        boxes.containers.pause(record.id)
        verb = "unpause"
    script = (
        "import sys, os, signal\n"
        "from contextlib import contextmanager\n"
        "from stowage import effects\n"
        "from stowage.engine import Engine\n"
        "containers = Engine(sys.argv[1]).containers\n"
        "@contextmanager\n"
        "def killer(name, facts):\n"
        "    if name == 'cgroup.thaw' == sys.argv[4]:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    yield\n"
        "    if name == sys.argv[4]:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "effects.observe(killer)\n"
        "getattr(containers, sys.argv[3])(sys.argv[2])\n"
    )
    command = [sys.executable, "-c", script, str(boxes.root), record.id, verb, effect]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert boxes.cgroup(record).frozen
    boxes.open()

    assert boxes.containers.get(record.id).state is ContainerState.RUNNING
    assert not boxes.cgroup(record).frozen
    assert list(boxes.engine.layout.locks.glob("freeze-*")) == []


# --- top and stats --------------------------------------------------------------------------------


def test_top_shows_a_containers_processes(boxes: Boxes) -> None:
    """As the host numbers them; with ps's own options, threads and refusals."""
    record = boxes.start("sh", "-c", "sleep 61 & sleep 62; true")
    until(lambda: len(boxes.cgroup(record).processes()) == 3, "all to run")
    until(lambda: "sleep 62" in str(boxes.containers.top(record.id).processes), "its program")
    found = boxes.containers.top(record.id)
    assert found.titles == ("UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD")
    assert boxes.containers.pid(record.id) in {int(process[1]) for process in found.processes}

    few = boxes.containers.top(record.id, ["-o", "pid,args"])
    assert few.titles == ("PID", "COMMAND")
    assert len(few.processes) == len(boxes.cgroup(record).processes())
    forest = boxes.containers.top(record.id, ["faux"])
    assert forest.titles[1] == "PID"
    with pytest.raises(InvalidArgument, match="Couldn't find PID field in ps output"):
        boxes.containers.top(record.id, ["-o", "args"])
    with pytest.raises(InvalidArgument, match='specifying "user=PID" is not allowed'):
        boxes.containers.top(record.id, ["-o", "user=PID"])
    with pytest.raises(CommandFailed, match=r"^ps: "):
        boxes.containers.top(record.id, ["--nosuch"])
    boxes.containers.stop(record.id, 0)
    with pytest.raises(FailedPrecondition, match="is not running"):
        boxes.containers.top(record.id)


def test_stats_are_what_a_container_uses(boxes: Boxes) -> None:
    record = boxes.start("sh", "-c", "while :; do :; done")
    sampler = boxes.containers.sampler()
    first = sampler.sample(record)
    used = boxes.cgroup(record)
    for _ in range(1000):
        second = sampler.sample(record)
        if second.cpu_percent:
            break

    assert first.cpu_percent == 0.0
    assert 0 < second.cpu_percent < 1000
    assert second.tasks == len(used.processes()) == 1
    assert 0 < second.memory_bytes < second.memory_limit_bytes
    assert 0 < second.memory_percent < 100
    assert (second.received_bytes, second.sent_bytes) == (0, 0)
    boxes.containers.stop(record.id, 0)
    ended = sampler.sample(boxes.containers.get(record.id))
    assert (ended.tasks, ended.memory_bytes, ended.memory_percent) == (0, 0, 0.0)
