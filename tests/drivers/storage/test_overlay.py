"""The overlay driver through its hooks and the kernel's mounts."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stowage import DataLoss, Kind, WhiteoutForm

pytestmark = pytest.mark.requires_root

DEFAULT_ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, bits, who)
    for tag, bits, who in (
        (1, 7, 0xFFFFFFFF),
        (2, 5, 1234),
        (4, 5, 0xFFFFFFFF),
        (16, 5, 0xFFFFFFFF),
        (32, 0, 0xFFFFFFFF),
    )
)


@pytest.fixture
def rig(ext4_dir: Path, tools: Any) -> Any:
    return tools.rig("overlay", ext4_dir)


# --- roots --------------------------------------------------------------------------------------


def test_a_base_is_an_empty_directory_0755_of_root(ext4_dir: Path, tools: Any) -> None:
    """Whatever the umask, the setgid bit or the default ACL of what lies above say."""
    root = ext4_dir / "storage"
    root.mkdir()
    os.setxattr(root, "system.posix_acl_default", DEFAULT_ACL)
    os.chown(root, 0, 77)
    root.chmod(0o2755)
    rig = tools.rig("overlay", root)
    before = os.umask(0o077)
    try:
        base = rig.prepare()
    finally:
        os.umask(before)

    with rig.open(base) as mounted:
        facts = os.fstat(mounted)
        assert stat.S_IMODE(facts.st_mode) == 0o755
        assert (facts.st_uid, facts.st_gid) == (0, 0)
        assert os.listdir(mounted) == []
        assert os.listxattr(mounted) == []


def test_the_root_of_a_child_looks_like_its_parents(rig: Any) -> None:
    base = rig.prepare()
    with rig.open(base) as root:
        os.setxattr(root, "user.of", b"the base")
        os.setxattr(root, "trusted.overlay.nested", b"content")  # the kernel escapes it
        os.setxattr(root, "system.posix_acl_default", DEFAULT_ACL)
        os.chown(root, 1000, 1001)
        os.chmod(root, 0o3711)
        os.utime(root, ns=(1_234_567_890_123_456_789, -5))
    child = rig.prepare(rig.commit(base))

    with rig.open(child) as root:
        facts = os.fstat(root)
        assert stat.S_IMODE(facts.st_mode) == 0o3711
        assert (facts.st_uid, facts.st_gid) == (1000, 1001)
        assert facts.st_mtime_ns == -5
        assert os.getxattr(root, "user.of") == b"the base"
        assert os.getxattr(root, "system.posix_acl_default") == DEFAULT_ACL
        assert os.getxattr(root, "trusted.overlay.nested") == b"content"
        assert [name for name in os.listxattr(root) if "overlay" in name] == [
            "trusted.overlay.nested"
        ]


# --- views ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_writing_through_a_view_is_erofs(rig: Any, depth: int) -> None:
    chain: tuple[Path, ...] = ()
    for number in range(depth):
        chain = rig.layer(chain, **{f"file{number}": "x"})
    view = rig.view(chain)

    with rig.open(view) as root:
        assert sorted(os.listdir(root)) == [f"file{number}" for number in range(depth)]
        acts: list[Callable[[], None]] = [
            lambda: os.mkdir("new", dir_fd=root),
            lambda: os.chmod(root, 0o700),
            lambda: os.setxattr(root, "user.x", b""),
            lambda: os.utime(root, ns=(1, 1)),
        ]
        for act in acts:
            with pytest.raises(OSError, match="Read-only") as caught:
                act()
            assert caught.value.errno == errno.EROFS


def test_a_committed_snapshot_shows_itself_over_its_parents(rig: Any) -> None:
    chain = rig.layer(rig.layer((), low="1"), high="2")
    committed = type(rig.view())(chain[0], chain[1:], Kind.COMMITTED)

    with rig.open(committed) as root:
        assert sorted(os.listdir(root)) == ["high", "low"]


# --- whiteouts ------------------------------------------------------------------------------------


def test_a_deleted_file_leaves_a_whiteout_that_no_mount_shows(rig: Any) -> None:
    base = rig.layer((), gone="x", kept="y")
    child = rig.prepare(base)
    with rig.open(child) as root:
        os.unlink("gone", dir_fd=root)
        assert os.listdir(root) == ["kept"]
    chain = rig.commit(child)

    whiteout = os.lstat(child.directory / "fs" / "gone")
    assert stat.S_ISCHR(whiteout.st_mode)
    assert whiteout.st_rdev == 0
    with rig.open(rig.view(chain)) as root, rig.open(rig.view(base)) as below:
        assert os.listdir(root) == ["kept"]
        assert sorted(os.listdir(below)) == ["gone", "kept"]


def test_a_snapshot_that_only_deletes_still_says_all_that_it_changed(rig: Any) -> None:
    """The whiteout that the kernel keeps among the index's entries is no hard link."""
    child = rig.prepare(rig.layer((), gone="x"))
    with rig.open(child) as root:
        os.unlink("gone", dir_fd=root)

    assert rig.driver.storage_diff_tree(child.directory, child.parents) is not None


