"""Mounts by descriptor on the real kernel, in the lab's mount namespace."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from stowage import DirectoryOption, Mount, NotSupported
from stowage.linux import mount
from stowage.linux.mountinfo import read_mountinfo
from stowage.linux.namespaces import (
    in_mount_namespace,
    on_throwaway_thread,
    open_namespace,
)

pytestmark = pytest.mark.requires_root


@pytest.fixture
def place(shm_dir: Path) -> Path:
    (shm_dir / "source").mkdir()
    (shm_dir / "source" / "file").write_text("x")
    (shm_dir / "target").mkdir()
    return shm_dir


def bind(place: Path, *options: str) -> Mount:
    return Mount("bind", str(place / "source"), options)


def targets() -> list[str]:
    return [entry.target for entry in read_mountinfo()]


def test_a_detached_mount_is_in_no_table_and_gone_with_its_descriptor(place: Path) -> None:
    before = targets()
    descriptor = mount.attach(Mount("tmpfs", "tmpfs", ("size=1m",)))
    os.mkdir("made", dir_fd=descriptor)
    inode = os.fstat(descriptor).st_dev

    assert targets() == before
    assert inode != place.stat().st_dev
    os.close(descriptor)


def test_its_descriptor_is_not_inherited(place: Path) -> None:
    descriptor = mount.attach(bind(place))
    try:
        assert not os.get_inheritable(descriptor)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("way", ["option", "argument", "later"])
def test_read_only_is_erofs_however_it_is_asked_for(place: Path, way: str) -> None:
    options = ("ro",) if way == "option" else ()
    for asked in (bind(place, *options), Mount("tmpfs", "tmpfs", options)):
        descriptor = mount.attach(asked, read_only=way == "argument")
        try:
            if way == "later":
                mount.make_read_only(descriptor)
            with pytest.raises(OSError, match="Read-only") as caught:
                os.mkdir("new", dir_fd=descriptor)
            assert caught.value.errno == errno.EROFS
        finally:
            os.close(descriptor)
    (place / "source" / "still writable").touch()


def test_flags_of_a_mount_are_what_mountinfo_shows(place: Path) -> None:
    descriptor = mount.attach(bind(place, "nosuid", "nodev", "noexec"))
    mount.move(descriptor, place / "target")
    os.close(descriptor)
    try:
        (entry,) = (e for e in read_mountinfo() if e.target == str(place / "target"))
    finally:
        mount.unmount(place / "target")

    assert {"nosuid", "nodev", "noexec", "rw"} <= set(entry.options)


def test_a_bind_takes_what_is_mounted_below_only_if_asked(place: Path) -> None:
    (place / "source" / "below").mkdir()
    inner = mount.attach(Mount("tmpfs", "tmpfs"))
    os.mkdir("inner", dir_fd=inner)
    mount.move(inner, place / "source" / "below")
    os.close(inner)
    try:
        for options, seen in (((), []), (("rbind",), ["inner"])):
            descriptor = mount.attach(bind(place, *options))
            try:
                below = os.open("below", os.O_RDONLY, dir_fd=descriptor)
                assert os.listdir(below) == seen
                os.close(below)
            finally:
                os.close(descriptor)
    finally:
        mount.unmount(place / "source" / "below")


def test_move_and_unmount_and_mounted_at(place: Path) -> None:
    target = place / "target"
    descriptor = mount.attach(bind(place))
    assert not mount.mounted_at(target)
    mount.move(descriptor, target)
    os.close(descriptor)
    assert mount.mounted_at(target)  # a bind of the same device: only mountinfo tells
    assert (target / "file").read_text() == "x"

    with (target / "file").open(), pytest.raises(OSError, match="busy") as caught:
        mount.unmount(target)
    assert caught.value.errno == errno.EBUSY
    with (target / "file").open():
        mount.unmount(target, lazy=True)
    assert not mount.mounted_at(target)
    assert not mount.mounted_at(place / "not there")


def test_move_to_a_directory_by_descriptor(place: Path) -> None:
    descriptor = mount.attach(bind(place))
    target = os.open(place / "target", os.O_PATH)
    try:
        mount.move(descriptor, "", dirfd=target)
    finally:
        os.close(target)
        os.close(descriptor)
    assert (place / "target" / "file").exists()
    mount.unmount(place / "target")


def test_unmount_does_not_follow_a_symlink(place: Path) -> None:
    descriptor = mount.attach(bind(place))
    mount.move(descriptor, place / "target")
    os.close(descriptor)
    (place / "link").symlink_to(place / "target")
    try:
        with pytest.raises(OSError, match="Invalid"):
            mount.unmount(place / "link")
        assert mount.mounted_at(place / "target")
    finally:
        mount.unmount(place / "target")


def test_the_kernels_own_words_are_in_the_error(place: Path) -> None:
    with pytest.raises(OSError, match=r"nonsense.*Unknown parameter"):
        mount.attach(Mount("tmpfs", "tmpfs", ("nonsense=1",)))
    with pytest.raises(OSError, match="fsopen") as caught:
        mount.attach(Mount("nosuchfs", "x"))
    assert caught.value.errno == errno.ENODEV


def test_a_string_longer_than_255_bytes_is_refused_before_the_kernel_does(place: Path) -> None:
    with pytest.raises(OSError, match="longer than 255 bytes") as caught:
        mount.attach(Mount("overlay", "overlay", ("lowerdir+=" + "x" * 256,)))
    assert caught.value.errno == errno.EINVAL


def test_a_relative_option_is_resolved_beneath_the_directory(place: Path) -> None:
    for name in ("upper", "work"):
        (place / name).mkdir()
    before = Path.cwd()
    options = ("upperdir=upper", "workdir=work")
    for monolithic, lower in ((False, "lowerdir+=source"), (True, "lowerdir=source")):
        descriptor = mount.attach(
            Mount("overlay", "overlay", (*options, lower), place, monolithic=monolithic)
        )
        assert os.stat("file", dir_fd=descriptor).st_size == 1
        os.close(descriptor)

    assert Path.cwd() == before


def test_monolithic_leaves_nothing_in_this_namespace(place: Path) -> None:
    before = targets()
    mounted = Mount("tmpfs", "tmpfs", ("size=1m", "nodev"), place / "target", monolithic=True)
    descriptor = mount.attach(mounted, read_only=True)
    try:
        assert targets() == before
        with pytest.raises(OSError, match="Read-only"):
            os.mkdir("x", dir_fd=descriptor)
    finally:
        os.close(descriptor)


def test_descriptors_are_closed_when_a_mount_fails(place: Path) -> None:
    before = os.listdir("/proc/self/fd")
    for bad in (
        Mount("tmpfs", "tmpfs", ("nonsense=1",)),
        Mount("bind", str(place / "not there")),
        Mount("overlay", "overlay", (DirectoryOption("lowerdir+", place / "not there"),)),
        Mount("overlay", "overlay", ("lowerdir=nowhere",), place, monolithic=True),
    ):
        with pytest.raises(OSError, match=r".+"):
            mount.attach(bad)

    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("count", [0, 2])
def test_a_snapshot_is_one_mount(place: Path, count: int) -> None:
    with pytest.raises(NotSupported, match=f"not by {count}"):
        mount.attach_all([bind(place)] * count)


def test_a_descriptor_that_a_fork_holds_until_its_exec_does_not_make_it_busy(place: Path) -> None:
    for name in ("upper", "work"):
        (place / name).mkdir()
    overlay = Mount(
        "overlay",
        "overlay",
        ("index=on", "lowerdir+=source", "upperdir=upper", "workdir=work"),
        place,
    )
    descriptor = mount.attach(overlay)
    forked = os.fork()
    if forked == 0:
        time.sleep(0.02)
        os._exit(0)
    os.close(descriptor)
    try:
        with pytest.raises(OSError, match="busy"):
            mount.attach(overlay)
        os.close(mount.attach_all([overlay]))
    finally:
        os.waitpid(forked, 0)


def test_a_mount_of_another_namespace_is_cloned_through_a_descriptor(place: Path) -> None:
    """As the core does to look at a running container's root."""

    def elsewhere() -> int:
        mount.enter_own_namespace()
        descriptor = mount.attach(bind(place))
        mount.move(descriptor, place / "target")
        os.close(descriptor)
        return open_namespace("mnt")

    namespace = on_throwaway_thread(elsewhere)
    try:
        assert not (place / "target" / "file").exists()
        clone = in_mount_namespace(namespace, lambda: mount.clone_tree(place / "target"))
    finally:
        os.close(namespace)
    try:
        assert os.stat("file", dir_fd=clone).st_size == 1
    finally:
        os.close(clone)
