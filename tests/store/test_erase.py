"""Erasing a tree takes everything in it and nothing outside of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from stowage.errors import Busy
from stowage.linux.mount import syscall_mount, unmount
from stowage.store.erase import Stopped, erase_path


@pytest.mark.requires("root")
def test_all_kinds_of_files_go(shm_dir: Path) -> None:
    top = shm_dir / "top"
    (top / "a" / "b").mkdir(parents=True)
    (top / "a" / "f").write_text("x")
    (top / os.fsdecode(b"\xff\xfe")).write_text("x")
    os.mkfifo(top / "fifo")
    (top / "locked").mkdir(mode=0)
    (top / "dangling").symlink_to("/nowhere")

    erase_path(top)
    erase_path(top)

    assert os.listdir(shm_dir) == []


def test_links_are_not_followed(shm_dir: Path) -> None:
    outside = shm_dir / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    top = shm_dir / "top"
    top.mkdir()
    (top / "link").symlink_to(outside)
    os.link(outside / "kept", top / "hard")

    erase_path(top)

    assert (outside / "kept").read_text() == "x"


def test_depth_costs_no_descriptors_and_no_recursion(shm_dir: Path) -> None:
    top = shm_dir / "top"
    top.mkdir()
    descriptor = os.open(top, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)

    erase_path(top)

    assert not top.exists()


@pytest.mark.requires_root
def test_a_file_system_mounted_inside_is_never_emptied(shm_dir: Path) -> None:
    top = shm_dir / "top"
    (top / "inside").mkdir(parents=True)
    other = shm_dir / "other"
    other.mkdir()
    (other / "kept").write_text("x")
    syscall_mount(str(other), top / "inside", "", 4096)  # a bind mount of the same file system
    try:
        with pytest.raises(Busy, match="mounted"):
            erase_path(top)
        assert (other / "kept").read_text() == "x"
    finally:
        unmount(top / "inside")
    erase_path(top)
    assert not top.exists()


@pytest.mark.requires("mounts", "ext4")
def test_immutable_and_append_only_files_go(ext4_dir: Path) -> None:
    top = ext4_dir / "top"
    (top / "d").mkdir(parents=True)
    for name, flag in (("i", "+i"), ("a", "+a")):
        (top / "d" / name).write_text("x")
        subprocess.run(["chattr", flag, top / "d" / name], check=True)
    (top / "e").mkdir()
    (top / "e" / "f").write_text("x")
    subprocess.run(["chattr", "+i", top / "e"], check=True)
    subprocess.run(["chattr", "+i", top / "d"], check=True)

    erase_path(top)

    assert not top.exists()


def test_it_stops_between_two_files_when_asked(shm_dir: Path) -> None:
    top = shm_dir / "top"
    top.mkdir()
    for number in range(10):
        (top / str(number)).write_text("x")
    asked = iter([False] * 4 + [True])

    with pytest.raises(Stopped):
        erase_path(top, stop=lambda: next(asked))

    assert len(os.listdir(top)) == 6
    erase_path(top)
    assert not top.exists()
