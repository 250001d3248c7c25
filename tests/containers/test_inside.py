"""Users and working directories, resolved beneath a root that may be hostile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from stowage.containers.accounts import Account, resolve_user
from stowage.containers.volumes import Bind
from stowage.containers.workdir import resolve_workdir
from stowage.errors import InvalidArgument

from .boxes import GROUP, PASSWD


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    tree.joinpath("etc").mkdir(parents=True)
    return tree


@pytest.fixture
def root(tree: Path) -> Iterator[int]:
    descriptor = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize(
    ("text", "account"),
    [
        ("", Account(0, 0, (), "/root")),
        ("app", Account(1000, 1001, (2000,), "/home/app")),
        ("1000", Account(1000, 1001, (2000,), "/home/app")),
        ("app:extra", Account(1000, 2000, (), "/home/app")),
        ("app:0", Account(1000, 0, (), "/home/app")),
        ("77", Account(77, 0, (), "/")),
        ("77:78", Account(77, 78, (), "/")),
        (":extra", Account(0, 2000, (), "/root")),
    ],
)
def test_users_are_found_as_runc_finds_them(
    tree: Path, root: int, text: str, account: Account
) -> None:
    tree.joinpath("etc/passwd").write_bytes(PASSWD)
    tree.joinpath("etc/group").write_bytes(GROUP)

    assert resolve_user(root, text) == account


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nobody", "unable to find user nobody: no matching entries in passwd file"),
        ("0:nogroup", "unable to find group nogroup: no matching entries in group file"),
        ("4294967295", "uids and gids must be in range 0-2147483647"),
        ("0:2147483648", "uids and gids must be in range 0-2147483647"),
    ],
)
def test_users_that_cannot_be_are_refused(root: int, text: str, words: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        resolve_user(root, text)
    assert refusal.value.brief == words


def test_no_link_leads_to_the_hosts_passwd(tree: Path, root: int, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"evil:x:666:666::/:/bin/sh\n")
    for target in (str(outside), "../../outside", "/proc/self/root/etc/passwd"):
        link = tree / "etc/passwd"
        link.unlink(missing_ok=True)
        link.symlink_to(target)

        with pytest.raises(InvalidArgument):
            resolve_user(root, "evil")
        assert resolve_user(root, "") == Account(0, 0, (), "/")


def test_what_is_no_file_is_not_read(tree: Path, root: int) -> None:
    """A fifo would block for ever."""
    os.mkfifo(tree / "etc/passwd")

    assert resolve_user(root, "5") == Account(5, 0, (), "/")


def test_junk_lines_are_passed_over(tree: Path, root: int) -> None:
    junk = b"\xff\xfe\n:::::\nx:y:z\nbad:x:nan:0::/:\n#c\n\nok:x:7:8\n"
    tree.joinpath("etc/passwd").write_bytes(junk)

    assert resolve_user(root, "ok") == Account(7, 8, (), "/")


# --- working directories ----------------------------------------------------------------------


def test_a_directory_is_followed_inside_and_made(tree: Path, root: int) -> None:
    tree.joinpath("real").mkdir()
    tree.joinpath("link").symlink_to("/real")
    tree.joinpath("up").symlink_to("../../../real/deep")

    assert resolve_workdir(root, "/link/new", create=True) == "/real/new"
    assert resolve_workdir(root, "/up/./x/..", create=True) == "/real/deep"
    assert tree.joinpath("real/new").is_dir()
    assert tree.joinpath("real/deep").is_dir()


@pytest.mark.parametrize(
    "place", ["/proc/self/fd/9", "/a/../proc/1", "//proc", "/link/self/fd/3", "/chain"]
)
def test_proc_is_refused_however_it_is_reached(tree: Path, root: int, place: str) -> None:
    tree.joinpath("link").symlink_to("proc")
    tree.joinpath("chain").symlink_to("/link/self/root")

    with pytest.raises(InvalidArgument, match="resolves to '/proc"):
        resolve_workdir(root, place, create=True)
    assert not tree.joinpath("proc").exists()


def test_a_link_in_a_volume_is_followed_as_well(tree: Path, root: int, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    volume.joinpath("escape").symlink_to("/proc/self/fd/9")
    binds = (Bind(str(volume), "/data"),)

    with pytest.raises(InvalidArgument, match="resolves to '/proc/self/fd/9'"):
        resolve_workdir(root, "/data/escape", binds, create=True)
    assert resolve_workdir(root, "/data/sub", binds, create=True) == "/data/sub"
    assert list(volume.iterdir()) == [volume / "escape"]
    assert not tree.joinpath("data").exists()


def test_what_cannot_be_a_directory_is_refused(tree: Path, root: int) -> None:
    tree.joinpath("file").touch()
    tree.joinpath("loop").symlink_to("loop")
    tree.joinpath("hang").symlink_to("/hang/x")
    for place, words in (
        ("/file/x", "/file/x is not a directory"),
        ("relative", "needs to be an absolute path"),
        ("/loop", "too many levels"),
        ("/hang", "too many levels"),
    ):
        with pytest.raises(InvalidArgument, match=words):
            resolve_workdir(root, place, create=True)