def test_a_whiteout_unpacked_into_a_base_is_not_shown(rig: Any) -> None:
    """An archive may delete what is not there; the mark must not appear as a device."""
    base = rig.prepare()
    os.mknod(base.directory / "fs" / "never", stat.S_IFCHR)

    with rig.open(base) as root:
        assert os.listdir(root) == []
    with rig.open(rig.view(rig.commit(base))) as root:
        assert os.listdir(root) == []


def test_a_directory_made_anew_hides_all_that_it_held(rig: Any, tools: Any) -> None:
    base = rig.prepare()
    with rig.open(base) as root:
        os.mkdir("d", dir_fd=root)
        tools.write(root, "d/old", "x")
    child = rig.prepare(rig.commit(base))
    with rig.open(child) as root:
        os.unlink("d/old", dir_fd=root)
        os.rmdir("d", dir_fd=root)
        os.mkdir("d", dir_fd=root)
        tools.write(root, "d/new", "y")
    grandchild = rig.prepare(rig.commit(child))

    with rig.open(grandchild) as root:
        assert os.listdir(f"/proc/self/fd/{root}/d") == ["new"]


def test_overlays_own_marks_stay_out_of_sight_in_a_base_too(rig: Any) -> None:
    """What a container writes as trusted.overlay.* must not steer a mount of its children."""
    base = rig.prepare()
    with rig.open(base) as root:
        os.mkdir("d", dir_fd=root)
        os.setxattr(f"/proc/self/fd/{root}/d", "trusted.overlay.redirect", b"/etc")
        with pytest.raises(PermissionError):
            os.mknod("whiteout", stat.S_IFCHR, dir_fd=root)

    assert "trusted.overlay.redirect" not in os.listxattr(base.directory / "fs" / "d")


# --- the index ------------------------------------------------------------------------------------


def hard_linked(rig: Any, tools: Any) -> tuple[Path, ...]:
    base = rig.prepare()
    with rig.open(base) as root:
        os.mkdir("d", dir_fd=root)
        tools.write(root, "a", "old")
        os.link("a", "d/b", src_dir_fd=root, dst_dir_fd=root)
        os.symlink("a", "s", dir_fd=root)
        os.link("s", "t", src_dir_fd=root, dst_dir_fd=root, follow_symlinks=False)
        tools.write(root, "c", "untouched")
        os.link("c", "d/c", src_dir_fd=root, dst_dir_fd=root)
    return tuple(rig.commit(base))


def test_one_snapshot_is_never_mounted_twice(rig: Any) -> None:
    assert rig.driver.storage_probe().capabilities.exclusive_upper
    for snapshot in (rig.prepare(), rig.prepare(rig.layer((), f="x"))):
        with rig.open(snapshot):
            with pytest.raises(OSError, match="busy") as caught, rig.open(snapshot):
                pass
            assert caught.value.errno == errno.EBUSY
        with rig.open(snapshot):
            pass


def test_without_index_nothing_is_claimed(ext4_dir: Path, tools: Any) -> None:
    rig = tools.rig("overlay", ext4_dir, "index=off")
    capabilities = rig.driver.storage_probe().capabilities
    child = rig.prepare(hard_linked(rig, tools))

    assert not capabilities.exclusive_upper
    assert not capabilities.hardlinks_kept
    with rig.open(child) as root:
        tools.write(root, "a", "new")
        assert tools.read(root, "d/b") == "old"
    assert rig.driver.storage_diff_tree(child.directory, child.parents) is not None


