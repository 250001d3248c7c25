"""Root file systems in other archives than tar (cpio, zip, 7-Zip, ISO 9660), by libarchive.

What a user imports may come from an initramfs builder or an installer; layers are always tar.
libarchive reads, our own writer makes a tar stream of it, and unpacking that is as safe as any.
Formats that may read other files of this machine (mtree) or run programs (some filters) are off.
"""

from __future__ import annotations

import logging
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import IO, BinaryIO, cast

from ..errors import InvalidArchive
from .compression import decompressed, peeked
from .tarheader import BLOCK, HEADER, ZERO_BLOCK, check_sum
from .tarwriter import TarWriter
from .tree import READ_CHUNK, read_range, shown

_FORMATS = ("cpio", "zip", "7zip", "iso9660")
_TYPE_BY_FORMAT = {
    stat.S_IFREG: b"0",
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}
_ISO_MAGIC = slice(32_769, 32_774)
"""Where ISO 9660 says what it is; zeros are in front."""
_SECOND = 1_000_000_000


@contextmanager
def as_tar(stream: BinaryIO) -> Iterator[BinaryIO]:
    """Give what *stream* holds as tar: itself if it is tar already, whatever its compression.

    Another archive is converted in a temporary file that goes with the context. *stream* stays
    the caller's.

    Raises:
        InvalidArchive: if it is damaged, or an archive of no known kind (when it is read).
    """
    start, plain = peeked(decompressed(stream), _ISO_MAGIC.stop)
    if _is_tar(start):
        yield plain
        return
    with tempfile.TemporaryFile() as spooled:
        while chunk := plain.read(READ_CHUNK):
            spooled.write(chunk)
        spooled.flush()
        with tempfile.TemporaryFile() as converted:
            if _convert(spooled, converted):
                converted.seek(0)
                yield converted
                return
        spooled.seek(0)
        yield spooled  # of no kind that libarchive knows: the reader of tar says what is wrong


def _is_tar(start: bytes) -> bool:
    block = start[:BLOCK]
    if start[_ISO_MAGIC] == b"CD001":
        return False
    if not block or block == ZERO_BLOCK:
        return True  # for the reader of tar to say what is wrong
    if len(block) < BLOCK:
        return False
    try:
        check_sum(block, HEADER.unpack(block)[6])
    except InvalidArchive:
        return False
    return True


def _convert(spooled: IO[bytes], out: IO[bytes]) -> bool:
    """Write the archive in *spooled* to *out* as tar; False if libarchive does not know it."""
    ffi = _libarchive()
    reader = ffi.read_new()
    try:
        for name in _FORMATS:
            ffi.get_read_format_function(name)(reader)
        spooled.seek(0)
        try:
            ffi.read_open_fd(reader, spooled.fileno(), 1 << 16)
        except ffi.ArchiveError:
            return False
        entry = ffi.entry_new()
        try:
            return _Conversion(ffi, reader, entry, out).run()
        finally:
            ffi.entry_free(entry)
    except ffi.ArchiveError as error:
        raise InvalidArchive("The archive is damaged", details=str(error)) from error
    finally:
        ffi.read_free(reader)


def _libarchive() -> ModuleType:
    from libarchive import ffi

    # its warnings become log records without a place to go; what matters comes as an error
    logging.getLogger("libarchive").addHandler(logging.NullHandler())
    if not hasattr(ffi, "read_data_into_fd"):
        ffi.ffi("read_data_into_fd", [ffi.c_archive_p, ffi.c_int], ffi.c_int, ffi.check_int)
    module: ModuleType = ffi
    return module


class _Conversion:
    """One archive on its way to tar."""

    def __init__(self, ffi: ModuleType, reader: object, entry: object, out: IO[bytes]) -> None:
        self._ffi = ffi
        self._reader = reader
        self._entry = entry
        self._writer = TarWriter(cast(BinaryIO, out))
        self._names_by_first: dict[bytes, list[bytes]] = {}

    def run(self) -> bool:
        ffi, first = self._ffi, True
        while True:
            try:
                if ffi.read_next_header2(self._reader, self._entry) == ffi.ARCHIVE_EOF:
                    break
            except ffi.ArchiveError as error:
                if first:  # no format took it
                    return False
                raise InvalidArchive("The archive is damaged", details=str(error)) from error
            first = False
            self._member()
        self._writer.finish()
        return not first

    def _member(self) -> None:
        ffi, entry = self._ffi, self._entry
        name = ffi.entry_pathname(entry)
        if name is None:
            raise InvalidArchive("A name in the archive means nothing in this locale")
        first = ffi.entry_hardlink(entry)
        if first is not None:
            self._link(name, first)
            return
        kind = _TYPE_BY_FORMAT.get(stat.S_IFMT(ffi.entry_filetype(entry)))
        if kind is None:  # a socket
            return
        self._names_by_first[name] = [name]
        if kind == b"0":
            self._file(name)
        else:
            self._write(name, kind, link=ffi.entry_symlink(entry) or b"")

    def _link(self, name: bytes, first: bytes) -> None:
        """In cpio any of the names may bring the contents: then it becomes the file, they links."""
        names = self._names_by_first.setdefault(first, [first])
        if self._ffi.entry_size(self._entry) > 0:
            self._file(name)
            for other in names:
                self._write(other, b"1", link=name)
        else:
            self._write(name, b"1", link=names[0])
        names.append(name)

    def _file(self, name: bytes) -> None:
        with tempfile.TemporaryFile() as contents:
            if self._ffi.read_data_into_fd(self._reader, contents.fileno()) != self._ffi.ARCHIVE_OK:
                reason = self._ffi.error_string(self._reader) or b"its contents are not whole"
                raise InvalidArchive(f"{shown(name)} is damaged", details=reason.decode())
            size = os.fstat(contents.fileno()).st_size
            self._write(name, b"0", size=size)
            self._writer.payload(name, size, read_range(contents.fileno(), 0, size))

    def _write(self, name: bytes, kind: bytes, *, link: bytes = b"", size: int = 0) -> None:
        ffi, entry = self._ffi, self._entry
        device = 0
        if kind in b"34":
            device = os.makedev(ffi.entry_rdevmajor(entry), ffi.entry_rdevminor(entry))
        self._writer.head(
            name, kind, ffi.entry_perm(entry), ffi.entry_uid(entry), ffi.entry_gid(entry), size,
            ffi.entry_mtime(entry) * _SECOND + ffi.entry_mtime_nsec(entry), link, device,
        )  # fmt: skip
