"""Opening beneath a directory: what can leave it, and what is too long."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from stowage.linux.paths import RESOLVE_NO_SYMLINKS, open_deep, open_in_root, openat2


@pytest.fixture
def root(shm_dir: Path) -> Iterator[int]:
    (shm_dir / "secret").write_text("outside")
    inside = shm_dir / "root"
    (inside / "d").mkdir(parents=True)
    (inside / "secret").write_text("inside")
    (inside / "up").symlink_to("../../secret")
    (inside / "absolute").symlink_to("/secret")
    (inside / "d" / "chain").symlink_to("../up")
    (inside / "magic").symlink_to("/proc/self/root/secret")
    descriptor = os.open(inside, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize(
    "path",
    [b"secret", b"/secret", b"../secret", b"/../../secret", b"up", b"absolute", b"d/chain",
     b"d/../../secret"],
)  # fmt: skip
def test_every_way_out_leads_back_to_the_root(root: int, path: bytes) -> None:
    descriptor = open_in_root(root, path, os.O_RDONLY)
    with os.fdopen(descriptor) as file:
        assert file.read() == "inside"


def test_the_root_itself_is_the_empty_path(root: int) -> None:
    descriptor = open_in_root(root, b"/", os.O_RDONLY | os.O_DIRECTORY)
    assert os.path.sameopenfile(descriptor, root)
    os.close(descriptor)


def test_a_link_of_proc_is_refused(root: int) -> None:
    with pytest.raises(OSError, match=r".+"):
        open_in_root(root, b"magic", os.O_RDONLY)


def test_files_are_made_inside_and_descriptors_are_close_on_exec(root: int, shm_dir: Path) -> None:
    descriptor = open_in_root(root, b"../new", os.O_WRONLY | os.O_CREAT, 0o640)
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)

    assert (shm_dir / "root" / "new").stat().st_mode & 0o777 == 0o640
    assert not (shm_dir / "new").exists()


def test_openat2_says_which_rule_was_broken(root: int) -> None:
    with pytest.raises(OSError, match=r".+") as caught:
        openat2(root, b"up", os.O_RDONLY, resolve=RESOLVE_NO_SYMLINKS)
    assert caught.value.errno == errno.ELOOP
    with pytest.raises(FileNotFoundError) as missing:
        openat2(root, b"nothing", os.O_RDONLY)
    assert missing.value.filename == "nothing"


def test_a_path_longer_than_path_max_is_opened_in_pieces(shm_dir: Path) -> None:
    name, depth = "d" * 200, 50
    at = os.open(shm_dir, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=at)
        below = os.open(name, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    root = os.open(shm_dir, os.O_RDONLY)
    try:
        deep = open_deep(root, "/".join([name] * depth), os.O_RDONLY)
        assert os.path.sameopenfile(deep, at)
        os.close(deep)
        with pytest.raises(FileNotFoundError):
            open_deep(root, "/".join([name] * depth + ["missing"]), os.O_RDONLY)
        with pytest.raises(OSError, match="too long"):
            open_deep(root, "n" * 300, os.O_RDONLY)
        with pytest.raises(OSError, match="too long"):
            open_deep(root, "n" * 5000, os.O_RDONLY)
    finally:
        os.close(root)
        os.close(at)
