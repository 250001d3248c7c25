"""Unpacking an archive into a tree: ``unpack`` is what the layer store calls."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack
from typing import BinaryIO

from msgspec import Struct

from ..errors import InvalidArchive, PermissionDenied, StowageError, from_os_error
from .digests import digest_of
from .extract import Extractor
from .reading import open_archive
from .recipe_trailer import RecipeTrailer
from .tarreader import Member
from .tree import Tree, shown

#: What the kernel answers to something that no archive of a real tree asks for.
_IMPOSSIBLE = frozenset(
    {
        errno.ENAMETOOLONG, errno.EINVAL, errno.EFBIG, errno.ENOENT, errno.ENOTDIR, errno.EISDIR,
        errno.EEXIST, errno.ELOOP, errno.EMLINK, errno.ERANGE, errno.E2BIG, errno.EOVERFLOW,
    }
)  # fmt: skip


class UnpackLimits(Struct, frozen=True):
    """How much an archive may hold: bytes in files and headers, and entries. None: any."""

    size_bytes: int | None = None
    entries: int | None = None


UNLIMITED = UnpackLimits()


class Unpacked(Struct, frozen=True):
    """What was unpacked; *size_bytes* is the size of the uncompressed archive."""

    diff_id: str
    size_bytes: int
    entries: int


def unpack(
    stream: BinaryIO,
    tree: Tree,
    *,
    recipe: BinaryIO | None = None,
    limits: UnpackLimits = UNLIMITED,
) -> Unpacked:
    """Unpack an archive (tar; compressed or not, told by content) into *tree*.

    *stream* is read to its end. Whiteouts are obeyed or recorded in the tree's form. With
    *recipe*, what :func:`~stowage.layers.recipe.reassemble` needs is written to it. Nothing
    outside the tree is read, created or changed, whatever the archive holds. After an error the
    tree is in no particular state: the caller destroys it.

    Raises:
        InvalidArchive: junk, truncated, hostile, wrongly compressed, or over a limit.
        NoSpace, PermissionDenied, NotSupported: what the file system said.
    """
    name = b""
    try:
        with ExitStack() as stack:
            archive = stack.enter_context(open_archive(stream, recipe, limits.size_bytes))
            trailer = None if recipe is None else stack.enter_context(RecipeTrailer())
            extractor = stack.enter_context(Extractor(tree, archive, trailer))
            counter = _Counter(limits)
            for member in archive.members():
                name = member.name
                counter.count(member)
                extractor.apply(member)
            extractor.finish()
            sha256, size_bytes, recipe_bytes = archive.finish()
            if recipe is not None and trailer is not None:
                trailer.append_to(recipe, recipe_bytes)
    except OSError as error:
        raise explained(error, name) from error
    except (OverflowError, ValueError) as error:
        brief = f"The archive cannot be unpacked: {shown(name)}"
        raise InvalidArchive(brief, details=str(error)) from error
    return Unpacked(digest_of(sha256), size_bytes, counter.entries)


class _Counter:
    """Holds what was unpacked against the limits."""

    def __init__(self, limits: UnpackLimits) -> None:
        self._limits = limits
        self._size_bytes = 0
        self.entries = 0

    def count(self, member: Member) -> None:
        self.entries += 1
        self._size_bytes += member.size + member.extension_bytes
        limits = self._limits
        if limits.entries is not None and self.entries > limits.entries:
            raise _over("entries", limits.entries)
        if limits.size_bytes is not None and self._size_bytes > limits.size_bytes:
            raise _over("bytes", limits.size_bytes)


def _over(what: str, limit: int) -> InvalidArchive:
    return InvalidArchive(
        f"The archive holds more than {limit} {what}",
        resolution="raise the limit if you trust where it comes from",
    )


def explained(error: OSError, name: bytes) -> StowageError:
    """Return what an error of the kernel means that came while *name* was made."""
    brief = f"The archive cannot be unpacked: {shown(name)}"
    if error.errno in _IMPOSSIBLE:
        return InvalidArchive(brief, details=str(error))
    if error.errno == errno.EPERM and os.geteuid() != 0:
        denied = PermissionDenied(
            brief,
            details=f"this process runs as uid {os.geteuid()}: only one with CAP_CHOWN can give"
            " files to their owners, only one with CAP_MKNOD can make devices",
            resolution="run the command as root, for example with sudo",
        )
        denied.errno = error.errno
        return denied
    return from_os_error(error, brief)
