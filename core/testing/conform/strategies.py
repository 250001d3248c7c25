"""Hypothesis strategies for operations and trees, guided by the model so that most succeed."""

from __future__ import annotations

import stat

from hypothesis import strategies as st

from .model import ModelTree
from .operations import (
    Chmod,
    Chown,
    Create,
    Link,
    Mkdir,
    Mknod,
    Operation,
    RemoveXattr,
    Rename,
    Rmdir,
    SetXattr,
    Symlink,
    Truncate,
    Unlink,
    Utime,
    Write,
)

#: Few, so that programs meet their own names again; the last two are no text and no option.
NAMES = (b"a", b"b", b"c", b"d", b"\xff", b"x:y,z\\")
_DEEPEST = 3

NAME = st.sampled_from(NAMES)
MODES = st.sampled_from([0o644, 0o755, 0o600, 0o444, 0o000, 0o4755, 0o2755, 0o2644, 0o1777])
DIRECTORY_MODES = st.sampled_from([0o755, 0o700, 0o1777, 0o2775, 0o500])
OWNERS = st.sampled_from([0, 1, 1000, 65534, 4_000_000])
CONTENTS = st.sampled_from([b"", b"x", b"some text\n", b"\0", b"y" * 5000, b"\0" * 4096 + b"z"])
OFFSETS = st.sampled_from([0, 1, 4095, 4096, 70_000])
SIZES = st.sampled_from([0, 1, 100, 4096, 5001, 100_000])
TIMES = st.sampled_from(
    [0, 1, 1_700_000_000_123_456_789, -1_000_000_001, 999_999_999, 2_000_000_000_000_000_001]
)
XATTRS = st.sampled_from(["user.a", "user.b", "trusted.c"])
VALUES = st.sampled_from([b"", b"1", b"\0binary\xff", b"v" * 200])
TARGETS = st.sampled_from([b"a", b"/etc/passwd", b"../../..", b"b/c", b"\xff", b"t" * 200])


def paths(tree: ModelTree) -> st.SearchStrategy[bytes]:
    """A name below some directory of *tree*, there or not."""
    directories = [path for path in tree.paths("directory") if path.count(b"/") < _DEEPEST - 1]
    return st.builds(_joined, st.sampled_from(directories), NAME)


def _joined(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name


def existing(tree: ModelTree, *kinds: str) -> st.SearchStrategy[bytes]:
    """A name of *tree* (of one of *kinds*) but the root, or any where there is none."""
    found = [path for path in tree.paths(*kinds) if path]
    return st.sampled_from(found) if found else paths(tree)


def _existing_or_root(tree: ModelTree) -> st.SearchStrategy[bytes]:
    return st.sampled_from(tree.paths())


@st.composite
def operations(draw: st.DrawFn, tree: ModelTree, *, sockets: bool = False) -> Operation:
    """One operation that suits *tree*, though it may fail on it.

    Only with *sockets* are there such: no archive can hold them.
    """
    kind = draw(st.sampled_from(_KINDS))
    if kind is Create:
        return Create(draw(paths(tree)), draw(CONTENTS), mode=draw(MODES))
    if kind is Mkdir:
        return Mkdir(draw(paths(tree)), mode=draw(DIRECTORY_MODES))
    if kind is Unlink:
        return Unlink(draw(existing(tree, "file", "symlink", "fifo", "socket")))
    if kind is Write:
        return Write(draw(existing(tree, "file")), draw(CONTENTS), offset=draw(OFFSETS))
    if kind is Truncate:
        return Truncate(draw(existing(tree, "file")), draw(SIZES))
    if kind is Rmdir:
        return Rmdir(draw(existing(tree, "directory")))
    if kind is Rename:
        target = draw(st.one_of(paths(tree), existing(tree)))
        return Rename(draw(existing(tree)), target=target)
    if kind is Link:
        return Link(draw(paths(tree)), source=draw(existing(tree, "file", "symlink")))
    if kind is Symlink:
        return Symlink(draw(paths(tree)), target=draw(TARGETS))
    if kind is Mknod:
        of_type = draw(st.sampled_from([stat.S_IFIFO, *([stat.S_IFSOCK] if sockets else [])]))
        return Mknod(draw(paths(tree)), mode=of_type | 0o640)
    if kind is Chmod:
        found = [path for path in tree.paths() if tree.inodes[path].kind != "symlink"]
        return Chmod(draw(st.sampled_from(found)), draw(MODES))
    if kind is Chown:
        return Chown(draw(_existing_or_root(tree)), draw(OWNERS), draw(OWNERS))
    if kind is Utime:
        return Utime(draw(_existing_or_root(tree)), draw(TIMES))
    if kind is SetXattr:
        return SetXattr(draw(_existing_or_root(tree)), draw(XATTRS), draw(VALUES))
    return RemoveXattr(draw(_existing_or_root(tree)), draw(XATTRS))


#: As often as they matter for layers: making, deleting and making again.
_KINDS = (
    Create, Create, Mkdir, Mkdir, Unlink, Write, Truncate, Rmdir, Rename, Link, Symlink, Mknod,
    Chmod, Chown, Utime, SetXattr, RemoveXattr,
)  # fmt: skip


def label_sets() -> st.SearchStrategy[dict[str, str]]:
    """Labels as containerd takes them; an empty value removes one."""
    return st.dictionaries(
        st.sampled_from(["a", "b.c", "d/e"]), st.sampled_from(["1", "two", ""]), max_size=3
    )


__all__ = ["NAME", "NAMES", "existing", "label_sets", "operations", "paths"]
