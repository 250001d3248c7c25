"""Copying parts of trees as archives: any names, nothing means a deletion.

What is packed is never followed out of its directory, and what is unpacked never leaves the root,
whoever changes either meanwhile.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import ExitStack
from typing import BinaryIO

from ..errors import FailedPrecondition
from ..model import ChangeKind
from .attributes import Xattrs
from .changes import ChangeWalk, Found
from .extract import Extractor
from .names import normal
from .pack import Packer
from .reading import open_archive
from .tarreader import DIRECTORY, LINK
from .tarwriter import TarWriter
from .tree import Tree, join, lstat_beneath, open_directory, shown
from .unpack import explained
from .whiteouts import NoMarks

_LINK_KIND = b"1"


class _Beneath(TarWriter):
    """Writes entries with their names below *base*."""

    def __init__(self, out: BinaryIO, base: bytes) -> None:
        super().__init__(out)
        self._base = base

    def _named(self, name: bytes) -> bytes:
        if not self._base:
            return name
        return self._base + b"/" + name.removeprefix(b"./")

    def entry(
        self,
        name: bytes,
        kind: bytes,
        status: os.stat_result,
        *,
        link: bytes = b"",
        xattrs: Xattrs | list[tuple[bytes, bytes]] = (),
        records: Iterable[tuple[bytes, bytes]] = (),
        size: int = 0,
    ) -> None:
        if kind == _LINK_KIND:
            link = self._named(link)
        super().entry(
            self._named(name), kind, status, link=link, xattrs=xattrs, records=records, size=size
        )

    def file(
        self,
        path: bytes,
        status: os.stat_result,
        descriptor: int,
        xattrs: list[tuple[bytes, bytes]],
    ) -> None:
        super().file(self._named(path), status, descriptor, xattrs)


def pack_at(parent: int, name: bytes, out: BinaryIO, *, base: bytes) -> None:
    """Write the archive of *name* of the directory *parent*, in which it is called *base*.

    With the name ``.`` it is *parent* itself; with an empty *base* a directory's entries have
    names of their own (``./a``). Symlinks are packed as what they are, sockets left out.

    Raises:
        OSError: what the kernel said of *name*.
    """
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if stat.S_ISDIR(status.st_mode):
        directory = open_directory(parent, name)
        try:
            _pack(directory, ChangeWalk(directory, None, NoMarks()), _Beneath(out, base))
        finally:
            os.close(directory)
        return
    found = Found(ChangeKind.ADDED, name, status)
    _pack(parent, [found], _Called(out, base or name))


def _pack(root: int, found: Iterable[Found], writer: TarWriter) -> None:
    with Packer(root, writer, marks=False) as packer:
        packer.pack(found)


class _Called(_Beneath):
    """Writes its one entry under the name *base*."""

    def _named(self, name: bytes) -> bytes:
        return self._base


def unpack_at(
    stream: BinaryIO, root: int, place: bytes, *, owner: tuple[int, int] | None = None
) -> None:
    """Unpack an archive into the directory *place* of the tree at *root*, as Docker's ``cp``.

    A directory takes no file's place and a file no directory's. With *owner* all of it belongs
    to that user and group. *stream* is read to its end.

    Raises:
        FailedPrecondition: "cannot overwrite …", in Docker's words.
        InvalidArchive: for damage; what came before it is there.
    """
    name = b""
    try:
        with ExitStack() as stack:
            archive = stack.enter_context(open_archive(stream, None, None))
            extractor = stack.enter_context(Extractor(Tree(root), archive, None, marks=False))
            for member in archive.members():
                name = member.name = _beneath(place, member.name)
                if member.type == LINK:
                    member.link = _beneath(place, normal(member.link))
                if owner is not None:
                    member.uid, member.gid = owner
                _check_overwriting(root, name, is_directory=member.type == DIRECTORY)
                extractor.apply(member)
            extractor.finish()
            archive.finish()
    except OSError as error:
        raise explained(error, name) from error


def _beneath(place: bytes, path: bytes) -> bytes:
    return join(place, path) if path else place


def _check_overwriting(root: int, path: bytes, *, is_directory: bool) -> None:
    there = lstat_beneath(root, path)
    if there is None or stat.S_ISDIR(there.st_mode) is is_directory:
        return
    kinds = ("non-directory", "directory") if is_directory else ("directory", "non-directory")
    raise FailedPrecondition(
        f'cannot overwrite {kinds[0]} "{shown(path)}" with {kinds[1]} "{shown(path)}"'
    )
