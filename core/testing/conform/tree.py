"""Observation: what a tree holds, looked at through the kernel and written down to compare.

Everything that a user of the tree could tell is in it: types, modes, owners, times of
modification in nanoseconds, contents, extended attributes, targets, devices, and which names are
one file. Left out is what may differ between equal trees: inode numbers, link counts of
directories, sizes of directories, times of access and of change.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

#: Content is compared by blocks of this size; a block of zeros counts as a hole.
BLOCK = 4096

#: Attributes that the machine gives to every file, whatever the driver does.
_OF_THE_MACHINE = frozenset({"security.selinux"})

Extents = tuple[tuple[int, bytes], ...]


class Node(Struct, frozen=True):
    """One name of a tree.

    *extents* are the blocks that are not all zeros, adjoining ones joined; *allocated* is what
    the file occupies, which no comparison looks at. *group* is the first name of the same file.
    """

    kind: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    extents: Extents = ()
    target: bytes = b""
    rdev: int = 0
    xattrs: tuple[tuple[str, bytes], ...] = ()
    group: bytes = b""
    allocated: int = 0


#: Every name of a tree; the root is ``b""``.
Tree = Mapping[bytes, Node]

KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}

COMPARED = (
    "kind", "mode", "uid", "gid", "mtime_ns", "size", "extents", "target", "rdev", "xattrs",
    "group",
)  # fmt: skip


def observe(root: int) -> Tree:
    """Look at all that lies beneath the directory *root* (a descriptor)."""
    seen: dict[bytes, Node] = {}
    groups: dict[tuple[int, int], bytes] = {}
    directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
    try:
        seen[b""] = _node(directory, b"", os.fstat(directory), f"/proc/self/fd/{directory}", groups)
        _walk(directory, b"", seen, groups)
    finally:
        os.close(directory)
    return seen


def _walk(
    directory: int, prefix: bytes, seen: dict[bytes, Node], groups: dict[tuple[int, int], bytes]
) -> None:
    names = sorted(os.fsencode(name) for name in os.listdir(directory))
    assert len(names) == len(set(names)), f"readdir of {prefix!r} lists a name twice: {names}"
    for name in names:
        path = prefix + name
        flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=directory)
        try:
            facts = os.fstat(descriptor)
            magic = f"/proc/self/fd/{descriptor}"
            seen[path] = _node(descriptor, path, facts, magic, groups)
            if stat.S_ISDIR(facts.st_mode):
                below = os.open(magic, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    _walk(below, path + b"/", seen, groups)
                finally:
                    os.close(below)
        finally:
            os.close(descriptor)


def _node(
    descriptor: int,
    path: bytes,
    facts: os.stat_result,
    magic: str,
    groups: dict[tuple[int, int], bytes],
) -> Node:
    kind = KINDS[stat.S_IFMT(facts.st_mode)]
    file = kind == "file"
    extents: Extents = ()
    if file and facts.st_size:
        reading = os.open(magic, os.O_RDONLY | os.O_CLOEXEC)
        try:
            extents = read_extents(reading, facts.st_size)
        finally:
            os.close(reading)
    return Node(
        kind,
        stat.S_IMODE(facts.st_mode) if kind != "symlink" else 0o777,
        facts.st_uid,
        facts.st_gid,
        facts.st_mtime_ns,
        facts.st_size if file else 0,
        extents,
        os.readlink(b"", dir_fd=descriptor) if kind == "symlink" else b"",
        facts.st_rdev if kind.endswith("device") else 0,
        _xattrs(magic),
        path if kind == "directory" else groups.setdefault((facts.st_dev, facts.st_ino), path),
        facts.st_blocks * 512,
    )


def _xattrs(magic: str) -> tuple[tuple[str, bytes], ...]:
    try:
        names = os.listxattr(magic)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EPERM):
            return ()
        raise
    return tuple(
        (name, os.getxattr(magic, name)) for name in sorted(names) if name not in _OF_THE_MACHINE
    )


def read_extents(descriptor: int, size: int) -> Extents:
    """Return what a file holds, holes and blocks of zeros left out."""
    if size <= BLOCK:
        content = _read(descriptor, 0, size)
        return ((0, content),) if any(content) else ()
    found: list[tuple[int, bytes]] = []
    for start, end in data_ranges(descriptor, size):
        found.append((start, _read(descriptor, start, end - start)))
    return canonical(found)


def data_ranges(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges of a file that are no holes, as lseek(2) tells, in whole blocks."""
    position = 0
    while position < size:
        try:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end
                return
            raise
        end = min(os.lseek(descriptor, start, os.SEEK_HOLE), size)
        start -= start % BLOCK
        end = min(-(-end // BLOCK) * BLOCK, size)
        yield start, end
        position = max(end, position + 1)


def canonical(pieces: Sequence[tuple[int, bytes]]) -> Extents:
    """Return *pieces* (offset and bytes, each from the start of a block, in order, none
    overlapping) as extents."""
    joined: list[tuple[int, bytearray]] = []
    for offset, piece in pieces:
        for at in range(0, len(piece), BLOCK):
            block = piece[at : at + BLOCK]
            if not any(block):
                continue
            if joined and joined[-1][0] + len(joined[-1][1]) == offset + at:
                joined[-1][1].extend(block)
            else:
                joined.append((offset + at, bytearray(block)))
    return tuple((offset, bytes(piece)) for offset, piece in joined)


def _read(descriptor: int, offset: int, count: int) -> bytes:
    parts = []
    while count:
        part = os.pread(descriptor, count, offset)
        if not part:
            break
        parts.append(part)
        offset, count = offset + len(part), count - len(part)
    return b"".join(parts)


def differences(
    expected: Tree, seen: Tree, *, ignoring: Sequence[str] = (), most: int = 20
) -> list[str]:
    """Return how *seen* differs from *expected*, a line for each name, at most *most*."""
    fields = [field for field in COMPARED if field not in ignoring]
    lines = []
    for path in sorted(expected.keys() | seen.keys()):
        shown = f"/{path.decode('utf-8', 'backslashreplace')}"
        if path not in seen:
            lines.append(f"{shown}: missing ({expected[path].kind})")
        elif path not in expected:
            lines.append(f"{shown}: should not be there ({seen[path].kind})")
        else:
            before, now = expected[path], seen[path]
            said = [
                f"{field} {_shown(field, getattr(now, field))},"
                f" expected {_shown(field, getattr(before, field))}"
                for field in fields
                if getattr(before, field) != getattr(now, field)
            ]
            if said:
                lines.append(f"{shown}: {'; '.join(said)}")
    if len(lines) > most:
        lines[most:] = [f"… and {len(lines) - most} more"]
    return lines


def _shown(field: str, value: object) -> str:
    if field == "mode":
        return f"0{value:o}"
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}…"


__all__ = [
    "BLOCK",
    "COMPARED",
    "Extents",
    "KINDS",
    "Node",
    "Tree",
    "canonical",
    "data_ranges",
    "differences",
    "observe",
    "read_extents",
]
