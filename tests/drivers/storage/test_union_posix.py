"""The union behaves as a plain directory on the same file system does: results, errnos, trees.

The same random operations go to a mounted union, whose start lies in two lower layers, and to a
plain copy of that start. After each one the outcomes are equal, and now and then the whole trees.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

pytestmark = pytest.mark.requires("fuse")

NAMES = ("a", "b", "c", "d", "e")
PATHS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join)
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, bits, who)
    for tag, bits, who in (
        (1, 7, 0xFFFFFFFF), (2, 6, 1234), (4, 5, 0xFFFFFFFF), (16, 7, 0xFFFFFFFF),
        (32, 0, 0xFFFFFFFF),
    )
)  # fmt: skip
XATTRS = ("user.x", "user.y", "trusted.overlay.opaque", "trusted.z")


def populate(root: Path) -> None:
    """Directories, files, hard links, symlinks, devices, ACLs, holes."""
    (root / "a/b").mkdir(parents=True)
    (root / "a/c").write_bytes(b"first")
    (root / "a/b/d").write_bytes(b"deep")
    (root / "d").mkdir(mode=0o2775)
    (root / "d/e").write_bytes(b"\0" * 8192 + b"end")
    os.link(root / "a/c", root / "d/a")
    os.link(root / "a/c", root / "e")
    os.symlink("a/c", root / "b")
    os.mkfifo(root / "d/c")
    os.setxattr(root / "d/e", "user.x", b"lower")
    os.setxattr(root / "d", "system.posix_acl_default", ACL)
    os.chown(root / "a", 1000, 1000)


def overlay_second(root: Path) -> None:
    """What a second layer changes."""
    (root / "a/b/e").write_bytes(b"second")
    (root / "c").mkdir()
    (root / "c/a").write_bytes(b"new")
    os.unlink(root / "a/b/d")
    shutil.rmtree(root / "d")
    (root / "d").mkdir()
    (root / "d/b").write_bytes(b"again")
    (root / "d/d").mkdir()


def outcome(act: Callable[[], object]) -> object:
    try:
        return act()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "refused by Python")


class Side:
    """One of the two directories, with what is open in it."""

    def __init__(self, root: int) -> None:
        self.root = root
        self.open: list[int] = []

    def at(self, path: str) -> str:
        return f"/proc/self/fd/{self.root}/{path}"

    def close(self) -> None:
        for descriptor in self.open:
            os.close(descriptor)


def described(root: str) -> dict[str, object]:
    """All that shows of a tree but inode numbers; those as groups of paths."""
    found: dict[str, object] = {}
    groups: dict[int, list[str]] = {}
    todo = [""]
    while todo:
        path = todo.pop()
        for name in sorted(os.listdir(f"{root}/{path}")):
            here = f"{path}/{name}" if path else name
            full = f"{root}/{here}"
            facts = os.lstat(full)
            content: object = None
            if stat.S_ISDIR(facts.st_mode):
                todo.append(here)
            elif stat.S_ISREG(facts.st_mode):
                content = Path(full).read_bytes()
            elif stat.S_ISLNK(facts.st_mode):
                content = os.readlink(full)
            groups.setdefault(facts.st_ino, []).append(here)
            xattrs = {
                key: os.getxattr(full, key, follow_symlinks=False)
                for key in os.listxattr(full, follow_symlinks=False)
            }
            directory = stat.S_ISDIR(facts.st_mode)
            found[here] = (
                oct(facts.st_mode), facts.st_uid, facts.st_gid,
                0 if directory else facts.st_nlink,
                0 if directory else facts.st_size,
                facts.st_rdev, content, xattrs,
            )  # fmt: skip
    found["<links>"] = sorted(paths for paths in groups.values() if len(paths) > 1)
    return found


class Machine(RuleBasedStateMachine):
    """Both sides do each step."""

    sides: Callable[[], contextlib.AbstractContextManager[tuple[Side, Side]]]

    def __init__(self) -> None:
        super().__init__()
        self._stack = contextlib.ExitStack()
        self.steps = 0

    @initialize()
    def begin(self) -> None:
        self.union, self.plain = self._stack.enter_context(type(self).sides())

    def teardown(self) -> None:
        try:
            if hasattr(self, "union"):
                self.compare_trees()
        finally:
            self._stack.close()

    def both(self, act: Callable[[Side], object]) -> object:
        seen, expected = outcome(lambda: act(self.union)), outcome(lambda: act(self.plain))
        assert seen == expected
        self.steps += 1
        return seen

    def compare_trees(self) -> None:
        seen, expected = described(self.union.at(".")), described(self.plain.at("."))
        different = {
            path: (seen.get(path), expected.get(path))
            for path in sorted(seen.keys() | expected.keys())
            if seen.get(path) != expected.get(path)
        }
        assert different == {}

    @invariant()
    def now_and_then(self) -> None:
        if self.steps % 7 == 6:
            self.steps += 1
            self.compare_trees()

    # --- looking ---------------------------------------

    @rule(path=PATHS)
    def look(self, path: str) -> None:
        def act(side: Side) -> object:
            facts = os.lstat(side.at(path))
            return facts.st_mode, facts.st_uid, facts.st_gid

        self.both(act)

    @rule(path=PATHS)
    def list_names(self, path: str) -> None:
        self.both(lambda side: sorted(os.listdir(side.at(path))))

    @rule(path=PATHS)
    def read(self, path: str) -> None:
        def act(side: Side) -> bytes:
            descriptor = os.open(side.at(path), os.O_RDONLY | os.O_NONBLOCK)
            try:
                return os.read(descriptor, 1 << 16)
            finally:
                os.close(descriptor)

        self.both(act)

    # --- changing names ---------------------------------------

    @rule(path=PATHS, mode=st.sampled_from([0o755, 0o700, 0o2775, 0o1777]))
    def mkdir(self, path: str, mode: int) -> None:
        self.both(lambda side: os.mkdir(side.at(path), mode))

    @rule(path=PATHS)
    def rmdir(self, path: str) -> None:
        self.both(lambda side: os.rmdir(side.at(path)))

    @rule(path=PATHS)
    def unlink(self, path: str) -> None:
        self.both(lambda side: os.unlink(side.at(path)))

    @rule(path=PATHS)
    def remove_whole(self, path: str) -> None:
        self.both(lambda side: shutil.rmtree(side.at(path)))

    @rule(old=PATHS, new=PATHS)
    def rename(self, old: str, new: str) -> None:
        def act(side: Side) -> object:
            try:
                os.rename(side.at(old), side.at(new))
            except FileExistsError:  # xfs says so of a directory with names in it; rename(2)
                return "ENOTEMPTY"
            return None

        self.both(act)

    @rule(old=PATHS, new=PATHS)
    def link(self, old: str, new: str) -> None:
        self.both(lambda side: os.link(side.at(old), side.at(new), follow_symlinks=False))

    @rule(path=PATHS, to=PATHS)
    def symlink(self, path: str, to: str) -> None:
        self.both(lambda side: os.symlink(to, side.at(path)))

    @rule(path=PATHS, kind=st.sampled_from([stat.S_IFIFO, stat.S_IFREG, stat.S_IFCHR]))
    def mknod(self, path: str, kind: int) -> None:
        self.both(lambda side: os.mknod(side.at(path), kind | 0o640, os.makedev(1, 3)))

    # --- changing files ---------------------------------------

    @rule(
        path=PATHS,
        flags=st.sets(st.sampled_from([os.O_CREAT, os.O_EXCL, os.O_TRUNC, os.O_APPEND])),
        access=st.sampled_from([os.O_RDONLY, os.O_WRONLY, os.O_RDWR]),
        mode=st.sampled_from([0o644, 0o600, 0o4755]),
    )
    def keep_open(self, path: str, flags: set[int], access: int, mode: int) -> None:
        """Open; the descriptor stays for later."""

        def act(side: Side) -> None:
            whole = access | sum(flags) | os.O_NONBLOCK
            if stat.S_ISFIFO(os.lstat(side.at(path)).st_mode) if exists(side, path) else False:
                return
            side.open.append(os.open(side.at(path), whole, mode))

        self.both(act)

    @rule(number=st.integers(0, 7), at=st.integers(0, 9000), data=st.binary(max_size=40))
    def write_open(self, number: int, at: int, data: bytes) -> None:
        def act(side: Side) -> object:
            if not side.open:
                return None
            return os.pwrite(side.open[number % len(side.open)], data, at)

        self.both(act)

    @rule(number=st.integers(0, 7))
    def read_open(self, number: int) -> None:
        def act(side: Side) -> object:
            if not side.open:
                return None
            descriptor = side.open[number % len(side.open)]
            facts = os.fstat(descriptor)
            return facts.st_size, facts.st_nlink, facts.st_mode, os.pread(descriptor, 1 << 16, 0)

        self.both(act)

    @rule(number=st.integers(0, 7), length=st.integers(0, 9000))
    def truncate_open(self, number: int, length: int) -> None:
        def act(side: Side) -> object:
            if not side.open:
                return None
            os.ftruncate(side.open[number % len(side.open)], length)
            return None

        self.both(act)

    @rule(number=st.integers(0, 7))
    def close(self, number: int) -> None:
        for side in (self.union, self.plain):
            if side.open:
                os.close(side.open.pop(number % len(side.open)))

    @rule(path=PATHS, length=st.integers(0, 9000))
    def truncate(self, path: str, length: int) -> None:
        self.both(lambda side: os.truncate(side.at(path), length))

    # --- changing attributes ---------------------------------------

    @rule(path=PATHS, mode=st.sampled_from([0o644, 0o4755, 0o1777, 0o700]))
    def chmod(self, path: str, mode: int) -> None:
        self.both(lambda side: os.chmod(side.at(path), mode))

    @rule(path=PATHS, uid=st.sampled_from([-1, 0, 1000]), gid=st.sampled_from([-1, 0, 1001]))
    def chown(self, path: str, uid: int, gid: int) -> None:
        self.both(lambda side: os.chown(side.at(path), uid, gid, follow_symlinks=False))

    @rule(path=PATHS, times=st.tuples(*[st.integers(1, 1 << 61)] * 2))
    def utime(self, path: str, times: tuple[int, int]) -> None:
        def act(side: Side) -> object:
            os.utime(side.at(path), ns=times, follow_symlinks=False)
            facts = os.lstat(side.at(path))
            return facts.st_atime_ns, facts.st_mtime_ns

        self.both(act)

    @rule(path=PATHS, name=st.sampled_from(XATTRS), value=st.binary(max_size=20))
    def setxattr(self, path: str, name: str, value: bytes) -> None:
        self.both(lambda side: os.setxattr(side.at(path), name, value, follow_symlinks=False))

    @rule(path=PATHS, name=st.sampled_from(XATTRS))
    def removexattr(self, path: str, name: str) -> None:
        self.both(lambda side: os.removexattr(side.at(path), name, follow_symlinks=False))

    @rule(path=PATHS, kind=st.sampled_from(["access", "default"]))
    def set_acl(self, path: str, kind: str) -> None:
        self.both(lambda side: os.setxattr(side.at(path), f"system.posix_acl_{kind}", ACL))


def exists(side: Side, path: str) -> bool:
    try:
        os.lstat(side.at(path))
    except OSError:
        return False
    return True


@pytest.mark.parametrize("driver", ["fuse", "aufs"])
def test_random_operations_have_the_outcomes_of_a_plain_directory(
    disk_dir: Path, driver: str, tools: Any, rounds: Callable[[int, int], int]
) -> None:
    rig = tools.rig(driver, disk_dir / "storage")
    first = rig.prepare()
    with rig.open(first) as root:
        populate(Path(f"/proc/self/fd/{root}"))
    second = rig.prepare(rig.commit(first))
    with rig.open(second) as root:
        overlay_second(Path(f"/proc/self/fd/{root}"))
    chain = rig.commit(second)
    plain_start = disk_dir / "start"
    plain_start.mkdir()
    populate(plain_start)
    overlay_second(plain_start)
    count = [0]

    @contextlib.contextmanager
    def sides() -> Iterator[tuple[Side, Side]]:
        count[0] += 1
        plain = disk_dir / f"plain{count[0]}"
        tools.copy(plain_start, plain)
        child = rig.prepare(chain)
        plain_root = os.open(plain, os.O_RDONLY | os.O_DIRECTORY)
        with rig.open(child) as root:
            pair = Side(root), Side(plain_root)
            try:
                yield pair
            finally:
                for side in pair:
                    side.close()
                os.close(plain_root)
        shutil.rmtree(plain)
        rig.remove(child)

    machine: Any = type("Here", (Machine,), {"sides": staticmethod(sides)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=rounds(8, 150),
            stateful_step_count=40,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
