"""Killed at any of its effects, work on volumes leaves nothing half made."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stowage.engine import Engine
from stowage.store.locks import Locks

from .crash import Killer, killer

pytestmark = pytest.mark.requires_root


@pytest.fixture
def root(shm_dir: Path) -> Path:
    return shm_dir / "root"


@pytest.fixture
def victim(root: Path) -> Iterator[Killer]:
    with killer(root) as process:
        yield process


def tree(path: Path) -> dict[str, object]:
    return {
        str(one.relative_to(path)): (one.lstat().st_mode, one.lstat().st_size)
        for one in sorted(path.rglob("*"))
    }


def assert_in_order(root: Path) -> list[str]:
    """What the next command finds: every row whole, every directory of a row; returns names."""
    with Engine(root) as engine:
        found = [volume.name for volume in engine.volumes.list()]
        rows = engine.metastore.read().execute("SELECT state, filling FROM volumes").fetchall()
        assert {tuple(row) for row in rows} <= {("ready", None)}
        assert {path.name for path in engine.layout.volumes.iterdir()} == set(found)
        for name in found:
            assert os.listdir(engine.layout.volume(name)) == ["_data"]
        locks = Locks(engine.layout.locks)
        for path in engine.layout.locks.glob("volume-*"):
            assert locks.holders(path.name) == []
        return found


def test_a_killed_create_is_whole_or_not_at_all(root: Path, victim: Killer) -> None:
    number = 1
    while victim.kills("create", number, "vol"):
        assert_in_order(root)
        with Engine(root) as engine:
            assert engine.volumes.create("vol").path.is_dir()
            engine.volumes.remove("vol")
        number += 1

    assert number > 5


def test_a_killed_removal_is_finished_or_has_not_begun(root: Path, victim: Killer) -> None:
    def filled() -> Path:
        with Engine(root) as engine:
            data = engine.volumes.create("vol").path
        data.joinpath("sub").mkdir(exist_ok=True)
        data.joinpath("sub/file").write_text("x")
        return data

    number, data = 1, filled()
    while victim.kills("remove", number, "vol"):
        assert_in_order(root)
        assert not data.exists() or data.joinpath("sub/file").exists()
        filled()
        number += 1

    assert number > 5
    assert assert_in_order(root) == []


@pytest.mark.parametrize("written", [False, True], ids=["unused", "written-meanwhile"])
def test_a_killed_fill_is_whole_or_not_at_all(
    root: Path, victim: Killer, tmp_path: Path, written: bool
) -> None:
    """And what a container has written into the volume meanwhile stays."""
    source = tmp_path / "source"
    source.joinpath("sub/deep").mkdir(parents=True)
    source.joinpath("sub/deep/file").write_text("x" * 1000)
    source.joinpath("link").symlink_to("/etc/passwd")
    os.link(source / "sub/deep/file", source / "other")
    number, killed = 0, True
    while killed:
        number += 1
        with Engine(root) as engine:
            data = engine.volumes.create("vol").path
        killed = victim.kills("fill", number, str(source))
        if written:
            data.joinpath("mine").write_text("mine")
        assert_in_order(root)
        found = tree(data)
        if written:
            assert found.pop("mine")
        assert found in ({}, tree(source))
        with Engine(root) as engine:
            engine.volumes.remove("vol")

    assert found == tree(source)
    assert number > 10


@pytest.mark.requires("containers", "conmon", "busybox")
@pytest.mark.parametrize("work", ["create-container", "remove-container"])
def test_a_kill_leaves_no_half_made_and_no_anonymous_volume(
    root: Path, victim: Killer, work: str, rounds: Callable[[int, int], int]
) -> None:
    """At every fifth effect of making a container, and of ``rm -v``."""
    from stowage.images.bootstrap import busybox

    from .crash import create_container

    with Engine(root) as engine:
        busybox(engine.images, "busybox")
    number, killed = 1, True
    while killed:
        if work == "remove-container":
            with Engine(root) as engine:
                create_container(engine, "busybox")
        argument = "busybox" if work == "create-container" else "box"
        killed = victim.kills(work, number, argument)
        with Engine(root) as engine:
            records = engine.containers.list()
            used = {name for record in records for name in record.spec.volumes.names}
            named = {"vol"} if work == "remove-container" else set()
            found = {volume.name for volume in engine.volumes.list()}
            assert used <= found <= used | named
            for record in records:
                engine.containers.remove(record.id, volumes=True)
        assert set(assert_in_order(root)) <= {"vol"}
        with Engine(root) as engine:
            engine.volumes.prune()
        number += rounds(5, 1)

    assert number > 20
