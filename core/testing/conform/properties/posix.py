"""F: file operations through the mount, beside a plain directory that is given the same ones."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import strategies as st

from ....linux.files import remove_tree
from ..case import Case
from ..model import ModelTree
from ..operations import Create, Mkdir, Operation, Rename, Rmdir, Unlink
from ..registry import prop
from ..subject import assert_same
from ..tree import Tree, observe


@prop(
    "F1",
    "File operations on a chain end as on a plain directory, and leave the same tree",
    needs="hardlinks_kept",
)
def like_a_plain_directory(case: Case) -> None:
    _beside_a_plain_directory(case, ignoring=("mtime_ns",))


@prop(
    "F1b",
    "So they do, second names apart, where copy-up parts the names of a lower file",
    lacks="hardlinks_kept",
)
def like_a_plain_directory_without_links(case: Case) -> None:
    _beside_a_plain_directory(case, ignoring=("mtime_ns",), links=False)


@prop("F2", "What is removed is gone from listing, stat and open, and in all descendants")
def removed_is_gone(case: Case) -> None:
    subject = case.subject
    name, trees = case.chain()
    found = [path for path in trees[-1].paths() if path and not _below(trees[-1], path)]
    before = subject.tree(name)
    subject.prepare("key", name)
    gone = case.draw(st.sampled_from(found)) if found else b""
    if not gone:
        return
    remove = Rmdir if trees[-1].inodes[gone].kind == "directory" else Unlink
    subject.done("key", remove(gone))
    subject.commit("removed", "key")
    subject.prepare("child", "removed")

    for key in ("removed", "child"):
        with subject.attached(key, read_only=True) as root:
            _assert_absent(root, gone, key)
    subject.shows(name, before)


@prop("F3", "A directory that is removed and made again is empty, over any number of layers")
def made_again_is_empty(case: Case) -> None:
    subject = case.subject
    depth = case.draw(st.integers(1, 3))
    parent = None
    for number in range(depth):
        subject.prepare(f"key{number}", parent)
        inside = Create(b"d/%d" % number, b"old")
        subject.done(f"key{number}", *([] if number else [Mkdir(b"d")]), inside)
        parent = subject.commit(f"layer{number}", f"key{number}").name
    subject.prepare("key", parent)

    old = [Unlink(b"d/%d" % number) for number in range(depth)]
    subject.done("key", *old, Rmdir(b"d"), Mkdir(b"d"))

    subject.prepare("other")
    subject.done("other", Mkdir(b"d"))
    subject.same("key", "other", ignoring=["mtime_ns"])
    subject.commit("again", "key")
    subject.prepare("child", "again")
    subject.same("child", "other", ignoring=["mtime_ns"])


@prop("F12", "A listing names each entry once, also those that nothing touches while it is read")
def listing_is_complete(case: Case) -> None:
    subject = case.subject
    count = case.one_of(3, 40, 300)
    names = [b"n%d" % number for number in range(count)]
    subject.prepare("base")
    subject.done("base", *(Create(one) for one in names[: count // 2]))
    subject.commit("lower", "base")
    subject.prepare("key", "lower")
    subject.done("key", *(Create(one) for one in names[count // 2 :]))
    touched = set(case.draw(st.lists(st.sampled_from(names), unique=True, max_size=10)))

    with subject.attached("key") as root, os.scandir(root) as entries:
        seen = [os.fsencode(next(entries).name)]
        for name in sorted(touched):
            os.unlink(name, dir_fd=root)
        seen += [os.fsencode(entry.name) for entry in entries]

    steady = sorted(name for name in seen if name not in touched)
    assert steady == sorted(set(names) - touched), f"listed of what stayed: {steady}"


@prop("F14", "A descriptor keeps its content when its name is removed or renamed over")
def descriptor_keeps_content(case: Case) -> None:
    subject = case.subject
    subject.prepare("base")
    subject.done("base", Create(b"f", b"old"), Create(b"g", b"new"))
    subject.commit("lower", "base")
    subject.prepare("key", "lower")
    operation: Operation = case.one_of(Unlink(b"f"), Rename(b"g", target=b"f"))

    with subject.attached("key") as root:
        opened = os.open(b"f", os.O_RDONLY | os.O_CLOEXEC, dir_fd=root)
        try:
            operation.perform(root)
            content = os.pread(opened, 10, 0)
        finally:
            os.close(opened)

    assert content == b"old", f"after {operation!r} the open file reads {content!r}"


def _beside_a_plain_directory(case: Case, *, ignoring: tuple[str, ...], links: bool = True) -> None:
    subject = case.subject
    tree = ModelTree(subject.traits)
    parent = None
    with _plain_directory(case) as plain:
        for number in range(case.draw(st.integers(1, 3))):
            key, layer = f"key{number}", f"layer{number}"
            subject.prepare(key, parent)
            program = case.program(tree, most=12)
            if not links:
                program = [one for one in program if type(one).__name__ != "Link"]
            for operation, ended in zip(program, subject.perform(key, *program), strict=True):
                if ended == errno.EXDEV and isinstance(operation, Rename):
                    assert not subject.traits.dir_rename, f"{operation!r} ended with EXDEV"
                    continue
                wanted = operation.attempt(plain)
                assert ended == wanted, (
                    f"{operation!r} ended with {_said(ended)}, "
                    f"in a plain directory with {_said(wanted)}"
                )
            assert_same(observe(plain), subject.tree(key), repr(key), ignoring)
            parent = subject.commit(layer, key).name
            tree = tree.child()


@contextmanager
def _plain_directory(case: Case) -> Iterator[int]:
    """Give the descriptor of an empty directory like a new base, on the root's file system."""
    path = tempfile.mkdtemp(prefix="plain-", dir=case.subject.root)
    os.chmod(path, 0o755)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
        remove_tree(path)


def _below(tree: ModelTree, path: bytes) -> bool:
    return any(other.startswith(path + b"/") for other in tree.paths())


def _assert_absent(root: int, path: bytes, key: str) -> None:
    seen: Tree = observe(root)
    assert path not in seen, f"{path!r} is listed in {key!r}"
    for call in (os.lstat, lambda name, dir_fd: os.close(os.open(name, os.O_PATH, dir_fd=dir_fd))):
        try:
            call(path, dir_fd=root)
        except FileNotFoundError:
            continue
        raise AssertionError(f"{path!r} is found in {key!r}")


def _said(number: int) -> str:
    return errno.errorcode.get(number, str(number)) if number else "success"
