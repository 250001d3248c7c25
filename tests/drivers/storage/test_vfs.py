"""The vfs driver through its hooks: full copies, read-only where they must be."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from stowage import Kind, NotSupported, WhiteoutForm


@pytest.fixture
def rig(shm_dir: Path, tools: Any) -> Any:
    return tools.rig("vfs", shm_dir)


@pytest.mark.requires_root
def test_a_child_starts_as_its_parent_and_changes_alone(disk_dir: Path, tools: Any) -> None:
    rig = tools.rig("vfs", disk_dir)
    base = rig.layer((), f="old", g="kept")
    child, sibling = rig.prepare(base), rig.prepare(base)

    with rig.open(child) as root:
        tools.write(root, "f", "new")
        os.unlink("g", dir_fd=root)
    with rig.open(sibling) as root, rig.open(rig.view(base)) as below:
        for seen in (root, below):
            assert tools.read(seen, "f") == "old"
            assert sorted(os.listdir(seen)) == ["f", "g"]


@pytest.mark.requires_root
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_writing_through_a_view_is_erofs_and_costs_no_copy(
    rig: Any, depth: int, tools: Any
) -> None:
    chain: tuple[Path, ...] = ()
    for number in range(depth):
        chain = rig.layer(chain, **{f"file{number}": "x"})
    view = rig.view(chain)

    assert os.listdir(view.directory) == ([] if depth else ["fs"])
    with rig.open(view) as root:
        assert len(os.listdir(root)) == depth
        with pytest.raises(OSError, match="Read-only") as caught:
            os.mkdir("new", dir_fd=root)
        assert caught.value.errno == errno.EROFS


@pytest.mark.requires_root
def test_the_root_of_a_child_looks_like_its_parents(rig: Any) -> None:
    base = rig.prepare()
    with rig.open(base) as root:
        os.chown(root, 1000, 1001)
        os.chmod(root, 0o1770)
        os.setxattr(root, "trusted.of", b"base")
        os.utime(root, ns=(5, 7))
    child = rig.prepare(rig.commit(base))

    with rig.open(child) as root:
        facts = os.fstat(root)
        assert stat.S_IMODE(facts.st_mode) == 0o1770
        assert (facts.st_uid, facts.st_gid, facts.st_mtime_ns) == (1000, 1001, 7)
        assert os.getxattr(root, "trusted.of") == b"base"


@pytest.mark.requires_root
def test_a_directory_of_the_host_is_refused_with_the_reason(rig: Any) -> None:
    assert not rig.driver.storage_probe().capabilities.host_root
    with pytest.raises(NotSupported, match="copy all of it"):
        rig.prepare([Path("/")])


def test_archives_unpack_into_the_full_tree(rig: Any) -> None:
    snapshot = rig.prepare()
    tree = rig.driver.storage_apply_tree(snapshot.directory, ())

    assert tree.path == snapshot.directory / "fs"
    assert tree.form is WhiteoutForm.NONE


def test_usage_is_all_that_it_occupies_itself(rig: Any) -> None:
    base = rig.prepare()
    (base.directory / "fs" / "f").write_bytes(b"x" * 4096)
    child, view = rig.prepare([base.directory]), rig.view([base.directory])

    assert rig.driver.storage_usage(child.directory, child.parents).inodes == 2
    assert rig.driver.storage_usage(child.directory, child.parents).size_bytes >= 4096
    assert rig.driver.storage_usage(view.directory, view.parents).inodes == 0


@pytest.mark.requires_root
def test_the_probe_claims_what_the_place_gives_and_leaves_no_trace(
    disk_dir: Path, tools: Any
) -> None:
    rig = tools.rig("vfs", disk_dir)
    probe = rig.driver.storage_probe()

    assert probe.ok
    assert probe.capabilities.ro_enforced
    assert probe.capabilities.reflink == (disk_dir.parent.name in ("xfs", "btrfs"))
    assert not probe.capabilities.native_diff
    assert os.listdir(disk_dir) == []


@pytest.mark.requires_root
def test_without_root_layers_can_still_be_made_and_read(shm_dir: Path, tools: Any) -> None:
    rig = tools.rig("vfs", shm_dir / "theirs")
    os.chown(rig.root, 65534, 65534)
    for above in (shm_dir, *shm_dir.parents):
        above.chmod(above.stat().st_mode | 0o011)

    def work() -> tuple[Any, list[str], str]:
        probe = rig.driver.storage_probe()
        base = rig.prepare()
        (base.directory / "fs" / "f").write_text("x")
        child = rig.prepare([base.directory])
        root = rig.driver.storage_attach(child.directory, child.parents, Kind.ACTIVE)
        assert isinstance(root, int)
        return probe, os.listdir(root), probe.notes[-1]

    probe, seen, note = tools.in_child(work, tools.become_nobody)

    assert probe.ok
    assert not probe.capabilities.ro_enforced
    assert seen == ["f"]
    assert "CAP_SYS_ADMIN" in note


@pytest.mark.requires_root
def test_a_place_where_nothing_can_be_made_is_a_finding(shm_dir: Path, tools: Any) -> None:
    rig = tools.rig("vfs", shm_dir / "ours")

    probe = tools.in_child(rig.driver.storage_probe, tools.become_nobody)

    assert "cannot be tried" in probe.findings[0].reason
    assert probe.findings[0].remedy == "run as root"


def test_mounts_and_metadata_name_the_tree_that_is_shown(rig: Any) -> None:
    base = rig.prepare()
    child, view = rig.prepare([base.directory]), rig.view([base.directory])

    for snapshot, shown, flags in (
        (child, child.directory, ()),
        (view, base.directory, ("ro",)),
    ):
        (mount,) = rig.driver.storage_mounts(snapshot.directory, snapshot.parents, snapshot.kind)
        facts = rig.driver.storage_metadata(snapshot.directory, snapshot.parents, snapshot.kind)
        assert (mount.type, mount.source, mount.options) == ("bind", str(shown / "fs"), flags)
        assert facts == {"SourceDir": str(shown / "fs")}


def test_recovery_removes_what_a_killed_probe_left(rig: Any) -> None:
    (rig.root / ".probe-1-0" / "x").mkdir(parents=True)

    rig.driver.storage_recover([])

    assert os.listdir(rig.root) == []
