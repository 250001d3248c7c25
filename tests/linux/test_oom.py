"""Seeing a shortage of memory in a cgroup that is gone: a real one on v1, a likeness of v2."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stowage.linux import cgroups
from stowage.linux.cgroups import Cgroup, Hierarchies
from stowage.linux.oom import OomWatch


def test_on_v2_the_parents_count_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only for a process that was killed: the parent counts for its other children, too."""
    known = Hierarchies((), str(tmp_path))
    monkeypatch.setattr(cgroups, "hierarchies", lambda: known)
    own = tmp_path / "p/c"
    own.mkdir(parents=True)
    counts = tmp_path / "p/memory.events"
    for place in (counts, own / "memory.events"):
        place.write_text("oom 4\noom_kill 4\noom_group_kill 0\n")

    with OomWatch(Cgroup("/p/c")) as watch:
        assert not watch.killed(137)
        counts.write_text("oom 5\noom_kill 5\noom_group_kill 0\n")
        assert watch.killed(137)
        assert not watch.killed(1)


@pytest.mark.requires("cgroups")
def test_on_v1_the_end_of_the_cgroup_is_no_shortage() -> None:
    """The kernel tells of both by the same descriptor."""
    cgroup = Cgroup(f"/stowage-test-oom-{os.getpid()}")
    cgroup.make()
    with OomWatch(cgroup) as watch:
        assert not watch.killed(137)
        cgroup.remove()
        assert not watch.killed(137)


def test_without_a_memory_controller_nothing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Hierarchies((str(tmp_path),), None)
    monkeypatch.setattr(cgroups, "hierarchies", lambda: known)
    tmp_path.joinpath("c").mkdir()

    with OomWatch(Cgroup("/c")) as watch:
        assert not watch.killed(137)
