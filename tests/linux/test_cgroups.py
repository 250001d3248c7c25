"""Control groups on the real kernel, in whatever layout it has."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stowage.linux.cgroups import Cgroup, hierarchies
from stowage.linux.process import start_time

pytestmark = pytest.mark.requires("cgroups")


@pytest.fixture
def cgroup() -> Iterator[Cgroup]:
    cgroup = Cgroup(f"/stowage-test-{os.getpid()}/inner/leaf")
    yield cgroup
    cgroup.kill()
    cgroup.remove()


@pytest.fixture
def sleeper(cgroup: Cgroup) -> Iterator[subprocess.Popen[bytes]]:
    cgroup.make()
    process = subprocess.Popen(["/bin/sleep", "60"])
    for directory in cgroup.directories():
        if "cpuset" not in directory:  # takes none before it is given CPUs
            Path(directory, "cgroup.procs").write_text(str(process.pid))
    yield process
    process.kill()
    process.wait()


def test_it_is_made_in_every_hierarchy_and_removed_with_its_parents(cgroup: Cgroup) -> None:
    cgroup.make()
    cgroup.make()
    found = list(cgroup.directories())

    assert len(found) == len(hierarchies().all)
    assert not cgroup.populated
    cgroup.remove()
    cgroup.remove()
    assert list(cgroup.directories()) == []
    assert list(Cgroup("/" + cgroup.path.split("/")[1]).directories()) == []


def test_parents_in_use_stay(cgroup: Cgroup) -> None:
    other = Cgroup(os.path.dirname(cgroup.path) + "/other")
    cgroup.make()
    other.make()
    cgroup.remove()

    assert len(list(other.directories())) == len(hierarchies().all)
    assert Cgroup(os.path.dirname(cgroup.path)).children() == {"other"}
    other.remove()


def test_processes_are_found_frozen_and_killed(
    cgroup: Cgroup, sleeper: subprocess.Popen[bytes]
) -> None:
    assert cgroup.processes() == Cgroup(os.path.dirname(cgroup.path)).processes() == {sleeper.pid}
    cgroup.freeze()
    assert cgroup.frozen
    cgroup.thaw()
    assert not cgroup.frozen
    cgroup.freeze()
    cgroup.kill()
    assert not cgroup.populated
    assert start_time(sleeper.pid) is None
    assert sleeper.wait() == -9


def test_one_with_processes_is_not_removed(
    cgroup: Cgroup, sleeper: subprocess.Popen[bytes]
) -> None:
    with pytest.raises(OSError, match="busy"):
        cgroup.remove()
    assert cgroup.populated


def test_what_is_gone_is_empty_and_dead() -> None:
    gone = Cgroup("/stowage-test-nosuch/x")

    assert gone.processes() == set()
    assert not gone.frozen
    gone.kill()
    gone.remove()
    with pytest.raises(FileNotFoundError):
        gone.freeze()


def test_what_forks_and_runs_away_is_killed(cgroup: Cgroup) -> None:
    """A chain: each process lives just long enough to fork the next, faster than pids are read."""
    cgroup.make()
    script = (
        "import os, sys, time\n"
        "end = time.monotonic() + 20\n"
        "sys.stdin.read()\n"
        "while time.monotonic() < end:\n"
        "    if os.fork():\n"
        "        os._exit(0)\n"
    )
    places = [f"{base}{cgroup.path}" for base in hierarchies().v1 or hierarchies().all]
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) as process:
        for place in places:
            if "cpuset" not in place:
                Path(place, "cgroup.procs").write_text(str(process.pid))
        process.communicate()
    cgroup.kill(timeout_seconds=5)

    assert not cgroup.populated


def test_one_hierarchy_that_refuses_does_not_keep_the_others(cgroup: Cgroup) -> None:
    if len(hierarchies().all) < 2:
        return
    cgroup.make()
    first = next(place for place in cgroup.directories() if "cpuset" not in place)
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        Path(first, "cgroup.procs").write_text(str(process.pid))
        try:
            with pytest.raises(OSError, match="busy"):
                cgroup.remove()
            assert list(cgroup.directories()) == [first]
        finally:
            process.kill()
