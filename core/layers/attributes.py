"""Owner, mode, times and extended attributes of files: read, and set in the right order."""

from __future__ import annotations

import os
import stat

from msgspec import Struct
from msgspec.structs import replace

from ..effects import effectful
from .tree import proc_path, read_xattrs, stored_name

Xattrs = tuple[tuple[bytes, bytes], ...]

DEFAULT_ACL = b"system.posix_acl_default"


class Attributes(Struct, frozen=True):
    """What a file or directory shall have in the end, the names of its xattrs as in archives.

    *xattrs* None means: leave them.
    """

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    xattrs: Xattrs | None = ()


IMPLIED = Attributes(0o755, 0, 0, 0)
"""A directory that an archive needs but does not describe (OCI leaves it open): reproducible."""


def attributes_of(descriptor: int, prefix: str = "") -> Attributes:
    """Return the attributes of what *descriptor* (not O_PATH) refers to."""
    status = os.fstat(descriptor)
    return Attributes(
        stat.S_IMODE(status.st_mode),
        status.st_uid,
        status.st_gid,
        status.st_mtime_ns,
        tuple(read_xattrs(descriptor, prefix)),
    )


@effectful("tree.suspend_acl")
def existing_attributes(descriptor: int, prefix: str) -> Attributes:
    """Return what a directory shall have again after others were made in it.

    A default ACL is taken off until then, for what is made would inherit it.
    """
    attributes = attributes_of(descriptor, prefix)
    if not any(name == DEFAULT_ACL for name, _ in attributes.xattrs or ()):
        return replace(attributes, xattrs=None)
    os.removexattr(descriptor, DEFAULT_ACL)
    return attributes


@effectful("tree.attributes")
def set_attributes(
    descriptor: int, attributes: Attributes, prefix: str = "", *, fresh: bool = False
) -> None:
    """Give an open file or directory exactly these attributes; *fresh*: it has no xattrs yet.

    The owner first, for chown(2) drops file capabilities and setuid bits; the times last.
    """
    status = os.fstat(descriptor)
    if (status.st_uid, status.st_gid) != (attributes.uid, attributes.gid):
        os.fchown(descriptor, attributes.uid, attributes.gid)
    xattrs = attributes.xattrs
    if xattrs is not None and (xattrs or not fresh):
        _replace_xattrs(descriptor, xattrs, prefix)
    os.fchmod(descriptor, attributes.mode)
    os.utime(descriptor, ns=(attributes.mtime_ns, attributes.mtime_ns))


@effectful("tree.xattrs")
def _replace_xattrs(where: int, xattrs: Xattrs, prefix: str) -> None:
    """Give *where* these extended attributes and no others; marks below *prefix* stay."""
    present = dict(read_xattrs(where, prefix))
    for name, value in xattrs:
        if present.pop(name, None) != value:
            os.setxattr(where, stored_name(name, prefix), value)
    for name in present:
        os.removexattr(where, stored_name(name, prefix))


@effectful("tree.xattrs")
def add_xattrs(directory: int, name: bytes, xattrs: Xattrs, prefix: str) -> None:
    """Add extended attributes to a new symlink or special file, which cannot be opened."""
    path = proc_path(directory, name)
    for key, value in xattrs:
        os.setxattr(path, stored_name(key, prefix), value, follow_symlinks=False)
