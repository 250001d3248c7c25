"""What btrfs adds to any driver: subvolumes, quota groups, usage, clones."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from stowage.errors import InvalidArgument
from stowage.model import Kind
from stowage.registry import Registry
from stowage.testing.conform import Create, Mkdir, Subject, Write
from stowage_btrfs import _ioctl

MIB = 1 << 20


def make_subvolume(subject: Subject, key: str, name: str, content: bytes) -> None:
    """Do what a container does that runs btrfs itself."""
    with subject.attached(key) as root:
        above, _, own_name = name.rpartition("/")
        directory = os.open(above or ".", os.O_RDONLY, dir_fd=root)
        _ioctl.create_subvolume(directory, os.fsencode(own_name))
        os.close(directory)
        own = os.open(name, os.O_RDONLY, dir_fd=root)
        _ioctl.create_subvolume(own, b"inner")
        for path in ("file", "inner/file"):
            file = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=own)
            os.write(file, content)
            os.close(file)
        os.close(own)


def test_another_file_system_is_a_finding_with_a_remedy(scratch: Path) -> None:
    probe = Registry().storage("btrfs", scratch).probe

    assert not probe.ok
    assert "not on btrfs" in probe.findings[0].reason
    assert "mkfs.btrfs" in probe.findings[0].remedy


def test_the_probe_leaves_nothing(subject: Subject) -> None:
    assert subject.handle.probe.ok
    assert list(subject.root.rglob(".probe-*")) == []


def test_the_scratch_of_a_killed_probe_is_removed(subject: Subject) -> None:
    root = subject.storage_root
    scratch = root / ".probe-dead"
    scratch.mkdir(parents=True)
    directory = os.open(scratch, os.O_RDONLY)
    _ioctl.create_subvolume(directory, b"parent")
    os.close(directory)

    subject.handle.recover([])

    assert list(root.iterdir()) == []


def test_a_committed_snapshot_is_read_only_whoever_looks(subject: Subject) -> None:
    subject.prepare("key")
    subject.commit("layer", "key")

    with pytest.raises(OSError, match="Read-only"):
        (subject.storage_root / "1" / "fs" / "file").touch()


def test_a_sealed_snapshot_whose_commit_failed_is_written_again(subject: Subject) -> None:
    subject.prepare("key")
    subject.handle.seal(subject.storage_root / "1", [])

    subject.done("key", Create(b"file"))


def test_a_subvolume_made_inside_is_a_directory_for_children(
    subject: Subject, subvolumes: Callable[[Path], int]
) -> None:
    subject.prepare("key")
    subject.done("key", Mkdir(b"d"))
    make_subvolume(subject, "key", "d/volume", b"kept")
    subject.commit("layer", "key")
    subject.prepare("child", "layer")

    with subject.attached("child") as root:
        for path in ("d/volume/file", "d/volume/inner/file"):
            file = os.open(path, os.O_RDONLY, dir_fd=root)
            assert os.read(file, 10) == b"kept"
            os.close(file)
        os.mkdir("d/volume/usable", dir_fd=root)
        assert os.listdir(f"/proc/self/fd/{root}/d") == ["volume"]
    assert subvolumes(subject.storage_root / "1" / "fs") == 0


def test_subvolumes_inside_are_removed_with_the_snapshot(
    subject: Subject, disk: Path, subvolumes: Callable[[Path], int]
) -> None:
    subject.prepare("key")
    make_subvolume(subject, "key", "volume", b"lost")
    with subject.attached("key") as root:
        own = os.open("volume", os.O_RDONLY, dir_fd=root)
        _ioctl.set_read_only(own, True)
        os.close(own)

    subject.remove("key")
    subject.drain()

    assert subvolumes(disk) == 0
    assert list(subject.storage_root.iterdir()) == []


def test_usage_is_what_was_written_not_what_was_touched(subject: Subject) -> None:
    """Where one block of a big file is written, other drivers count all of it."""
    subject.prepare("base")
    subject.done("base", Create(b"big", os.urandom(8 * MIB)))
    subject.commit("parent", "base")
    subject.prepare("child", "parent")

    subject.done("child", Write(b"big", b"x" * 4096, offset=4 * MIB), Create(b"new", b"y" * 9000))
    usage = subject.usage("child")

    assert usage.size_bytes == 4096 * 4
    assert usage.inodes == 1
    assert subject.usage("parent").size_bytes >= 8 * MIB


def test_a_limit_is_on_what_the_snapshot_writes_itself(subject: Subject) -> None:
    subject.prepare("base")
    subject.done("base", Create(b"big", os.urandom(24 * MIB)))
    subject.commit("parent", "base")
    subject.prepare("child", "parent", options=["size=16M"])

    with subject.attached("child") as root:
        file = os.open("file", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=root)
        os.write(file, os.urandom(8 * MIB))
        os.fsync(file)
        with pytest.raises(OSError, match="uota") as caught:  # noqa: PT012  # somewhere there
            for _ in range(16):
                os.write(file, os.urandom(MIB))
                os.fsync(file)
        os.close(file)
    assert caught.value.errno == errno.EDQUOT


def test_a_limit_below_min_space_is_refused(disk: Path) -> None:
    with (
        Subject.open("btrfs", on=disk, options=["min_space=64M"]) as subject,
        pytest.raises(InvalidArgument, match="min_space"),
    ):
        subject.prepare("key", options=["size=32M"])


def test_a_clone_is_the_snapshot_at_that_moment_and_knows_its_changes(subject: Subject) -> None:
    subject.prepare("base")
    subject.done("base", Create(b"old", b"text"))
    subject.commit("parent", "base")
    subject.prepare("child", "parent")
    subject.done("child", Create(b"new", b"text"))
    make_subvolume(subject, "child", "volume", b"cloned")
    root = subject.storage_root
    clone = root / "clone"
    clone.mkdir()

    subject.handle.clone(root / "2", clone, [root / "1"])
    subject.done("child", Create(b"later"))

    assert sorted(os.listdir(clone / "fs")) == ["new", "old", "volume"]
    assert (clone / "fs" / "volume" / "inner" / "file").read_bytes() == b"cloned"
    changes = subject.handle.changes(clone, [root / "1"])
    assert changes is not None
    paths = {change.path for change in changes}
    assert {b"/new", b"/volume"} <= paths
    assert b"/old" not in paths
    subject.handle.destroy(clone)
    (clone / "since").unlink()
    clone.rmdir()


def test_facts_name_the_subvolume(subject: Subject) -> None:
    subject.prepare("key")
    facts = subject.handle.metadata(subject.storage_root / "1", [], Kind.ACTIVE)

    assert Path(facts["Subvolume"]).is_dir()
    assert int(facts["SubvolumeID"]) >= 256
    assert subject.handle.status()["Backing Filesystem"] == "btrfs"
