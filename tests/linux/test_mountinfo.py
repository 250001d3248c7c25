"""Reading mountinfo: a target may hold any byte that a name may."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stowage import Mount
from stowage.linux.mount import attach, move, unmount
from stowage.linux.mountinfo import read_mountinfo

ODD_NAMES = (
    b"with space",
    b"tab\there",
    b"new\nline",
    b"back\\slash",
    b"octal\\040",
    b"carriage\rreturn",
    b"form\x0cfeed",
    b"separator \x1c",
    "line\u2028separator".encode(),
    b"hash#",
    b"dash - dash",
    b"\xff\xfe",
)


@pytest.mark.requires_root
@pytest.mark.parametrize("name", ODD_NAMES)
def test_every_name_of_a_target_comes_back_as_it_is(shm_dir: Path, name: bytes) -> None:
    target = shm_dir / os.fsdecode(name)
    target.mkdir()
    descriptor = attach(Mount("tmpfs", os.fsdecode(b"of " + name), ("size=1m",)))
    move(descriptor, target)
    os.close(descriptor)
    try:
        entries = read_mountinfo()
    finally:
        unmount(target)

    (entry,) = (entry for entry in entries if entry.target == str(target))
    assert entry.type == "tmpfs"
    assert entry.root == "/"
    assert "size=1024k" in entry.super_options


def test_mounts_refer_to_their_parents() -> None:
    entries = read_mountinfo()
    numbers = {entry.id for entry in entries}

    assert len(numbers) == len(entries) > 0
    (root,) = (entry for entry in entries if entry.target == "/")
    assert all(entry.parent_id in numbers for entry in entries if entry is not root)


def test_a_process_that_is_gone_is_an_os_error() -> None:
    with pytest.raises(OSError, match=r".+"):
        read_mountinfo(2**22 + 1)