def test_a_hard_link_of_the_parent_written_once_shows_under_all_names_also_when_sealed(
    rig: Any, tools: Any
) -> None:
    child = rig.prepare(hard_linked(rig, tools))
    with rig.open(child) as root:
        tools.write(root, "a", "new")
        os.chown("s", 5, 5, dir_fd=root, follow_symlinks=False)
        assert tools.read(root, "d/b") == "new"
    # the upper directory knows one name only, so it must not be taken for the difference
    assert rig.driver.storage_diff_tree(child.directory, child.parents) is None
    chain = rig.commit(child)

    tree = rig.driver.storage_diff_tree(child.directory, child.parents)
    assert tree is not None
    with rig.open(rig.view(chain)) as root:
        assert tools.read(root, "d/b") == "new"
        assert os.stat("t", dir_fd=root, follow_symlinks=False).st_uid == 5
    upper = child.directory / "fs"
    assert os.stat(upper / "a").st_ino == os.stat(upper / "d" / "b").st_ino
    assert not (upper / "c").exists()


def test_sealing_twice_is_once(rig: Any, tools: Any) -> None:
    child = rig.prepare(hard_linked(rig, tools))
    with rig.open(child) as root:
        tools.write(root, "a", "new")

    assert rig.commit(child) == rig.commit(child)
    assert not (child.directory / "work").exists()


def test_a_copied_root_is_stale_and_mounts_again_with_index_off(
    ext4_dir: Path, xfs_dir: Path, tools: Any
) -> None:
    old = tools.rig("overlay", ext4_dir)
    base = old.layer((), f="old")
    active = old.prepare(base)
    with old.open(active) as root:
        tools.write(root, "f", "new")
    moved = xfs_dir / "storage"
    subprocess.run(["cp", "-a", ext4_dir, moved], check=True)
    new = tools.rig("overlay", moved)
    here = type(active)(moved / active.directory.name, (moved / base[0].name,), Kind.ACTIVE)

    with pytest.raises(OSError, match="Stale") as caught, new.open(here):
        pass
    assert caught.value.errno == errno.ESTALE
    stale_options = new.driver.storage_probe().capabilities.stale_options
    assert stale_options == ("index=off",)
    with new.open(here, *stale_options) as root:
        assert tools.read(root, "f") == "new"
    assert new.commit(here)


# --- metacopy, redirect_dir, volatile -----------------------------------------------------------


@pytest.mark.parametrize("option", ["metacopy=on", "redirect_dir=on"])
def test_an_upper_directory_that_may_say_too_little_is_no_diff(
    ext4_dir: Path, option: str, tools: Any
) -> None:
    rig = tools.rig("overlay", ext4_dir, option)
    base = rig.prepare()
    with rig.open(base) as root:
        os.mkdir("d", dir_fd=root)
        tools.write(root, "d/f", "content")
        tools.write(root, "g", "content")
    child = rig.prepare(rig.commit(base))
    with rig.open(child) as root:
        os.rename("d", "e", src_dir_fd=root, dst_dir_fd=root)
        os.chmod("g", 0o600, dir_fd=root)
    chain = rig.commit(child)
    capabilities = rig.driver.storage_probe().capabilities

    assert capabilities.dir_rename
    assert not capabilities.native_diff
    assert rig.driver.storage_diff_tree(child.directory, child.parents) is None
    # the same root, opened later without the option: what was made can still be read
    later = tools.rig("overlay", ext4_dir, first_id=50)
    assert not later.driver.storage_probe().capabilities.native_diff
    assert later.driver.storage_diff_tree(child.directory, child.parents) is None
    for snapshot in (later.view(chain), later.prepare(chain)):
        with later.open(snapshot) as root:
            assert tools.read(root, "e/f") == "content"
            assert tools.read(root, "g") == "content"


def test_without_redirects_a_parents_directory_cannot_be_renamed(rig: Any) -> None:
    base = rig.prepare()
    with rig.open(base) as root:
        os.mkdir("d", dir_fd=root)
    child = rig.prepare(rig.commit(base))

    assert not rig.driver.storage_probe().capabilities.dir_rename
    with rig.open(child) as root, pytest.raises(OSError, match="cross-device") as caught:
        os.rename("d", "e", src_dir_fd=root, dst_dir_fd=root)
    assert caught.value.errno == errno.EXDEV


def test_a_volatile_snapshot_mounts_again_in_the_same_boot(ext4_dir: Path, tools: Any) -> None:
    rig = tools.rig("overlay", ext4_dir, "volatile=on")
    snapshot = rig.prepare(rig.layer((), f="x"))
    for number in range(3):
        with rig.open(snapshot) as root:
            tools.write(root, f"round{number}", "x")

    assert (snapshot.directory / "work/work/incompat/volatile").exists()
    assert len(os.listdir(snapshot.directory / "fs")) == 3


