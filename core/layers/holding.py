"""Holding a layer's tree against what its archive describes: all but the contents of files.

What this reports is damage, so whatever may differ in a healthy root is left out: what chmod(2)
rewrites in access ACLs, labels that the host gives, marks of file systems, times that a file
system cannot store, sockets (no archive has them).
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator

from ..linux.paths import open_beneath
from ..model import Change, ChangeKind
from .acl import ACCESS_ACL, named_entries
from .changes import attributes_differ
from .described import Description
from .tarreader import BLOCK_DEVICE, CHARACTER, DIRECTORY, FIFO, FILE, SYMLINK, Member
from .tree import (
    MISSING,
    join,
    list_names,
    lstat_beneath,
    open_directory,
    open_file,
    proc_path,
    read_range,
    read_xattrs,
    shown,
    split,
)

_FORMAT_BY_TYPE = {
    FILE: stat.S_IFREG,
    DIRECTORY: stat.S_IFDIR,
    SYMLINK: stat.S_IFLNK,
    CHARACTER: stat.S_IFCHR,
    BLOCK_DEVICE: stat.S_IFBLK,
    FIFO: stat.S_IFIFO,
}
_COMPARED = (b"user.", b"trusted.", b"security.capability", b"system.posix_acl_default")
_MARKS = (b"user.overlay.", b"trusted.overlay.", b"user.fuseoverlayfs.")
_SECOND = 1_000_000_000
_STORABLE_SECONDS = range(1 << 31)
"""What every file system can keep; others clamp what is beyond (ext4 with small inodes)."""


def differences(
    description: Description, root: int, parent: int | None, changes: Iterable[Change]
) -> Iterator[tuple[bytes, str]]:
    """Yield (path, what is wrong with it); a path may come twice.

    *root* and *parent* are the merged trees of the layer and of what is below it, *changes* what
    the one has changed of the other.
    """
    if description.ambiguous:
        return
    linked: dict[int, tuple[bytes, int]] = {}
    for place, entry in description.entries.items():
        status = lstat_beneath(root, place)
        if status is None:
            yield place, "is gone"
        elif entry is not None:
            first, inode = linked.setdefault(id(entry), (place, status.st_ino))
            if inode != status.st_ino:
                yield place, f"is no longer a hard link to {shown(first)}"
            yield from ((place, what) for what in _attributes(entry, root, place, status))
    yield from _unexplained(description, root, parent, changes)
    if parent is not None:
        for place in sorted(description.gone | description.opaque):
            yield from _showing(description, root, place, whole=place in description.gone)


def _attributes(entry: Member, root: int, place: bytes, status: os.stat_result) -> Iterator[str]:
    if stat.S_IFMT(status.st_mode) != _FORMAT_BY_TYPE[entry.type]:
        yield "is of another type"
        return
    if entry.type != SYMLINK and stat.S_IMODE(status.st_mode) != entry.mode & 0o7777:
        mode = stat.S_IMODE(status.st_mode)
        yield f"has the mode {mode:04o} instead of {entry.mode & 0o7777:04o}"
    if (status.st_uid, status.st_gid) != (entry.uid, entry.gid):
        yield f"has the owner {status.st_uid}:{status.st_gid} instead of {entry.uid}:{entry.gid}"
    if not _same_time(status.st_mtime_ns, entry.mtime_ns):
        yield "has another modification time"
    if entry.type == FILE and status.st_size != entry.file_size:
        yield f"has {status.st_size} bytes instead of {entry.file_size}"
    if entry.type in (CHARACTER, BLOCK_DEVICE) and status.st_rdev != os.makedev(*entry.device):
        yield "is another device"
    yield from _unopened(entry, root, place)


def _unopened(entry: Member, root: int, place: bytes) -> Iterator[str]:
    above, name = split(place)
    try:
        directory = open_beneath(root, above or b".", os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        if error.errno in MISSING:  # its own finding
            return
        raise
    try:
        if entry.type == SYMLINK and os.readlink(name, dir_fd=directory) != entry.link:
            yield "leads elsewhere"
        present = _comparable(read_xattrs(proc_path(directory, name)))
        if present != _comparable(entry.xattrs):
            yield "has other extended attributes"
    finally:
        os.close(directory)


def _comparable(xattrs: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    found = {}
    for name, value in xattrs:
        if name == ACCESS_ACL:
            value = named_entries(value)
        elif not name.startswith(_COMPARED) or name.startswith(_MARKS):
            continue
        if value or name != ACCESS_ACL:
            found[name] = value
    return found


def _same_time(now_ns: int, stored_ns: int) -> bool:
    if now_ns == stored_ns or stored_ns // _SECOND not in _STORABLE_SECONDS:
        return True
    return not now_ns % _SECOND and now_ns // _SECOND == stored_ns // _SECOND


def _unexplained(
    description: Description, root: int, parent: int | None, changes: Iterable[Change]
) -> Iterator[tuple[bytes, str]]:
    """Yield what differs from the parents' tree and not because of the archive."""
    reported = None
    for change in changes:
        place = change.path.lstrip(b"/")
        if reported is not None and place.startswith(reported + b"/"):
            continue
        if change.kind is ChangeKind.DELETED:
            if not description.hides(place):
                yield place, "is gone"
            continue
        if description.knows(place):
            continue
        status = lstat_beneath(root, place)
        if status is None or stat.S_ISSOCK(status.st_mode):
            continue
        if change.kind is ChangeKind.ADDED:
            reported = place
            yield place, "is not in its archive"
        elif parent is None or not _same(root, parent, place, status):
            yield place, "has changed"


def _same(root: int, parent: int, place: bytes, status: os.stat_result) -> bool:
    """Whether both trees show the same; that a file is linked to others than before is the
    doing of whatever entry took its other name."""
    before = lstat_beneath(parent, place)
    if before is None or attributes_differ(status, before):
        return False
    if stat.S_ISDIR(status.st_mode):
        return True
    if (status.st_rdev, status.st_size) != (before.st_rdev, before.st_size):
        return False
    return _shown_by(root, place, status) == _shown_by(parent, place, before)


def _shown_by(root: int, place: bytes, status: os.stat_result) -> object:
    """Return what stat(2) does not show: a symlink's target, or a digest of a file's contents."""
    above, name = split(place)
    directory = open_directory(root, above)
    try:
        if stat.S_ISLNK(status.st_mode):
            return os.readlink(name, dir_fd=directory)
        if not stat.S_ISREG(status.st_mode):
            return None
        descriptor = open_file(directory, name)
        try:
            digest = hashlib.sha256()
            for chunk in read_range(descriptor, 0, status.st_size):
                digest.update(chunk)
            return digest.digest()
        finally:
            os.close(descriptor)
    finally:
        os.close(directory)


def _showing(
    description: Description, root: int, place: bytes, *, whole: bool
) -> Iterator[tuple[bytes, str]]:
    """Yield what is at and beneath *place*, where only the archive's own should be."""
    status = lstat_beneath(root, place)
    if status is None or stat.S_ISSOCK(status.st_mode):
        return
    if whole and not description.knows(place):
        yield place, "was deleted by the layer, but is there"
        return
    if not stat.S_ISDIR(status.st_mode):
        return
    directory = open_directory(root, place)
    try:
        names = list_names(directory)
    finally:
        os.close(directory)
    for name in names:
        yield from _showing(description, root, join(place, name), whole=True)
