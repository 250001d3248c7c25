"""Weights of I/O and counts of OOM kills, on trees that look like each layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stowage.linux import cgroups, controllers
from stowage.linux.cgroups import Cgroup, Hierarchies
from stowage.linux.controllers import oom_kills, set_io_weights, support
from stowage.records import field_names

PATH = "/stowage/r/c"
Build = Callable[..., Cgroup]


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Build]:
    """``build(v1={"blkio": {file: text}}, v2={file: text})`` makes the cgroup's own files."""

    def make(
        v1: dict[str, dict[str, str]] | None = None, v2: dict[str, str] | None = None
    ) -> Cgroup:
        bases = {name: tmp_path / name for name in v1 or {}}
        for name, files in (v1 or {}).items():
            _files(bases[name], files)
        unified = None
        if v2 is not None:
            unified = tmp_path / "unified"
            _files(unified, v2)
        known = Hierarchies(
            tuple(map(str, bases.values())), None if unified is None else str(unified)
        )
        for module in (cgroups, controllers):
            monkeypatch.setattr(module, "hierarchies", lambda: known)
        support.cache_clear()
        return Cgroup(PATH)

    def _files(base: Path, files: dict[str, str]) -> None:
        (base / PATH.lstrip("/")).mkdir(parents=True)
        for name, text in files.items():
            place = base if name.startswith("/") else base / PATH.lstrip("/")
            (place / name.lstrip("/")).write_text(text)

    yield make
    support.cache_clear()


@pytest.mark.parametrize("name", ["blkio.weight", "blkio.bfq.weight"])
def test_v1_takes_the_weight_as_it_is(build: Build, tmp_path: Path, name: str) -> None:
    cgroup = build(v1={"blkio": {name: "", name + "_device": ""}})

    set_io_weights(cgroup, 300, [((8, 16), 40)])

    directory = tmp_path / "blkio/stowage/r/c"
    assert directory.joinpath(name).read_text() == "300"
    assert directory.joinpath(name + "_device").read_text() == "8:16 40"


def test_v2_hands_the_controller_down_and_scales(build: Build, tmp_path: Path) -> None:
    """10 to 1000 become 1 to 10000, except under bfq."""
    base = tmp_path / "unified"
    cgroup = build(v2={"/cgroup.controllers": "cpu io", "io.weight": ""})
    for place in ("", "stowage", "stowage/r"):
        base.joinpath(place, "cgroup.subtree_control").write_text("")

    set_io_weights(cgroup, 1000)
    assert base.joinpath("stowage/r/c/io.weight").read_text() == "default 10000"
    set_io_weights(cgroup, 0, [((8, 0), 10)])
    assert base.joinpath("stowage/r/c/io.weight").read_text() == "8:0 1"
    for place in ("", "stowage", "stowage/r"):
        assert base.joinpath(place, "cgroup.subtree_control").read_text() == "+io"
    base.joinpath("stowage/r/c/io.bfq.weight").write_text("")
    set_io_weights(cgroup, 500)
    assert base.joinpath("stowage/r/c/io.bfq.weight").read_text() == "500"


def test_a_hybrid_host_uses_its_v1_tree(build: Build, tmp_path: Path) -> None:
    cgroup = build(v1={"blkio": {"blkio.weight": ""}}, v2={"/cgroup.controllers": "hugetlb"})

    set_io_weights(cgroup, 20)

    assert tmp_path.joinpath("blkio/stowage/r/c/blkio.weight").read_text() == "20"


def test_no_file_for_weights_is_an_error(build: Build) -> None:
    with pytest.raises(FileNotFoundError):
        set_io_weights(build(v1={"blkio": {}}), 20)


@pytest.mark.parametrize(
    ("trees", "count"),
    [
        ({"v1": {"memory": {"memory.oom_control": "oom_kill_disable 0\noom_kill 2\n"}}}, 2),
        ({"v2": {"memory.events": "low 0\noom 9\noom_kill 3\noom_group_kill 0\n"}}, 3),
        ({"v1": {"pids": {}}}, 0),
    ],
)
def test_oom_kills_are_counted(build: Build, trees: dict[str, dict[str, str]], count: int) -> None:
    assert oom_kills(build(**trees)) == count


def test_support_of_a_v2_host(build: Build) -> None:
    build(
        v2={
            "/cgroup.controllers": "cpuset cpu io memory pids",
            "/cpuset.cpus.effective": "0-3\n",
            "/cpuset.mems.effective": "0\n",
        }
    )
    able = support()

    lacking = {name for name in field_names(able) if not getattr(able, name)}
    assert lacking == {"swappiness", "oom_kill_disable"}
    assert (able.cpus, able.mems) == ("0-3", "0")


def test_support_of_a_host_without_cgroups(build: Build) -> None:
    build()
    able = support()

    assert not any(getattr(able, name) for name in field_names(able))
