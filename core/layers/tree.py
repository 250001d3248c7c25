"""Directory trees as descriptors: opening beneath them, and what is content in them.

Nothing here follows a symlink. A directory is reached in one step by openat2(2) with
RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS, everything else by one name beneath such a descriptor,
so no tree can lead out of itself, whoever changes it meanwhile.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator

from msgspec import Struct

from ..errors import FailedPrecondition, NotSupported
from ..linux.paths import open_beneath
from ..model import WhiteoutForm

DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
ESCAPE = "overlay."
"""What the kernel puts after its prefix for a nested mount's own mark."""
MISSING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
"""Why a directory cannot be entered: it is not there, or not a directory."""
_NO_XATTRS = frozenset({errno.EOPNOTSUPP, errno.ENOSYS})
READ_CHUNK = 1 << 20
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Tree(Struct, frozen=True):
    """An open directory to work on, only by ``*at`` calls beneath it.

    *root* is a descriptor (not O_PATH) that stays the caller's. With form OCI or OVERLAY the tree
    holds only what one layer changed, and marks what it deletes; *lower* then opens the merged
    tree of its parents, if there are any (the descriptor is closed by whoever called it).
    Extended attributes below *xattr_prefix* are the file system's own marks, never content.
    With *whiteout_xattr* whiteouts are made as files with an xattr instead of devices.
    """

    root: int
    form: WhiteoutForm = WhiteoutForm.NONE
    xattr_prefix: str = ""
    whiteout_xattr: bool = False
    lower: Callable[[], int] | None = None


def open_directory(root: int, path: bytes) -> int:
    """Open the directory *path* beneath *root* (``b""``: itself) for listing.

    Raises:
        OSError: ELOOP or ENOTDIR if a symlink is in the way, ENOENT if it is not there.
    """
    return open_beneath(root, path or b".", DIRECTORY_FLAGS)


def open_file(directory: int, name: bytes) -> int:
    """Open a regular file for reading; a symlink is ELOOP, a fifo never blocks.

    Access times stay as they are where that is allowed (O_NOATIME).
    """
    try:
        return os.open(name, _FILE_FLAGS | os.O_NOATIME, dir_fd=directory)
    except PermissionError:  # not the owner: open(2)
        return os.open(name, _FILE_FLAGS, dir_fd=directory)


def list_names(directory: int) -> list[bytes]:
    """Return the sorted names in a directory; the descriptor may be O_PATH."""
    listing = os.open(b".", DIRECTORY_FLAGS, dir_fd=directory)
    try:
        return sorted(map(os.fsencode, os.listdir(listing)))
    finally:
        os.close(listing)


def split(path: bytes) -> tuple[bytes, bytes]:
    """Return the parent directory (``b""``: the root) and the name of a path in a tree."""
    parent, _, name = path.rpartition(b"/")
    return parent, name


def join(parent: bytes, name: bytes) -> bytes:
    return parent + b"/" + name if parent else name


def shown(path: bytes) -> str:
    """Return *path* for messages: absolute within the layer, undecodable bytes escaped."""
    return "/" + path.decode(errors="backslashreplace").removesuffix("/")


def lstat(directory: int, name: bytes) -> os.stat_result | None:
    """Return the stat of *name* itself in a directory, or None if it is not there."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def lstat_beneath(root: int, path: bytes) -> os.stat_result | None:
    """Return the stat of *path* itself, or None if it or its parent directory is not there."""
    if not path:
        return os.fstat(root)
    parent, name = split(path)
    try:
        if not parent:
            return os.stat(name, dir_fd=root, follow_symlinks=False)
        directory = open_beneath(root, parent, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        if error.errno in MISSING:
            return None
        raise
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    finally:
        os.close(directory)


def proc_path(directory: int, name: bytes) -> bytes:
    """Return a path for the calls that take no descriptor: xattrs of what cannot be opened.

    The call must not follow the last component (*name* ``b""``: the directory itself, which
    may be O_PATH).
    """
    return b"/proc/self/fd/%d/%s" % (directory, name or b".")


def _list_xattrs(where: int | bytes) -> list[str]:
    if isinstance(where, int):
        return os.listxattr(where)
    return os.listxattr(where, follow_symlinks=False)


def _get_xattr(where: int | bytes, name: str) -> bytes:
    if isinstance(where, int):
        return os.getxattr(where, name)
    return os.getxattr(where, name, follow_symlinks=False)


def read_xattrs(where: int | bytes, prefix: str = "") -> list[tuple[bytes, bytes]]:
    """Return the extended attributes that are content, sorted by name.

    *where* is a descriptor, or a path of :func:`proc_path` for what cannot be opened. Marks of
    the file system below *prefix* are left out; where it has escaped one of a nested mount
    (``trusted.overlay.overlay.opaque``; kernel 6.7, overlayfs.rst "Nested overlayfs mounts")
    the name comes back as it was.

    Raises:
        NotSupported: if the tree says less than the truth, for parts of it are kept elsewhere
            (``metacopy`` and ``redirect`` marks).
    """
    try:
        names = _list_xattrs(where)
    except OSError as error:
        if error.errno in _NO_XATTRS:
            return []
        raise
    if not names:
        return []
    found: dict[bytes, bytes] = {}
    for name in names:
        public = _public_name(name, prefix)
        if public is None:
            continue
        try:
            found[os.fsencode(public)] = _get_xattr(where, name)
        except OSError as error:
            if error.errno != errno.ENODATA:  # gone meanwhile
                raise
    return sorted(found.items())


def stored_name(name: bytes, prefix: str) -> bytes:
    """Return the name under which an extended attribute that is content is kept in a tree.

    What its own file system would take for a mark is escaped. A name below another's prefix is
    like any other there.
    """
    own = os.fsencode(prefix)
    if not own or not name.startswith(own):
        return name
    return own + ESCAPE.encode() + name[len(own) :]


def _public_name(name: str, prefix: str) -> str | None:
    if not prefix or not name.startswith(prefix):
        return name
    rest = name[len(prefix) :]
    if rest.startswith(ESCAPE):
        return prefix + rest[len(ESCAPE) :]
    if rest in ("metacopy", "redirect"):
        raise NotSupported(
            f"The tree of the layer is not the whole truth: it has a {rest} mark",
            resolution=f"compare mounted trees instead, or turn {rest} off",
        )
    return None


def read_range(descriptor: int, start: int, length: int) -> Iterator[bytes]:
    """Yield *length* bytes from *start*, fewer if the file ends before."""
    end = start + length
    while start < end:
        chunk = os.pread(descriptor, min(end - start, READ_CHUNK), start)
        if not chunk:
            return
        yield chunk
        start += len(chunk)


def require_regular(descriptor: int, path: bytes) -> os.stat_result:
    """Return the stat of an open file.

    Raises:
        FailedPrecondition: if it is not the regular file that its directory promised.
    """
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise FailedPrecondition(f"{shown(path)} was replaced while it was read")
    return status
