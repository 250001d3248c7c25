"""A copy that nobody can tell from the original, checked by an observer of its own."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import struct
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stowage.effects import observe
from stowage.linux.attributes import make_base
from stowage.linux.copytree import copy_tree
from stowage_drivers.storage._usage import tree_usage

pytestmark = pytest.mark.requires_root

BLOCK = 4096
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, bits, who)
    for tag, bits, who in (
        (1, 7, 0xFFFFFFFF),
        (2, 5, 4321),
        (4, 4, 0xFFFFFFFF),
        (16, 5, 0xFFFFFFFF),
        (32, 1, 0xFFFFFFFF),
    )
)
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)  # net_bind_service, effective


# --- an observer: a plain walk by paths, with none of the subject's code ----------------------


def observe_tree(root: Path) -> dict[bytes, object]:
    """Everything that a reader can see of a tree; inode numbers become groups of names."""
    base = os.fsencode(root)
    names_by_inode: dict[int, list[bytes]] = {}
    seen: dict[bytes, object] = {}
    for path in sorted(walk(base)):
        facts = os.lstat(path)
        relative = path[len(base) :]
        names_by_inode.setdefault(facts.st_ino, []).append(relative)
        seen[relative] = (
            facts.st_mode,
            facts.st_uid,
            facts.st_gid,
            facts.st_mtime_ns,
            facts.st_rdev,
            0 if stat.S_ISDIR(facts.st_mode) else facts.st_nlink,
            contents(path, facts),
            {
                name: os.getxattr(path, name, follow_symlinks=False)
                for name in os.listxattr(path, follow_symlinks=False)
            },
        )
    groups = sorted(names for names in names_by_inode.values() if len(names) > 1)
    return {**seen, b"links": groups}


def differences(one: dict[bytes, object], other: dict[bytes, object]) -> list[object]:
    """For a failure that can be read: what differs, and nothing else."""
    names = sorted(one.keys() | other.keys())
    return [
        (name, one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)
    ]


def within(extent: tuple[int, int], others: list[tuple[int, int]]) -> bool:
    return any(start <= extent[0] and extent[1] <= end for start, end in others)


def walk(path: bytes) -> Iterator[bytes]:
    yield path
    if stat.S_ISDIR(os.lstat(path).st_mode):
        for name in os.listdir(path):
            yield from walk(path + b"/" + name)


def contents(path: bytes, facts: os.stat_result) -> object:
    if stat.S_ISLNK(facts.st_mode):
        return os.readlink(path)
    if not stat.S_ISREG(facts.st_mode):
        return None
    with open(path, "rb") as file:
        data = file.read()
    return facts.st_size, data


def data_extents(root: Path) -> dict[bytes, list[tuple[int, int]]]:
    base = os.fsencode(root)
    return {
        path[len(base) :]: extents(path)
        for path in walk(base)
        if stat.S_ISREG(os.lstat(path).st_mode)
    }


def extents(path: bytes) -> list[tuple[int, int]]:
    """Where data lies, by SEEK_DATA and SEEK_HOLE; at times a cached page of zeros counts."""
    found, offset, size = [], 0, os.stat(path).st_size
    descriptor = os.open(path, os.O_RDONLY)
    try:
        while offset < size:
            try:
                start = os.lseek(descriptor, offset, os.SEEK_DATA)
            except OSError:  # ENXIO: only a hole follows
                break
            offset = os.lseek(descriptor, start, os.SEEK_HOLE)
            found.append((start, offset))
    finally:
        os.close(descriptor)
    return found


# --- a generator of trees -------------------------------------------------------------------------

names = st.one_of(
    st.sampled_from(
        [b"a", b"b", b"c", b"-rf", b"x:y,z\\", b"\n", b"\xff\xfe", b".wh.a", b"n" * 255]
    ),
    st.binary(min_size=1, max_size=12)
    .map(lambda raw: raw.replace(b"/", b"_").replace(b"\0", b"0"))
    .filter(lambda raw: raw not in (b".", b"..")),
)
times = st.integers(-(2**31) * 10**9, 2**33 * 10**9)
xattrs = st.dictionaries(
    st.sampled_from(["user.a", "trusted.b", "user." + "n" * 200]), st.binary(max_size=64)
)
pieces = st.lists(st.tuples(st.integers(0, 40), st.binary(min_size=1, max_size=9000)), max_size=4)
entries = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(
            ["file", "file", "file", "dir", "dir", "symlink", "fifo", "char", "socket", "link"]
        ),
        "name": names,
        "mode": st.integers(0, 0o7777),
        "owner": st.tuples(st.integers(0, 70000), st.integers(0, 70000)),
        "mtime": times,
        "xattrs": xattrs,
        "acl": st.booleans(),
        "capability": st.booleans(),
        "pieces": pieces,
        "tail": st.integers(0, 3 * BLOCK),
        "where": st.integers(0, 100),
    }
)


def make_tree(root: Path, plan: list[dict[str, Any]]) -> None:
    root.mkdir()
    directories: list[bytes] = [os.fsencode(root)]
    files: list[bytes] = []
    finishing = []
    for entry in plan:
        path = directories[entry["where"] % len(directories)] + b"/" + entry["name"]
        if os.path.lexists(path):
            continue
        if entry["kind"] == "link":
            if files:
                os.link(files[entry["where"] % len(files)], path, follow_symlinks=False)
            continue
        make_entry(path, entry)
        (directories if entry["kind"] == "dir" else files).append(path)
        finishing.append((path, entry))
    for path, entry in reversed(finishing):  # attributes of directories after their contents
        dress(path, entry)


def make_entry(path: bytes, entry: dict[str, Any]) -> None:
    match entry["kind"]:
        case "file":
            with open(path, "wb") as file:
                for block, data in entry["pieces"]:
                    file.seek(block * BLOCK)
                    file.write(data)
                file.truncate(file.seek(0, os.SEEK_END) + entry["tail"])
        case "dir":
            os.mkdir(path)
        case "symlink":
            os.symlink(entry["name"] * 3, path)
        case "fifo":
            os.mkfifo(path)
        case "char":
            os.mknod(path, stat.S_IFCHR, os.makedev(1, 3))
        case "socket":
            os.mknod(path, stat.S_IFSOCK)


def dress(path: bytes, entry: dict[str, Any]) -> None:
    kind = entry["kind"]
    os.chown(path, *entry["owner"], follow_symlinks=False)
    if kind != "symlink":
        os.chmod(path, entry["mode"])
        if entry["acl"] and kind != "socket":
            os.setxattr(path, "system.posix_acl_access", ACL)
            if kind == "dir":
                os.setxattr(path, "system.posix_acl_default", ACL)
    if kind == "file" and entry["capability"]:
        os.setxattr(path, "security.capability", CAPABILITY)
    for name, value in entry["xattrs"].items():
        if kind in ("file", "dir") or name.startswith("trusted."):
            os.setxattr(path, name, value, follow_symlinks=False)
    os.utime(path, ns=(entry["mtime"], entry["mtime"]), follow_symlinks=False)


@pytest.fixture(scope="module")
def places(_disks: Any) -> dict[str, Path]:
    """File systems that copy in every way: reflink (xfs), copy_file_range (ext4), and tmpfs."""
    return {kind: _disks.directory(kind) for kind in ("ext4", "xfs", "tmpfs")}


@pytest.mark.parametrize("kind", ["ext4", "xfs", "tmpfs"])
@given(plan=st.lists(entries, max_size=25))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_copy_cannot_be_told_from_the_original(
    places: dict[str, Path], kind: str, plan: list[dict[str, Any]]
) -> None:
    original, copy = places[kind] / "original", places[kind] / "copy"
    try:
        make_tree(original, plan)
        before, data = observe_tree(original), data_extents(original)
        copy.mkdir()
        copy_tree(original, copy)

        assert differences(before, observe_tree(copy)) == []
        assert differences(before, observe_tree(original)) == []
        for name, filled in data_extents(copy).items():
            assert all(within(extent, data[name]) for extent in filled), (name, filled, data[name])
    finally:
        for tree in (original, copy):
            shutil.rmtree(tree, ignore_errors=True)


def test_the_targets_own_attributes_give_way(ext4_dir: Path) -> None:
    source, target = ext4_dir / "source", ext4_dir / "target"
    source.mkdir(mode=0o711)
    target.mkdir(mode=0o700)
    os.setxattr(source, "user.theirs", b"1")
    os.setxattr(target, "user.mine", b"2")
    os.setxattr(target, "system.posix_acl_default", ACL)
    (source / "file").touch(0o600)

    make_base(target)
    copy_tree(source, target)

    assert os.listxattr(target) == ["user.theirs"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o711
    assert os.listxattr(target / "file") == []


def test_a_bound_socket_stays_a_socket(shm_dir: Path) -> None:
    source, target = shm_dir / "source", shm_dir / "target"
    source.mkdir()
    target.mkdir()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(source / "s"))

    copy_tree(source, target)

    assert stat.S_ISSOCK((target / "s").lstat().st_mode)


def test_contents_are_shared_where_the_file_system_can(xfs_dir: Path) -> None:
    source, target = xfs_dir / "source", xfs_dir / "target"
    source.mkdir()
    target.mkdir()
    (source / "big").write_bytes(os.urandom(32 << 20))
    os.sync()
    free = os.statvfs(xfs_dir).f_bfree * os.statvfs(xfs_dir).f_frsize

    copy_tree(source, target)
    os.sync()

    used = free - os.statvfs(xfs_dir).f_bfree * os.statvfs(xfs_dir).f_frsize
    assert used < 4 << 20
    assert (target / "big").read_bytes() == (source / "big").read_bytes()


def test_depth_is_bounded_by_nothing(shm_dir: Path) -> None:
    """Deeper than descriptors may be open, and paths longer than PATH_MAX."""
    source, target = shm_dir / "source", shm_dir / "target"
    source.mkdir()
    target.mkdir()
    name, depth = "d" * 30, 1100
    at = os.open(source, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=at)
        at = step_down(at, name)
    os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, dir_fd=at))
    os.close(at)

    copy_tree(source, target)

    at = os.open(target, os.O_RDONLY)
    for _ in range(depth):
        at = step_down(at, name)
    assert os.listdir(at) == ["bottom"]
    os.close(at)
    for tree in (source, target):
        remove_deep(tree, name, depth)


def step_down(at: int, name: str) -> int:
    below = os.open(name, os.O_RDONLY, dir_fd=at)
    os.close(at)
    return below


def remove_deep(tree: Path, name: str, depth: int) -> None:
    """Lift the lower half of the rest again and again, so that no path is ever too long."""
    while (tree / name).exists():
        at = os.open(tree, os.O_RDONLY)
        for _ in range(min(depth, 50)):
            try:
                at = step_down(at, name)
            except FileNotFoundError:
                break
        lifted = tree / "lifted"
        try:
            os.rename(name, lifted, src_dir_fd=at)
        except FileNotFoundError:
            pass
        os.close(at)
        shutil.rmtree(tree / name)
        if lifted.exists():
            os.rename(lifted, tree / name)


@pytest.mark.parametrize("failing", ["file.copy", "directory.make", "attributes.copy", "file.link"])
def test_a_failure_stops_it_and_is_raised_as_it_is(shm_dir: Path, failing: str) -> None:
    source, target = shm_dir / "source", shm_dir / "target"
    for number in range(20):
        directory = source / str(number)
        directory.mkdir(parents=True)
        (directory / "f").write_text("x")
        os.link(directory / "f", directory / "g")
    target.mkdir()

    @contextmanager
    def full_disk() -> Iterator[None]:
        raise OSError(errno.ENOSPC, "injected")
        yield

    @contextmanager
    def nothing() -> Iterator[None]:
        yield

    def around(name: str, facts: dict[str, object]) -> AbstractContextManager[object]:
        return full_disk() if name == failing else nothing()

    remove = observe(around)
    before = threading.active_count(), len(os.listdir("/proc/self/fd"))
    try:
        with pytest.raises(OSError, match="injected") as caught:
            copy_tree(source, target)
    finally:
        remove()

    assert caught.value.errno == errno.ENOSPC
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == before


def test_usage_counts_blocks_and_inodes_once(ext4_dir: Path) -> None:
    (ext4_dir / "d").mkdir()
    (ext4_dir / "d" / "f").write_bytes(b"x" * 10_000)
    os.link(ext4_dir / "d" / "f", ext4_dir / "g")
    with (ext4_dir / "sparse").open("wb") as file:
        file.truncate(1 << 30)

    usage = tree_usage(ext4_dir)

    assert usage.inodes == 4
    assert usage.size_bytes == 3 * BLOCK + 2 * BLOCK
