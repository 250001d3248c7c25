"""Control groups on the real kernel, in whatever layout it has."""

from __future__ import annotations

import os
import subprocess
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
