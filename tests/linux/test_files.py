"""Copying contents, renaming and removing, where Python's own calls do not reach."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stowage.linux import files
from stowage.linux.statfs import filesystem_name

pieces = st.lists(st.tuples(st.integers(0, 30), st.binary(min_size=1, max_size=9000)), max_size=5)


def copy(source: Path, target: Path) -> None:
    reading, writing = os.open(source, os.O_RDONLY), os.open(target, os.O_WRONLY | os.O_CREAT)
    try:
        files.copy_contents(reading, writing, source.stat().st_size)
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("way", ["clone", "kernel", "by hand"])
@given(pieces=pieces, tail=st.integers(0, 100_000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_contents_and_holes_are_kept_by_each_way(
    shm_dir: Path, way: str, pieces: list[tuple[int, bytes]], tail: int
) -> None:
    source, target = shm_dir / "source", shm_dir / "target"
    with source.open("wb") as file:
        for block, data in pieces:
            file.seek(block * 4096)
            file.write(data)
        file.truncate(file.seek(0, os.SEEK_END) + tail)
    target.unlink(missing_ok=True)

    with pytest.MonkeyPatch.context() as patch:
        if way != "clone":
            patch.setattr(files, "try_clone", lambda source, target: False)
        if way == "by hand":
            patch.setattr(os, "copy_file_range", refuse)
        copy(source, target)

    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks <= source.stat().st_blocks


def refuse(*args: object) -> int:
    raise OSError(errno.EXDEV, "as between file systems")


def test_a_file_cut_short_while_it_is_copied_ends_the_copy(shm_dir: Path) -> None:
    source, target = shm_dir / "source", shm_dir / "target"
    source.write_bytes(b"short")
    reading, writing = os.open(source, os.O_RDONLY), os.open(target, os.O_WRONLY | os.O_CREAT)
    files.copy_contents(reading, writing, 1 << 20)
    os.close(reading)
    os.close(writing)

    assert target.read_bytes().rstrip(b"\0") == b"short"


@pytest.mark.requires_root
def test_a_clone_shares_blocks_only_where_that_can_be(xfs_dir: Path, ext4_dir: Path) -> None:
    answers = {}
    for place in (xfs_dir, ext4_dir):
        (place / "a").write_bytes(b"x" * 5000)
        reading = os.open(place / "a", os.O_RDONLY)
        writing = os.open(place / "b", os.O_WRONLY | os.O_CREAT)
        answers[place] = files.try_clone(reading, writing)
        os.close(reading)
        os.close(writing)

    assert answers == {xfs_dir: True, ext4_dir: False}
    assert (xfs_dir / "b").read_bytes() == b"x" * 5000


def test_a_rename_can_refuse_to_replace_and_can_exchange(shm_dir: Path) -> None:
    for name in ("a", "b"):
        (shm_dir / name).write_text(name)
    directory = os.open(shm_dir, os.O_RDONLY)
    try:
        with pytest.raises(FileExistsError):
            files.renameat2(directory, b"a", directory, b"b", files.RENAME_NOREPLACE)
        files.renameat2(directory, b"a", directory, b"b", files.RENAME_EXCHANGE)
        assert (shm_dir / "a").read_text() == "b"
        files.renameat2(directory, b"a", directory, b"c")
    finally:
        os.close(directory)

    assert sorted(os.listdir(shm_dir)) == ["b", "c"]


def test_syncfs_takes_a_descriptor(shm_dir: Path) -> None:
    directory = os.open(shm_dir, os.O_RDONLY)
    files.syncfs(directory)
    os.close(directory)
    with pytest.raises(OSError, match="Bad file"):
        files.syncfs(directory)


def test_a_tree_is_removed_and_no_symlink_followed(shm_dir: Path) -> None:
    kept, tree = shm_dir / "kept", shm_dir / "tree"
    kept.mkdir()
    (kept / "file").touch()
    (tree / "d" / "e").mkdir(parents=True)
    (tree / "d" / "out").symlink_to(kept)
    (tree / "d" / "file").touch()

    files.remove_tree(tree)
    files.remove_tree(tree)

    assert os.listdir(shm_dir) == ["kept"]
    assert os.listdir(kept) == ["file"]


@pytest.mark.requires_root
def test_a_file_system_is_named_as_docker_names_it(
    ext4_dir: Path, xfs_dir: Path, btrfs_dir: Path, shm_dir: Path
) -> None:
    names = [filesystem_name(place) for place in (ext4_dir, xfs_dir, btrfs_dir, shm_dir)]

    assert names == ["extfs", "xfs", "btrfs", "tmpfs"]
    assert filesystem_name("/proc") == "0x9fa0"
    with pytest.raises(FileNotFoundError):
        filesystem_name(shm_dir / "not there")
