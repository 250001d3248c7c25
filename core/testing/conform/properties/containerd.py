"""T: what containerd's suite lists as still to be written (``core/snapshots/testsuite``)."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from typing import TypeVar

from hypothesis import strategies as st

from ....errors import FailedPrecondition
from ....linux.namespaces import CLONE_FS, on_throwaway_thread, unshare
from ....model import Kind
from ..case import Case
from ..operations import Chmod, Create, Mkdir, Mknod, Unlink, Write
from ..registry import prop

R = TypeVar("R")


@prop(
    "T1",
    "RemoveAfterCommit: a file of a layer can be removed in a child, again and again (moby#24309)",
)
def remove_after_commit(case: Case) -> None:
    subject = case.subject
    subject.prepare("work")
    subject.done("work", Mkdir(b"d"), Create(b"d/a"), Create(b"d/b"))
    subject.commit("l0", "work")
    for number in range(case.draw(st.integers(1, 4))):
        subject.prepare("work", f"l{number}")
        subject.done("work", Unlink(b"d/a"))
        assert list(subject.tree("work")) == [b"", b"d", b"d/b"], "it is still there"
        subject.done("work", Create(b"d/a", b"%d" % number))
        subject.commit(f"l{number + 1}", "work")
        assert subject.tree(f"l{number + 1}")[b"d/a"].extents == ((0, b"%d" % number),)


@prop(
    "T2",
    "UnixDomainSockets: a socket can be bound, connected to, and is there in a child (moby#12080)",
    once=True,
    machine="mounts",
)
def unix_domain_sockets(case: Case) -> None:
    subject = case.subject
    subject.prepare("work")
    subject.done("work", Mkdir(b"run"), Mknod(b"run/made", mode=stat.S_IFSOCK | 0o755))
    with subject.attached("work") as root:

        def talk() -> bytes:
            os.fchdir(root)
            with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
                server.bind("run/bound")
                server.listen(1)
                client.connect("run/bound")
                accepted, _ = server.accept()
                with accepted:
                    client.sendall(b"through")
                    return accepted.recv(10)

        assert _there(talk) == b"through", "nothing comes through the socket"
    subject.commit("layer", "work")
    subject.prepare("child", "layer")
    kinds = {path: node.kind for path, node in subject.tree("child").items()}
    assert kinds[b"run/bound"] == kinds[b"run/made"] == "socket", f"there are {kinds}"
    subject.done("child", Unlink(b"run/bound"))


@prop(
    "T3",
    "DirectoryInodeStability: a directory's inode stays while names in it come and go (moby#19647)",
    needs="stable_inodes",
)
def directory_inode(case: Case) -> None:
    subject = case.subject
    subject.prepare("work")
    subject.done("work", Mkdir(b"d"), Create(b"d/old"))
    subject.commit("layer", "work")
    subject.prepare("key", "layer")
    operation = case.one_of(
        Create(b"d/new"),
        Unlink(b"d/old"),
        Mkdir(b"d/sub"),
        Chmod(b"d", 0o700),
        Write(b"d/old", b"x"),
    )
    with subject.attached("key") as root:
        held = os.open("d", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
        try:
            before = os.fstat(held)
            operation.perform(root)
            after, anew = os.fstat(held), os.stat("d", dir_fd=root)
        finally:
            os.close(held)
    ids = {(one.st_dev, one.st_ino) for one in (before, after, anew)}
    assert len(ids) == 1, f"{operation!r} gave it the inodes {ids}"


@prop(
    "T4",
    "OpenFileInodeStability: an open file is the same before and after it is written to"
    " (moby#12327)",
    needs="stable_inodes",
    once=True,
)
def open_file_inode(case: Case) -> None:
    subject = case.subject
    subject.prepare("work")
    subject.done("work", Create(b"file", b"old"))
    subject.commit("layer", "work")
    subject.prepare("key", "layer")
    with subject.attached("key") as root:
        held = os.open("file", os.O_RDONLY | os.O_CLOEXEC, dir_fd=root)
        try:
            before = os.fstat(held)
            Write(b"file", b"new").perform(root)
            ids = {
                (one.st_dev, one.st_ino)
                for one in (before, os.fstat(held), os.stat("file", dir_fd=root))
            }
        finally:
            os.close(held)
    assert len(ids) == 1, f"it had the inodes {ids}"


@prop(
    "T5",
    "GetCWD: a working directory in a mount has its path, also once it was copied up (moby#19082)",
    once=True,
    machine="mounts",
)
def getcwd(case: Case) -> None:
    subject = case.subject
    subject.prepare("work")
    subject.done("work", Mkdir(b"a"), Mkdir(b"a/b"))
    subject.commit("layer", "work")
    subject.prepare("key", "layer")
    place = subject.mount("key")

    def walk() -> list[str]:
        os.chdir(place / "a/b")
        seen = [os.getcwd()]
        os.mkdir("new")
        os.chmod(".", 0o700)
        seen.append(os.getcwd())
        os.chdir("new")
        os.chdir("..")
        seen.append(os.getcwd())
        return seen

    seen = _there(walk)
    subject.unmount("key")
    assert set(seen) == {str(place / "a/b")}, f"the working directory was {seen}"


@prop("T6", "Chmod: a lower file's mode changes, and nothing else of it, in the child alone")
def chmod(case: Case) -> None:
    subject = case.subject
    subject.prepare("work")
    subject.done("work", Create(b"file", b"content", mode=0o644), Mkdir(b"dir", mode=0o755))
    subject.commit("layer", "work")
    subject.prepare("key", "layer")
    before = subject.tree("layer")
    path, mode = case.one_of((b"file", 0o4711), (b"file", 0), (b"dir", 0o1777), (b"", 0o700))
    subject.done("key", Chmod(path, mode))
    seen = dict(subject.tree("key"))
    assert seen[path].mode == mode
    for field in ("uid", "gid", "mtime_ns", "size", "extents", "xattrs"):
        one, other = getattr(before[path], field), getattr(seen[path], field)
        assert one == other, f"{field} was {one} and is {other}"
    assert subject.tree("layer") == before, "the parent changed"
    subject.commit("changed", "key")
    subject.prepare("copy", "layer")
    subject.apply_diff("copy", of="changed")
    subject.same("copy", "changed")


@prop("T7", "RemoveInWalk: snapshots can be removed while they are listed")
def remove_in_walk(case: Case) -> None:
    subject = case.subject
    case.chain(operations=2)
    for number in range(case.draw(st.integers(1, 5))):
        subject.prepare(f"key{number}")
    every = subject.names()
    seen = []
    for info in subject.layers.walk():
        seen.append(info.name)
        try:
            subject.layers.remove(info.name)
        except FailedPrecondition:
            assert info.kind is Kind.COMMITTED, f"{info.name} has no children, and stays"
    assert sorted(seen) == every, f"listed were {seen}, there had been {every}"


def _there(work: Callable[[], R]) -> R:
    """Run *work* on a thread with a working directory of its own."""

    def run() -> R:
        unshare(CLONE_FS)
        try:
            return work()
        finally:
            os.chdir("/")  # a thread lets go of it only some time after it was joined

    return on_throwaway_thread(run)
