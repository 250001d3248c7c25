"""The working directory of a container's process, resolved beneath its root before it starts.

A runtime changes into it while descriptors of the host may still be open, so a directory that
resolves under ``/proc`` (``/proc/self/fd/9``, or an image's symlink to it) is refused.
"""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Sequence

from msgspec import Struct

from ..effects import effect
from ..errors import InvalidArgument
from ..linux.paths import open_in_root
from .volumes import Mounted

_LINK_LIMIT = 40


class _View(Struct, frozen=True):
    """The container's tree as it will be: its root, with what is mounted on top."""

    root: int
    mounts: Sequence[Mounted]

    def mount_of(self, path: bytes) -> Mounted | None:
        """Return the innermost mount that *path* lies on."""
        covering = [
            mount
            for mount in self.mounts
            if (path + b"/").startswith(os.fsencode(mount.target) + b"/")
        ]
        return max(covering, key=lambda mount: len(mount.target), default=None)

    def link(self, path: bytes) -> bytes | None:
        """Return where the symlink *path* (its parents resolved) points; None for all else."""
        mount = self.mount_of(path)
        if mount is None:
            return _link(self.root, path)
        rest = path[len(os.fsencode(mount.target)) :]
        if not rest.strip(b"/"):
            return None  # the mount point itself
        try:
            source = os.open(mount.source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return _link(source, rest)
        finally:
            os.close(source)


def check_absolute(path: str) -> None:
    """Refuse a relative working directory, in Docker's words."""
    if not path.startswith("/"):
        raise InvalidArgument(
            f"the working directory '{path}' is invalid, it needs to be an absolute path"
        )


def resolve_workdir(
    root: int, path: str, mounts: Sequence[Mounted] = (), *, create: bool = False
) -> str:
    """Return *path* with every symlink followed inside *root* and its *mounts*.

    With *create* it is made (0755) where it is missing on the root itself.

    Raises:
        InvalidArgument: if it is not absolute, goes through something that is not a
            directory, or resolves under ``/proc``.
    """
    check_absolute(path)
    view = _View(root, mounts)
    resolved = _resolve(view, os.fsencode(path))
    if resolved == b"/proc" or resolved.startswith(b"/proc/"):
        raise InvalidArgument(
            f"the working directory {path!r} resolves to {os.fsdecode(resolved)!r}",
            details="below /proc lie links to what other processes have open on the host",
            resolution="choose a directory outside of /proc",
        )
    if create and view.mount_of(resolved) is None:
        _make(root, resolved, path)
    return os.fsdecode(resolved)


def _resolve(view: _View, path: bytes) -> bytes:
    """Walk component by component; what does not exist is taken as it is written."""
    pending = path.split(b"/")[::-1]
    done: list[bytes] = []
    links = 0
    while pending:
        name = pending.pop()
        if name in (b"", b"."):
            continue
        if name == b"..":
            del done[-1:]
            continue
        target = view.link(b"/" + b"/".join([*done, name]))
        if target is None:
            done.append(name)
            continue
        links += 1
        if links > _LINK_LIMIT:
            raise InvalidArgument(
                f"the working directory {os.fsdecode(path)!r} has too many levels of symbolic links"
            )
        if target.startswith(b"/"):
            done.clear()
        pending.extend(target.split(b"/")[::-1])
    return b"/" + b"/".join(done)


def _link(root: int, path: bytes) -> bytes | None:
    try:
        descriptor = open_in_root(root, path, os.O_PATH | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise
    try:
        return os.readlink(b"", dir_fd=descriptor)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINVAL):  # not a symlink
            return None
        raise
    finally:
        os.close(descriptor)


def _make(root: int, resolved: bytes, asked: str) -> None:
    """mkdir -p beneath *root*; every step opened in root."""
    here = os.dup(root)
    try:
        for name in filter(None, resolved.split(b"/")):
            try:
                following = open_in_root(here, name, os.O_PATH | os.O_DIRECTORY)
            except FileNotFoundError:
                with effect("directory.make", path=resolved):
                    os.mkdir(name, 0o755, dir_fd=here)
                following = open_in_root(here, name, os.O_PATH | os.O_DIRECTORY)
            os.close(here)
            here = following
    except NotADirectoryError:
        raise InvalidArgument(
            f"Cannot mkdir: {posixpath.normpath(asked)} is not a directory"
        ) from None
    finally:
        os.close(here)
