"""The drivers that the union carries, through their hooks: names, copy-up, deaths, marks."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stowage import Kind, NotSupported, StowageError, WhiteoutForm
from stowage.linux import serving
from stowage.linux.mount import move, unmount
from stowage.linux.process import send_signal, wait_gone

pytestmark = pytest.mark.requires("fuse")

DRIVERS = ("fuse", "aufs")
PATIENCE_SECONDS = 30.0
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, bits, who)
    for tag, bits, who in (
        (1, 6, 0xFFFFFFFF), (2, 6, 1234), (4, 0, 0xFFFFFFFF), (16, 6, 0xFFFFFFFF),
        (32, 0, 0xFFFFFFFF),
    )
)  # fmt: skip


@pytest.fixture(params=DRIVERS)
def rig(request: pytest.FixtureRequest, shm_dir: Path, tools: Any) -> Any:
    return tools.rig(request.param, shm_dir)


def at(root: int, name: str) -> str:
    return f"/proc/self/fd/{root}/{name}"


def error_of(act: Callable[[], object]) -> str:
    with pytest.raises(OSError, match=r"\[Errno") as caught:
        act()
    return errno.errorcode[caught.value.errno or 0]


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def unmounted(place: Path) -> bool:
    """Unmount, if no server that is about to end is still there."""
    try:
        unmount(place)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


# --- roots and views ----------------------------------------------------------------------------


def test_the_root_of_a_child_looks_like_its_parents(rig: Any) -> None:
    base = rig.prepare()
    with rig.open(base) as root:
        os.setxattr(root, "user.of", b"the base")
        os.setxattr(root, "trusted.overlay.nested", b"content")
        os.chown(root, 1000, 1001)
        os.chmod(root, 0o3711)
        os.utime(root, ns=(1_234_567_890_123_456_789, 5))
    child = rig.prepare(rig.commit(base))

    with rig.open(child) as root:
        facts = os.fstat(root)
        assert stat.S_IMODE(facts.st_mode) == 0o3711
        assert (facts.st_uid, facts.st_gid, facts.st_mtime_ns) == (1000, 1001, 5)
        assert sorted(os.listxattr(root)) == ["trusted.overlay.nested", "user.of"]


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_writing_through_a_view_is_erofs(rig: Any, depth: int) -> None:
    chain: tuple[Path, ...] = ()
    for number in range(depth):
        chain = rig.layer(chain, **{f"file{number}": "x"})
    with rig.open(rig.view(chain)) as root:
        assert sorted(os.listdir(root)) == [f"file{number}" for number in range(depth)]
        assert error_of(lambda: os.mkdir("new", dir_fd=root)) == "EROFS"
        assert error_of(lambda: os.chmod(root, 0o700)) == "EROFS"


def test_a_committed_snapshot_shows_itself(rig: Any, tools: Any) -> None:
    chain = rig.layer(rig.layer((), f="1", g="1"), f="2")
    shown = type(rig.prepare())(chain[0], chain[1:], Kind.COMMITTED)
    with rig.open(shown) as root:
        assert (tools.read(root, "f"), tools.read(root, "g")) == ("2", "1")


def test_names_that_are_no_text_are_kept(rig: Any) -> None:
    names = [b"\xff\xfe", "mit Ümläut".encode(), b"new\nline", b"x" * 200]
    base = rig.prepare()
    with rig.open(base) as root:
        for name in names:
            os.close(os.open(name, os.O_CREAT, dir_fd=root))
            os.setxattr(b"/proc/self/fd/%d/%s" % (root, name), b"user.\xc3\xbc", name[:9])
    child = rig.prepare(rig.commit(base))
    with rig.open(child) as root:
        assert sorted(map(os.fsencode, os.listdir(root))) == sorted(names)
        os.rename(names[0], names[0] + b"2", src_dir_fd=root, dst_dir_fd=root)
        path = b"/proc/self/fd/%d/%s2" % (root, names[0])
        assert os.getxattr(path, b"user.\xc3\xbc") == names[0]


def test_a_chain_of_150_layers_shows_all_of_them(rig: Any, tools: Any) -> None:
    chain: tuple[Path, ...] = ()
    for number in range(150):
        layer = rig.prepare(chain)
        content = rig.driver.storage_apply_tree(layer.directory, ()).path
        (content / "all").write_text(str(number))
        (content / f"f{number}").write_text("x")
        chain = rig.commit(layer)
    with rig.open(rig.prepare(chain)) as root:
        assert len(os.listdir(root)) == 151
        assert tools.read(root, "all") == "149"
        os.unlink("f0", dir_fd=root)
        assert len(os.listdir(root)) == 150


# --- copy-up ------------------------------------------------------------------------------------


@pytest.fixture(params=DRIVERS)
def disk_rig(request: pytest.FixtureRequest, disk_dir: Path, tools: Any) -> Any:
    return tools.rig(request.param, disk_dir)


def test_copying_up_keeps_all_that_a_file_has(disk_rig: Any) -> None:
    base = disk_rig.prepare()
    with disk_rig.open(base) as root:
        with open(at(root, "f"), "wb") as file:
            file.write(b"begin")
            file.seek(1 << 20)
            file.write(b"end")
        os.chown(at(root, "f"), 1000, 1001)
        os.chmod(at(root, "f"), 0o4751)
        os.setxattr(at(root, "f"), "user.x", b"y")
        os.setxattr(at(root, "f"), "system.posix_acl_access", ACL)
        os.utime(at(root, "f"), ns=(1_234_567_890_123_456_789, 987_654_321_012_345_678))
    child = disk_rig.prepare(disk_rig.commit(base))

    with disk_rig.open(child) as root:
        before = os.stat(at(root, "f"))
        above = os.fstat(root).st_mtime_ns
        os.close(os.open(at(root, "f"), os.O_RDWR))
        after = os.stat(at(root, "f"))
        assert os.path.exists(disk_rig.driver.storage_diff_tree(child.directory, ()).path / "f")
        for name in ("st_ino", "st_mode", "st_uid", "st_gid", "st_size", "st_mtime_ns"):
            assert getattr(after, name) == getattr(before, name)
        assert after.st_blocks * 512 < 1 << 20
        assert os.getxattr(at(root, "f"), "user.x") == b"y"
        assert os.getxattr(at(root, "f"), "system.posix_acl_access") == ACL
        assert os.fstat(root).st_mtime_ns == above
        with open(at(root, "f"), "rb") as file:
            assert file.seek(0, os.SEEK_HOLE) < 1 << 20
            assert file.seek(5000, os.SEEK_DATA) > 5000
    with disk_rig.open(child) as root:
        assert os.stat(at(root, "f")).st_ino == before.st_ino


def test_what_is_open_for_reading_reads_what_is_written_later(rig: Any, tools: Any) -> None:
    with rig.open(rig.prepare(rig.layer((), f="old"))) as root:
        early = os.open("f", os.O_RDONLY, dir_fd=root)
        inode = os.fstat(early).st_ino
        tools.write(root, "f", "new")
        assert os.pread(early, 10, 0) == b"new"
        assert os.stat("f", dir_fd=root).st_ino == os.fstat(early).st_ino == inode
        os.close(early)


def test_all_names_of_a_file_go_up_together(rig: Any, tools: Any) -> None:
    base = rig.prepare()
    with rig.open(base) as root:
        os.mkdir("d", dir_fd=root)
        tools.write(root, "a", "old")
        os.link(at(root, "a"), at(root, "d/b"))
        os.link(at(root, "a"), at(root, "c"))
    child = rig.prepare(rig.commit(base))
    with rig.open(child) as root:
        assert os.stat(at(root, "a")).st_nlink == 3
        os.unlink(at(root, "c"))
        assert os.stat(at(root, "a")).st_nlink == 2
        tools.write(root, "d/b", "new")
        assert tools.read(root, "a") == "new"
        assert os.stat(at(root, "a")).st_nlink == 2
        tools.write(root, "a", "newer")
        assert tools.read(root, "d/b") == "newer"
    own = rig.driver.storage_diff_tree(child.directory, ()).path
    assert os.stat(own / "a").st_ino == os.stat(own / "d/b").st_ino


def test_a_parents_directory_can_be_renamed_with_all_below(rig: Any, tools: Any) -> None:
    base = rig.prepare()
    with rig.open(base) as root:
        os.makedirs(at(root, "d/e"))
        tools.write(root, "d/e/f", "deep")
        tools.write(root, "d/g", "gone")
    child = rig.prepare(rig.layer(rig.commit(base), x="x"))
    with rig.open(child) as root:
        os.unlink(at(root, "d/g"))
        os.rename("d", "n", src_dir_fd=root, dst_dir_fd=root)
        os.mkdir("d", dir_fd=root)
        assert os.listdir(at(root, "d")) == []
        assert os.listdir(at(root, "n")) == ["e"]
        assert tools.read(root, "n/e/f") == "deep"
    with rig.open(child) as root:
        assert os.listdir(at(root, "d")) == []
        assert os.listdir(at(root, "n")) == ["e"]


def test_a_full_disk_is_enospc_and_changes_nothing(request: Any, shm_dir: Path, tools: Any) -> None:
    import subprocess

    small = shm_dir / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "small", small], check=True)
    try:
        rig = tools.rig("fuse", small / "root")
        child = rig.prepare(rig.layer((), f="x" * 2_000_000))
        with rig.open(child) as root:
            assert error_of(lambda: os.open("f", os.O_RDWR, dir_fd=root)) == "ENOSPC"
            assert len(tools.read(root, "f")) == 2_000_000
            assert error_of(lambda: tools.write(root, "g", "y" * 2_000_000)) == "ENOSPC"
        assert os.listdir(child.directory / "work") == []
    finally:
        until(lambda: unmounted(small))


# --- what libfuse 2 alone could not do ------------------------------------------------------------


def test_files_can_be_allocated_punched_and_copied_in_part(rig: Any, tools: Any) -> None:
    with rig.open(rig.prepare(rig.layer((), f="0123456789"))) as root:
        source = os.open("f", os.O_RDWR, dir_fd=root)
        target = os.open("g", os.O_RDWR | os.O_CREAT, dir_fd=root)
        os.posix_fallocate(target, 0, 8192)
        assert os.fstat(target).st_size == 8192
        assert os.copy_file_range(source, target, 4, 3, 100) == 4
        assert os.pread(target, 4, 100) == b"3456"
        for descriptor in (source, target):
            os.close(descriptor)


def test_a_rename_that_must_not_replace_does_not(rig: Any, tools: Any) -> None:
    from stowage.linux.files import RENAME_EXCHANGE, RENAME_NOREPLACE, renameat2

    with rig.open(rig.prepare(rig.layer((), f="f", g="g"))) as root:
        for flags, expected in ((RENAME_NOREPLACE, "EEXIST"), (RENAME_EXCHANGE, "EINVAL")):
            assert error_of(lambda f=flags: renameat2(root, b"f", root, b"g", f)) == expected  # type: ignore[misc]
        renameat2(root, b"f", root, b"h", RENAME_NOREPLACE)
        assert sorted(os.listdir(root)) == ["g", "h"]
        # a later rename is free again
        os.rename("g", "h", src_dir_fd=root, dst_dir_fd=root)
        assert tools.read(root, "h") == "g"


def test_a_file_without_a_name_cannot_be_made(rig: Any) -> None:
    with rig.open(rig.prepare()) as root:
        act = lambda: os.open(".", os.O_TMPFILE | os.O_RDWR, dir_fd=root)  # noqa: E731
        assert error_of(act) == "ENOTSUP"


def test_acls_are_enforced_and_inherited(rig: Any, tools: Any) -> None:
    base = rig.prepare()
    with rig.open(base) as root:
        tools.write(root, "f", "secret")
        os.setxattr(at(root, "f"), "system.posix_acl_access", ACL)
    child = rig.prepare(rig.commit(base))

    def become(uid: int) -> Callable[[], None]:
        def change() -> None:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)

        return change

    with rig.open(child) as root:
        os.setxattr(root, "system.posix_acl_default", ACL)
        os.close(os.open(at(root, "g"), os.O_CREAT | os.O_WRONLY, 0o666))
        assert os.getxattr(at(root, "g"), "system.posix_acl_access")
        assert tools.in_child(lambda: tools.read(root, "f"), become(1234)) == "secret"
        with pytest.raises(PermissionError):
            tools.in_child(lambda: tools.read(root, "f"), become(1235))


def test_writing_takes_setuid_off_unless_the_writer_may_keep_it(rig: Any, tools: Any) -> None:
    base = rig.prepare()
    with rig.open(base) as root:
        os.chmod(root, 0o777)
        tools.write(root, "f", "x")
        os.chmod(at(root, "f"), 0o6777)
    with rig.open(rig.prepare(rig.commit(base))) as root:
        with open(at(root, "f"), "a") as file:
            file.write("by root")
        assert stat.S_IMODE(os.stat(at(root, "f")).st_mode) == 0o6777

        def write_as_nobody() -> None:
            with open(at(root, "f"), "a") as file:
                file.write("by nobody")

        tools.in_child(write_as_nobody, tools.become_nobody)
        assert stat.S_IMODE(os.stat(at(root, "f")).st_mode) == 0o777


def test_a_listing_is_whole_while_names_come_and_go(rig: Any, tools: Any) -> None:
    names = {f"file{number}": "x" for number in range(500)}
    with rig.open(rig.prepare(rig.layer((), **names))) as root, os.scandir(root) as listing:
        seen = [next(listing).name for _ in range(10)]
        for number in range(0, 500, 2):
            os.unlink(f"file{number}", dir_fd=root)
        tools.write(root, "new", "x")
        seen += [entry.name for entry in listing]
        kept = {f"file{number}" for number in range(1, 500, 2)}
        assert kept <= set(seen)
        assert len(seen) == len(set(seen))


def test_what_lost_its_name_lives_on(rig: Any, tools: Any) -> None:
    with rig.open(rig.prepare(rig.layer((), f="old"))) as root:
        os.mkdir("d", dir_fd=root)
        tools.write(root, "d/g", "new")
        lower, upper = os.open("f", os.O_RDONLY, dir_fd=root), os.open(at(root, "d/g"), os.O_RDWR)
        os.unlink("f", dir_fd=root)
        os.unlink(at(root, "d/g"))
        assert os.listdir(at(root, "d")) == []
        assert [os.fstat(one).st_nlink for one in (lower, upper)] == [0, 0]
        os.fchmod(lower, 0o600)
        os.ftruncate(upper, 1)
        assert stat.S_IMODE(os.fstat(lower).st_mode) == 0o600
        assert (os.pread(lower, 9, 0), os.pread(upper, 9, 0)) == (b"old", b"n")
        os.rmdir("d", dir_fd=root)
        os.pwrite(upper, b"still", 0)
        assert os.pread(upper, 9, 0) == b"still"
        os.close(lower)
        os.close(upper)
        assert os.listdir(root) == []


# --- marks on disk ------------------------------------------------------------------------------


def test_trees_for_diff_and_apply_are_the_upper_layer(rig: Any) -> None:
    snapshot = rig.prepare(rig.layer((), f="x"))
    for tree in (
        rig.driver.storage_apply_tree(snapshot.directory, snapshot.parents),
        rig.driver.storage_diff_tree(snapshot.directory, snapshot.parents),
    ):
        assert tree.path.parent == snapshot.directory
        assert tree.form is rig.driver.form
        assert tree.xattr_prefix == rig.driver.prefix


def test_fuse_keeps_the_marks_of_overlay(shm_dir: Path, tools: Any) -> None:
    rig = tools.rig("fuse", shm_dir)
    base = rig.prepare()
    with rig.open(base) as root:
        os.mkdir("d", dir_fd=root)
        tools.write(root, "f", "x")
    child = rig.prepare(rig.commit(base))
    with rig.open(child) as root:
        os.unlink("f", dir_fd=root)
        os.rmdir("d", dir_fd=root)
        os.mkdir("d", dir_fd=root)
        assert error_of(lambda: os.mknod(at(root, "w"), stat.S_IFCHR | 0o600)) == "EPERM"
    facts = os.lstat(child.directory / "fs/f")
    assert stat.S_ISCHR(facts.st_mode)
    assert facts.st_rdev == 0
    assert os.getxattr(child.directory / "fs/d", "trusted.overlay.opaque") == b"y"
    assert rig.driver.form is WhiteoutForm.OVERLAY


# --- deaths -------------------------------------------------------------------------------------


@pytest.fixture
def no_servers(shm_dir: Path) -> Iterator[None]:
    yield
    for directory in shm_dir.iterdir():
        assert serving.wait_ended(directory, PATIENCE_SECONDS)


@pytest.mark.usefixtures("no_servers")
def test_a_killed_server_is_named_and_replaced(
    rig: Any, tools: Any, caplog: pytest.LogCaptureFixture, shm_dir: Path
) -> None:
    child = rig.prepare(rig.layer((), f="old"))
    with rig.open(child) as root:
        tools.write(root, "g", "kept")
        (server,) = serving.servers(child.directory)
        send_signal(server, signal.SIGKILL)
        assert wait_gone(server, PATIENCE_SECONDS)
        assert error_of(lambda: os.stat("f", dir_fd=root)) == "ENOTCONN"
        with rig.open(child) as again:
            assert tools.read(again, "g") == "kept"
    assert f"snapshot {child.directory.name}" in caplog.text
    assert str(server.pid) in caplog.text
    caplog.clear()
    with rig.open(child):
        pass
    assert caplog.text == ""


@pytest.mark.usefixtures("no_servers")
def test_a_kill_between_any_two_effects_leaves_a_tree_that_is_one_or_the_other(
    rig: Any, tools: Any, monkeypatch: pytest.MonkeyPatch, rounds: Callable[[int, int], int]
) -> None:
    """The server kills itself at its n-th effect, for n = 1, 2, …, until it gets through."""
    base = rig.prepare()
    with rig.open(base) as root:
        os.makedirs(at(root, "d/e"))
        tools.write(root, "d/e/f", "deep")
        tools.write(root, "g", "old")
        tools.write(root, "h", "old")
        os.makedirs(at(root, "gone"))
    chain = rig.commit(base)

    def steps(root: int) -> list[tuple[str, Callable[[], object]]]:
        return [
            ("write", lambda: os.close(os.open(at(root, "g"), os.O_RDWR))),
            ("rename", lambda: os.rename(at(root, "d"), at(root, "n"))),
            ("unlink", lambda: os.unlink(at(root, "h"))),
            ("remake", lambda: os.mkdir(at(root, "h"))),
            ("rmdir", lambda: os.rmdir(at(root, "gone"))),
            ("again", lambda: tools.write(root, "gone", "a file now")),
            ("over", lambda: os.rename(at(root, "g"), at(root, "gone"))),
        ]

    def seen(root: int) -> frozenset[str]:
        found = set()
        for above, names, files in os.walk(at(root, ".")):
            where = above.removeprefix(at(root, "."))
            found |= {f"{where}/{name}/" for name in names}
            found |= {f"{where}/{name}={Path(above, name).read_text()}" for name in files}
        return frozenset(found)

    allowed = []
    whole = rig.prepare(chain)
    with rig.open(whole) as root:
        allowed.append(seen(root))
        for name, step in steps(root):
            step()
            allowed.append(seen(root))
            if name == "again":  # made, then written to
                allowed.append(allowed[-1] - {"/gone=a file now"} | {"/gone="})
    monkeypatch.setenv("STOWAGE_OBSERVERS", "faults")
    for number in range(1, 400, rounds(8, 1)):
        monkeypatch.setenv("STOWAGE_FAULTS", f"effect=union.*:n={number}:kill")
        child = rig.prepare(chain)
        died = False
        try:
            with rig.open(child) as root:
                for _, step in steps(root):
                    try:
                        step()
                    except OSError:
                        died = True
                        break
        except StowageError:
            died = True
        monkeypatch.delenv("STOWAGE_FAULTS")
        until(lambda child=child: not serving.servers(child.directory))  # type: ignore[misc]
        with rig.open(child) as root:
            assert seen(root) in allowed, number
        assert os.listdir(child.directory / "work") == []
        if not died:
            return
    pytest.fail("it never got through")


@pytest.mark.usefixtures("no_servers")
def test_an_active_snapshot_is_served_once_at_a_time(
    rig: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rig.driver, "busy_seconds", 0.05)
    child = rig.prepare()
    with rig.open(child), pytest.raises(StowageError, match="mounted already"), rig.open(child):
        pass
    with rig.open(child):
        pass


@pytest.mark.usefixtures("no_servers")
def test_a_mount_point_is_unmounted_after_its_server_died(rig: Any, shm_dir: Path) -> None:
    child = rig.prepare()
    place = child.directory / "place"
    place.mkdir()
    mounted = rig.driver.storage_attach(child.directory, (), Kind.ACTIVE, rig.options())
    move(mounted, place)
    os.close(mounted)
    (server,) = serving.servers(child.directory)
    send_signal(server, signal.SIGKILL)
    assert wait_gone(server, PATIENCE_SECONDS)
    unmount(place)
    assert os.listdir(place) == []


# --- where it does not work -----------------------------------------------------------------------


def test_the_probe_leaves_no_trace_and_says_what_the_place_gives(disk_rig: Any) -> None:
    probe = disk_rig.driver.storage_probe()
    assert probe.ok
    kind = disk_rig.root.parent.name
    assert probe.capabilities.reflink == (kind in ("xfs", "btrfs"))
    assert probe.capabilities.hardlinks_kept
    assert probe.capabilities.native_diff
    assert os.listdir(disk_rig.root) == []


def test_without_libfuse_the_probe_names_the_remedy(
    rig: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSE_LIBRARY_PATH", "/nowhere/libfuse.so.2")
    (finding,) = rig.driver.storage_probe().findings
    assert "libfuse 2 is not installed" in finding.reason
    assert finding.remedy == "apt install libfuse2"


def test_without_root_the_probe_says_so(rig: Any, tools: Any) -> None:
    probe = tools.in_child(rig.driver.storage_probe, tools.become_nobody)
    assert probe.findings[0].remedy == "run as root"


def test_a_directory_of_the_host_is_refused_with_the_reason(rig: Any) -> None:
    assert not rig.driver.storage_probe().capabilities.host_root
    with pytest.raises(NotSupported, match="what the host changes"):
        rig.prepare([Path("/")])


def test_recovery_removes_what_a_killed_probe_left(rig: Any) -> None:
    stale = rig.root / ".probe-1-0"
    shutil.copytree(rig.layer((), f="x")[0], stale)
    rig.driver.storage_recover([])
    assert not stale.exists()


def test_every_path_of_the_metadata_exists_while_the_snapshot_does(rig: Any) -> None:
    chain = rig.layer(rig.layer((), f="x"), g="y")
    active, view = rig.prepare(chain), rig.view(chain)
    committed = type(active)(chain[0], chain[1:], Kind.COMMITTED)
    for snapshot, keys in (
        (active, {"LowerDir", "UpperDir"}),
        (view, {"LowerDir"}),
        (committed, {"LowerDir", "UpperDir"}),
    ):
        facts = rig.driver.storage_metadata(snapshot.directory, snapshot.parents, snapshot.kind)
        assert set(facts) == keys
        assert all(os.path.isdir(path) for value in facts.values() for path in value.split(":"))