def test_a_volatile_snapshot_of_another_boot_is_refused(rig: Any) -> None:
    snapshot = rig.prepare(rig.layer((), f="x"), Kind.ACTIVE, "volatile=on")
    with rig.open(snapshot, "volatile=on"):
        pass
    os.setxattr(snapshot.directory / "work", "trusted.stowage.boot", b"another")

    with pytest.raises(DataLoss, match="when the machine went down"):
        rig.driver.storage_attach(
            snapshot.directory, snapshot.parents, Kind.ACTIVE, rig.options("volatile=on")
        )


def test_volatile_may_be_asked_for_one_snapshot(rig: Any) -> None:
    snapshot = rig.prepare()
    arguments = (snapshot.directory, (), Kind.ACTIVE)

    (asked,) = rig.driver.storage_mounts(*arguments, rig.options("volatile=on"))
    (not_asked,) = rig.driver.storage_mounts(*arguments, rig.options())
    assert "volatile" in asked.options
    assert "volatile" not in not_asked.options


# --- data and facts -------------------------------------------------------------------------------


def test_mounts_are_data_and_change_nothing(rig: Any) -> None:
    snapshot = rig.prepare(rig.layer((), f="x"))
    before = sorted(path for path in rig.root.rglob("*"))
    arguments = (snapshot.directory, snapshot.parents, Kind.ACTIVE, rig.options())

    assert rig.driver.storage_mounts(*arguments) == rig.driver.storage_mounts(*arguments)
    assert sorted(path for path in rig.root.rglob("*")) == before


def test_trees_for_diff_and_apply_are_the_upper_directory(rig: Any) -> None:
    snapshot = rig.prepare(rig.layer((), f="x"))

    for tree in (
        rig.driver.storage_apply_tree(snapshot.directory, snapshot.parents),
        rig.driver.storage_diff_tree(snapshot.directory, snapshot.parents),
    ):
        assert tree.path == snapshot.directory / "fs"
        assert tree.form is WhiteoutForm.OVERLAY
        assert tree.xattr_prefix == "trusted.overlay."
        assert not tree.whiteout_xattr


def test_every_path_of_the_metadata_exists_while_the_snapshot_does(rig: Any) -> None:
    chain = rig.layer(rig.layer((), f="x"), g="y")
    active, view = rig.prepare(chain), rig.view(chain)
    committed = type(active)(chain[0], chain[1:], Kind.COMMITTED)

    for snapshot, keys in (
        (active, {"LowerDir", "UpperDir", "WorkDir"}),
        (view, {"LowerDir"}),
        (committed, {"LowerDir", "UpperDir"}),
    ):
        facts = rig.driver.storage_metadata(snapshot.directory, snapshot.parents, snapshot.kind)
        assert set(facts) == keys
        for value in facts.values():
            assert all(os.path.isdir(path) for path in value.split(":"))


def test_the_status_has_dockers_keys_and_ours(rig: Any) -> None:
    assert rig.driver.storage_status() == {
        "Backing Filesystem": "extfs",
        "Supports d_type": "true",
        "Using metacopy": "false",
        "Native Overlay Diff": "true",
        "userxattr": "false",
        "Mount Form": rig.driver.storage_probe().notes[0].split()[2].rstrip(","),
        "Index": "true",
    }


def test_what_a_descriptor_opened_before_the_first_write_sees_is_as_claimed(
    rig: Any, tools: Any
) -> None:
    capabilities = rig.driver.storage_probe().capabilities
    child = rig.prepare(rig.layer((), f="old"))
    with rig.open(child) as root:
        early = os.open("f", os.O_RDONLY, dir_fd=root)
        try:
            inode = os.fstat(early).st_ino
            tools.write(root, "f", "new")
            fresh = os.pread(early, 10, 0) == b"new"
            stable = os.stat("f", dir_fd=root).st_ino == inode
        finally:
            os.close(early)

    assert capabilities.stable_inodes == stable
    assert capabilities.fresh_read_descriptor == fresh


def test_recovery_removes_what_a_killed_probe_left(rig: Any) -> None:
    stale = rig.root / ".probe-1-0"
    shutil.copytree(rig.layer((), f="x")[0], stale)

    rig.driver.storage_recover([])

    assert not stale.exists()
