"""Where the files of an image archive are read from: a tar archive, or a directory.

Nothing of an archive is ever extracted to a name on disk: a tar archive is indexed and read in
place, spooled to a nameless file first if it is compressed or cannot be seeked in.
"""

from __future__ import annotations

import io
import os
import posixpath
import stat
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from ..errors import InvalidArchive, from_os_error
from ..layers.compression import decompressed
from ..linux.paths import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2
from .spool import fill, new_spool

_ENTRY_LIMIT = 65_536  # an image of 500 layers has some 1,500 entries
_HEADER_LIMIT_BYTES = 1 << 20  # of one extended header; names are at most 4,096 bytes
_LINK_LIMIT = 40  # as the kernel's
_COPY_BYTES = 1 << 20


class Source(Protocol):
    """The files of an image archive by name; names have no ``./`` in front."""

    def __contains__(self, name: str) -> bool: ...

    def size(self, name: str) -> int:
        """Return the bytes of a file. Raises InvalidArchive naming it if there is none."""
        ...

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading; the caller closes it. Raises as :meth:`size`."""
        ...


def read_file(source: Source, name: str, limit_bytes: int) -> bytes:
    """Return the whole of a small file.

    Raises:
        InvalidArchive: if it is missing or longer than *limit_bytes*.
    """
    size = source.size(name)
    if size > limit_bytes:
        raise InvalidArchive(
            f"invalid image archive: {name!r} is too long",
            details=f"{size} bytes, at most {limit_bytes} are read",
        )
    with source.open(name) as file:
        return file.read()


@contextmanager
def tar_source(stream: BinaryIO, spool_directory: Path) -> Iterator[Source]:
    """Index the tar archive in *stream*, of any compression, while the context lasts.

    A plain archive that can be seeked in is read in place. Any other goes to a file without a
    name in *spool_directory*, which is gone with the process.

    Raises:
        InvalidArchive: if it is no tar archive, truncated, or wrongly compressed.
        NoSpace: if there is no room for the spool.
    """
    start = _position(stream)
    if start is not None:
        try:
            yield _TarSource(stream, _index(stream))
            return
        except _NotPlain:
            stream.seek(start)
    with new_spool(spool_directory) as spool:
        fill(spool, decompressed(stream))
        try:
            source = _TarSource(spool, _index(spool))
        except _NotPlain as error:
            raise InvalidArchive(
                "not an image archive: no tar archive", details=str(error)
            ) from None
        yield source


def _position(stream: BinaryIO) -> int | None:
    try:
        return stream.tell() if stream.seekable() else None
    except (AttributeError, OSError):
        return None


class _NotPlain(Exception):
    """The bytes do not begin with a tar header."""


class _BoundedFile(io.RawIOBase):
    """A view of a file that refuses to read more at once than a header can be."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _HEADER_LIMIT_BYTES:
            raise InvalidArchive("invalid image archive: an extended header is too long")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _index(file: BinaryIO) -> Mapping[str, tarfile.TarInfo]:
    members: dict[str, tarfile.TarInfo] = {}
    try:
        archive = tarfile.TarFile(fileobj=_BoundedFile(file), mode="r")
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise _NotPlain(str(error)) from None
    try:
        while (member := archive.next()) is not None:
            if len(members) >= _ENTRY_LIMIT:
                raise InvalidArchive(f"invalid image archive: more than {_ENTRY_LIMIT} entries")
            members[posixpath.normpath(member.name)] = member
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise InvalidArchive(
            "invalid image archive: damaged or truncated", details=str(error)
        ) from error
    return members


class _TarSource:
    """The members of an indexed archive; links among them are followed, never out of it."""

    def __init__(self, file: BinaryIO, members: Mapping[str, tarfile.TarInfo]) -> None:
        self._file = file
        self._members = members

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def size(self, name: str) -> int:
        return self._member(name).size

    def open(self, name: str) -> BinaryIO:
        member = self._member(name)
        return io.BufferedReader(_Slice(self._file, member.offset_data, member.size), _COPY_BYTES)

    def _member(self, name: str) -> tarfile.TarInfo:
        target = posixpath.normpath(name)
        for _ in range(_LINK_LIMIT):
            member = self._members.get(target)
            if member is None:
                break
            if member.isreg() and not member.issparse():
                return member
            if member.issym():
                target = posixpath.normpath(
                    posixpath.join(posixpath.dirname(target), member.linkname)
                )
            elif member.islnk():
                target = posixpath.normpath(member.linkname)
            else:
                raise InvalidArchive(f"invalid image archive: {name!r} is not a regular file")
        shown = repr(name) if target == name else f"{name!r} (a link to {target!r})"
        raise InvalidArchive(
            f"invalid image archive: it lacks {shown}",
            resolution="the archive may be incomplete or damaged",
        )


class _Slice(io.RawIOBase):
    """A part of a file; several may be open at once, for each read says where."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file = file
        self._next = start
        self._end = start + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # of bytes
        wanted = min(len(buffer), self._end - self._next)
        if wanted <= 0:
            return 0
        self._file.seek(self._next)
        block = self._file.read(wanted)
        buffer[: len(block)] = block
        self._next += len(block)
        return len(block)


class DirectorySource:
    """An OCI image layout in a directory; symlinks in it are refused (openat2(2))."""

    def __init__(self, path: Path) -> None:
        try:
            self._root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise from_os_error(error, f"cannot open the image layout {str(path)!r}") from error

    def __contains__(self, name: str) -> bool:
        try:
            self.open(name).close()
        except InvalidArchive:
            return False
        return True

    def size(self, name: str) -> int:
        with self.open(name) as file:
            return os.fstat(file.fileno()).st_size

    def open(self, name: str) -> BinaryIO:
        resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
        try:
            descriptor = openat2(
                self._root, os.fsencode(name), os.O_RDONLY | os.O_NONBLOCK, 0, resolve
            )
        except OSError as error:
            raise InvalidArchive(
                f"invalid image layout: it lacks {name!r}", details=os.strerror(error.errno or 0)
            ) from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise InvalidArchive(f"invalid image layout: {name!r} is not a regular file")
        return os.fdopen(descriptor, "rb")

    def close(self) -> None:
        os.close(self._root)
