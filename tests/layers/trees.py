"""Trees as plain values: made, looked at and compared without any code of the layer codec."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

SECOND = 1_000_000_000


@dataclass(frozen=True)
class Node:
    """A file of any kind; *content* maps offsets to data, holes between; *link* another path."""

    kind: str
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 1_600_000_000 * SECOND
    content: tuple[tuple[int, bytes], ...] = ()
    size: int = 0
    target: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[str, bytes], ...] = ()


Model = dict[bytes, Node]
"""Nodes by path relative to the root; parents are in it too, the root is ``b""``."""


def file(content: bytes = b"", **facts: Any) -> Node:
    return Node("file", content=((0, content),), size=len(content), **facts)


def directory(mode: int = 0o755, **facts: Any) -> Node:
    return Node("dir", mode=mode, **facts)


def symlink(target: bytes, **facts: Any) -> Node:
    return Node("symlink", mode=0o777, target=target, **facts)


def build(root: Path | bytes, model: Model, *, backwards: bool = False) -> None:
    """Make *model* in an existing directory, attributes last, deepest first."""
    base = os.fsencode(root)
    paths = sorted(model, reverse=backwards)
    for path in sorted(paths, key=lambda path: (model[path].kind == "link", path.count(b"/"))):
        _make(base, path, model[path])
    for path in sorted(model, reverse=True):
        _dress(base, path, model[path])


def _make(base: bytes, path: bytes, node: Node) -> None:
    full = os.path.join(base, path)
    if node.kind == "dir":
        if not os.path.isdir(full):
            os.mkdir(full)
    elif node.kind == "file":
        with open(full, "xb") as out:
            for offset, data in node.content:
                out.seek(offset)
                out.write(data)
            out.truncate(node.size)
    elif node.kind == "symlink":
        os.symlink(node.target, full)
    elif node.kind == "link":
        os.link(os.path.join(base, node.target), full)
    else:
        kinds = {"fifo": stat.S_IFIFO, "char": stat.S_IFCHR, "block": stat.S_IFBLK}
        os.mknod(full, kinds[node.kind] | 0o600, os.makedev(*node.device))


def _dress(base: bytes, path: bytes, node: Node) -> None:
    full = os.path.join(base, path)
    if node.kind == "link":
        return
    os.chown(full, node.uid, node.gid, follow_symlinks=False)
    for name, value in node.xattrs:
        os.setxattr(full, name, value, follow_symlinks=False)
    if node.kind != "symlink":
        os.chmod(full, node.mode)
    os.utime(full, ns=(0, node.mtime_ns), follow_symlinks=False)


@dataclass(frozen=True)
class Seen:
    """What stat, readlink, xattrs and the contents of one file say; *links*: its first name."""

    kind: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int
    device: int
    target: bytes
    digest: bytes
    holes: tuple[tuple[int, int], ...]
    xattrs: tuple[tuple[str, bytes], ...] = field(default=())
    links: bytes = b""


def observe(root: Path | bytes, *, prefix: str = "") -> dict[bytes, Seen]:
    """Look at everything beneath *root*, itself included as ``b""``."""
    base = os.fsencode(root)
    found: dict[bytes, Seen] = {}
    first: dict[tuple[int, int], bytes] = {}
    todo = [b""]
    for path in todo:
        full = os.path.join(base, path)
        status = os.lstat(full)
        kind = stat.S_IFMT(status.st_mode)
        inode = (status.st_dev, status.st_ino)
        if kind == stat.S_IFDIR:
            todo += sorted(os.path.join(path, name) for name in os.listdir(full))
        names = os.listxattr(full, follow_symlinks=False)
        found[path] = Seen(
            kind=kind,
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            mtime_ns=status.st_mtime_ns,
            size=0 if kind == stat.S_IFDIR else status.st_size,
            device=status.st_rdev,
            target=os.readlink(full) if kind == stat.S_IFLNK else b"",
            digest=hashlib.md5(Path(os.fsdecode(full)).read_bytes()).digest()
            if kind == stat.S_IFREG
            else b"",
            holes=_data(full, status.st_size) if kind == stat.S_IFREG else (),
            xattrs=tuple(
                (name, os.getxattr(full, name, follow_symlinks=False))
                for name in sorted(names)
                if not (prefix and name.startswith(prefix))
            ),
        )
        if kind != stat.S_IFDIR:
            first[inode] = min(path, first.get(inode, path))
            found[path] = replace(found[path], links=repr(inode).encode())
    group = {repr(inode).encode(): path for inode, path in first.items()}
    return {path: replace(seen, links=group.get(seen.links, b"")) for path, seen in found.items()}


def _data(full: bytes, size: int) -> tuple[tuple[int, int], ...]:
    extents = []
    with open(full, "rb") as opened:
        at = 0
        while at < size:
            try:
                at = os.lseek(opened.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            end = os.lseek(opened.fileno(), at, os.SEEK_HOLE)
            extents.append((at, end))
            at = end
    return tuple(extents)


def differences(one: dict[bytes, Seen], other: dict[bytes, Seen]) -> list[str]:
    """Return what differs, for messages; empty if nothing does."""
    said = []
    for path in sorted(one.keys() | other.keys()):
        left, right = one.get(path), other.get(path)
        if left is None or right is None:
            said.append(f"{path!r} only in the {'second' if left is None else 'first'}")
        elif left != right:
            facts = [
                f"{name} {getattr(left, name)!r} != {getattr(right, name)!r}"
                for name in Seen.__dataclass_fields__
                if getattr(left, name) != getattr(right, name)
            ]
            said.append(f"{path!r}: {', '.join(facts)}")
    return said


# --- strategies -------------------------------------------------------------------------------

NAMES = st.sampled_from([b"a", b"b", b"c", b"\xff\xfe", b"n\nl", b"-x", b".dot", b"L" * 120])
TIMES = st.sampled_from(
    [0, 1, 1_700_000_000 * SECOND, 1_700_000_000_123_456_789, -1_500_000_000, 2**33 * SECOND + 5]
)
MODES = st.sampled_from([0o644, 0o600, 0, 0o4755, 0o2755, 0o1777, 0o7777])
OWNERS = st.sampled_from([0, 1000, 70000, 2**31])
XATTRS = st.lists(
    st.tuples(st.sampled_from(["user.x", "trusted.y", "user.\udcffz"]), st.binary(max_size=20)),
    unique_by=lambda pair: pair[0],
    max_size=2,
).map(lambda pairs: tuple(sorted(pairs)))
PAGE = 4096


@st.composite
def nodes(draw: st.DrawFn) -> Node:
    kind = draw(st.sampled_from(["dir", "dir", "file", "file", "file", "symlink", "fifo", "char"]))
    facts: dict[str, Any] = {
        "uid": draw(OWNERS), "gid": draw(OWNERS), "mtime_ns": draw(TIMES)
    }  # fmt: skip
    if kind == "symlink":
        return symlink(draw(st.sampled_from([b"a", b"../b", b"/etc/passwd", b"x" * 150])), **facts)
    facts["mode"] = draw(MODES)
    if kind in ("dir", "file"):
        facts["xattrs"] = draw(XATTRS)
    if kind == "dir":
        return directory(**facts)
    if kind == "fifo":
        return Node("fifo", **facts)
    if kind == "char":
        return Node("char", device=draw(st.sampled_from([(1, 3), (5, 1)])), **facts)
    if draw(st.integers(0, 3)):
        return file(draw(st.sampled_from([b"", b"x", b"y", b"z" * 700, b"w" * 512])), **facts)
    pages = draw(st.sets(st.integers(0, 9), max_size=4))
    content = tuple((page * PAGE, bytes([65 + page]) * PAGE) for page in sorted(pages))
    return Node("file", content=content, size=draw(st.sampled_from([10, 12])) * PAGE, **facts)


@st.composite
def models(draw: st.DrawFn, names: st.SearchStrategy[bytes] = NAMES, size: int = 7) -> Model:
    """A small tree, all of whose names come from few, so that two trees have much in common."""
    model: Model = {b"": directory(mtime_ns=draw(TIMES))}
    for path in draw(st.lists(st.lists(names, min_size=1, max_size=3), max_size=size)):
        for depth in range(1, len(path)):
            above = b"/".join(path[:depth])
            if model.setdefault(above, directory()).kind != "dir":
                break
        else:
            full = b"/".join(path)
            if full not in model:
                model[full] = draw(nodes())
    files = sorted(path for path, node in model.items() if node.kind == "file")
    for _ in range(draw(st.integers(0, 2)) if files else 0):
        target = draw(st.sampled_from(files))
        name = b"/".join([*target.split(b"/")[:-1], draw(names)])
        model.setdefault(name, Node("link", target=target))
    return model
