"""Writing tar that is the same whenever the tree is the same.

PAX (POSIX pax interchange format) on top of ustar headers: no names of users or groups, no access
or change times; a PAX record only where the ustar field cannot hold the value, records in a
fixed order. Holes are written as GNU tar's sparse format 1.0. GNU tar, Go, Python and libarchive
read it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import BinaryIO
from zlib import adler32

from msgspec import Struct

from ..effects import effectful
from ..errors import Unavailable
from .attributes import Xattrs
from .digests import digest_of
from .recipe_format import Extents, RecipeWriter
from .tarheader import BLOCK, pax_record
from .tree import read_range, shown

_FLUSH_BYTES = 1 << 20
_SMALL_BYTES = 1 << 18
_OCTAL_7, _OCTAL_11 = 0o7777777, 0o77777777777
_NAME_BYTES = 100
_SECOND = 1_000_000_000
_ZEROS = bytes(BLOCK)
_PAX_NAME = b"././@PaxHeader"
_FIELDS = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0        %b%bustar\x0000"
_TAIL = bytes(64) + b"%07o\0%07o\0"
_NO_DEVICE = _TAIL % (0, 0) + bytes(167)


class Packed(Struct, frozen=True):
    """What was packed; *size_bytes* is the size of the archive."""

    diff_id: str
    size_bytes: int
    entries: int


class TarWriter:
    """Writes an archive to *out*, which stays the caller's, and its recipe if one is wanted."""

    def __init__(self, out: BinaryIO, recipe: RecipeWriter | None = None) -> None:
        self._out = out
        self._recipe = recipe
        self._buffer = bytearray()
        self._whole = hashlib.sha256()
        self._size = 0
        self._entries = 0

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
        """Write the header of an entry that has *size* bytes of payload.

        *records* are further PAX records, in front of the xattrs.
        """
        device = status.st_rdev if kind in b"34" else 0
        head = self._head(
            name, kind, status.st_mode & 0o7777, status.st_uid, status.st_gid, size,
            status.st_mtime_ns, link, device, xattrs, records,
        )  # fmt: skip
        self._raw(head)

    def head(
        self,
        name: bytes,
        kind: bytes,
        mode: int,
        uid: int,
        gid: int,
        size: int,
        mtime_ns: int,
        link: bytes = b"",
        device: int = 0,
    ) -> None:
        """Write the header of an entry of which there is no stat."""
        self._raw(self._head(name, kind, mode, uid, gid, size, mtime_ns, link, device))

    def payload(self, path: bytes, size: int, chunks: Iterable[bytes]) -> None:
        """Write the payload that belongs to the header before it."""
        self._payload(path, size, size, chunks, None)

    def whiteout(self, name: bytes) -> None:
        """Write an empty file that is nothing but its name."""
        self._raw(self._head(name, b"0", 0o644, 0, 0, 0, 0))

    def file(
        self,
        path: bytes,
        status: os.stat_result,
        descriptor: int,
        xattrs: list[tuple[bytes, bytes]],
    ) -> None:
        """Write a regular file with its contents from an open *descriptor*; holes stay holes.

        Raises:
            Unavailable: if it gets shorter meanwhile.
        """
        size = status.st_size
        if status.st_blocks * 512 < size:
            extents = data_extents(descriptor, size)
            if extents is not None:
                self._sparse(path, status, descriptor, xattrs, extents)
                return
        head = self._head(
            path, b"0", status.st_mode & 0o7777, status.st_uid, status.st_gid, size,
            status.st_mtime_ns, b"", 0, xattrs,
        )  # fmt: skip
        if size > _SMALL_BYTES:
            self._raw(head)
            self._payload(path, size, size, read_range(descriptor, 0, size), None)
            return
        data = os.read(descriptor, size) if size else b""
        if len(data) != size:
            raise _shorter(path)
        padding = _ZEROS[: -size % BLOCK]
        recipe = self._recipe
        if recipe is not None:
            recipe.raw(head)
            recipe.reference(path, size, size, hashlib.sha256(data).digest())
            recipe.raw(padding)
        buffer = self._buffer
        buffer += head
        buffer += data
        buffer += padding
        if len(buffer) > _FLUSH_BYTES:
            self._flush()

    def finish(self) -> Packed:
        """Write the end marker; nothing may follow."""
        self._raw(bytes(2 * BLOCK))
        self._flush()
        raw = self._whole.digest()
        if self._recipe is not None:
            self._recipe.finish(raw, self._size)
        return Packed(digest_of(raw), self._size, self._entries)

    # --- parts -------------------------------------------------------------------------------

    def _head(
        self,
        name: bytes,
        kind: bytes,
        mode: int,
        uid: int,
        gid: int,
        size: int,
        mtime_ns: int,
        link: bytes = b"",
        device: int = 0,
        xattrs: Xattrs | list[tuple[bytes, bytes]] = (),
        records: Iterable[tuple[bytes, bytes]] = (),
    ) -> bytes:
        """Return the header of an entry, with the PAX header that it needs in front."""
        self._entries += 1
        seconds, fraction = divmod(mtime_ns, _SECOND)
        if (
            xattrs or records or not 0 <= seconds <= _OCTAL_11
            or len(name) > _NAME_BYTES or len(link) > _NAME_BYTES
            or uid > _OCTAL_7 or gid > _OCTAL_7 or size > _OCTAL_11
        ):  # fmt: skip
            pax = b"".join(_pax(name, link, uid, gid, size, mtime_ns, records, xattrs))
            seconds = seconds if 0 <= seconds <= _OCTAL_11 else 0
            uid = uid if uid <= _OCTAL_7 else 0
            gid = gid if gid <= _OCTAL_7 else 0
            size = size if size <= _OCTAL_11 else 0
            name, link = name[:_NAME_BYTES], link[:_NAME_BYTES]
        elif fraction:  # nearly every file
            time = (b"mtime=%d.%09d" % (seconds, fraction)).rstrip(b"0")
            pax = b"%d %b\n" % (len(time) + 4, time)  # two digits: 12 to 28 bytes
        else:
            return _block(name, kind, mode, uid, gid, size, seconds, link, device)
        block = _block(name, kind, mode, uid, gid, size, seconds, link, device)
        length = len(pax)
        return b"%b%b%b%b" % (_pax_block(length), pax, _ZEROS[: -length % BLOCK], block)

    def _sparse(
        self,
        path: bytes,
        status: os.stat_result,
        descriptor: int,
        xattrs: list[tuple[bytes, bytes]],
        extents: Extents,
    ) -> None:
        size = status.st_size
        mapped = extents
        if not extents or sum(extents[-1]) < size:  # readers need to be told where a hole ends
            mapped = (*extents, (size, 0))
        lines = [len(mapped), *(number for extent in mapped for number in extent)]
        table = b"".join(b"%d\n" % number for number in lines)
        table += bytes(-len(table) % BLOCK)
        stored = sum(length for _, length in extents)
        records = [
            (b"GNU.sparse.major", b"1"),
            (b"GNU.sparse.minor", b"0"),
            (b"GNU.sparse.name", path),
            (b"GNU.sparse.realsize", b"%d" % size),
        ]
        directory, _, base = path.rpartition(b"/")
        stand_in = (directory + b"/" if directory else b"") + b"GNUSparseFile.0/" + base
        self.entry(stand_in, b"0", status, xattrs=xattrs, records=records, size=len(table) + stored)
        self._raw(table)
        chunks = (
            chunk for offset, length in extents for chunk in read_range(descriptor, offset, length)
        )
        self._payload(path, stored, size, chunks, extents)

    def _payload(
        self,
        path: bytes,
        size: int,
        file_size: int,
        chunks: Iterable[bytes],
        extents: Extents | None,
    ) -> None:
        written = 0
        digest = hashlib.sha256() if self._recipe is not None else None
        for chunk in chunks:
            written += len(chunk)
            if digest is not None:
                digest.update(chunk)
            self._data(chunk)
        if written != size:
            raise _shorter(path)
        if digest is not None and self._recipe is not None:
            self._recipe.reference(path, size, file_size, digest.digest(), extents)
        self._raw(_ZEROS[: -size % BLOCK])

    def _raw(self, data: bytes) -> None:
        if self._recipe is not None:
            self._recipe.raw(data)
        self._data(data)

    def _data(self, data: bytes) -> None:
        if len(data) > _SMALL_BYTES:
            self._flush()
            self._write(data)
            return
        self._buffer += data
        if len(self._buffer) > _FLUSH_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._buffer:
            self._write(self._buffer)
            self._buffer = bytearray()

    @effectful("archive.write")
    def _write(self, data: bytes | bytearray) -> None:
        self._whole.update(data)
        self._size += len(data)
        self._out.write(data)


def _block(
    name: bytes,
    kind: bytes,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    seconds: int,
    link: bytes = b"",
    device: int = 0,
) -> bytes:
    """Return a ustar header."""
    tail = _NO_DEVICE
    if device:
        tail = _TAIL % (os.major(device), os.minor(device)) + bytes(167)
    block = _FIELDS % (
        name.ljust(_NAME_BYTES, b"\0"), mode, uid, gid, size, seconds, kind,
        link.ljust(_NAME_BYTES, b"\0"),
    ) + tail  # fmt: skip
    # the low half of adler32 is the sum modulo 65521, and 200 bytes at most can be over 0x7f
    return b"%b%06o\0 %b" % (block[:148], adler32(block, 0) & 0xFFFF, block[156:])


@lru_cache(maxsize=256)
def _pax_block(size: int) -> bytes:
    return _block(_PAX_NAME, b"x", 0o644, 0, 0, size, 0)


def _shorter(path: bytes) -> Unavailable:
    return Unavailable(f"{shown(path)} became shorter while it was read")


def _pax(
    name: bytes,
    link: bytes,
    uid: int,
    gid: int,
    size: int,
    mtime_ns: int,
    records: Iterable[tuple[bytes, bytes]],
    xattrs: Iterable[tuple[bytes, bytes]],
) -> Iterator[bytes]:
    long = [text for text in (name, link) if len(text) > _NAME_BYTES]
    if not all(map(_is_utf8, long)):
        yield pax_record(b"hdrcharset", b"BINARY")
    if len(name) > _NAME_BYTES:
        yield pax_record(b"path", name)
    if len(link) > _NAME_BYTES:
        yield pax_record(b"linkpath", link)
    if size > _OCTAL_11:
        yield pax_record(b"size", b"%d" % size)
    if uid > _OCTAL_7:
        yield pax_record(b"uid", b"%d" % uid)
    if gid > _OCTAL_7:
        yield pax_record(b"gid", b"%d" % gid)
    seconds, fraction = divmod(abs(mtime_ns), _SECOND)
    if fraction or not 0 <= mtime_ns // _SECOND <= _OCTAL_11:
        text = b"%d.%09d" % (seconds, fraction)
        text = text.rstrip(b"0").rstrip(b".")
        yield pax_record(b"mtime", b"-" + text if mtime_ns < 0 else text)
    for key, value in records:
        yield pax_record(key, value)
    for key, value in xattrs:
        yield pax_record(b"SCHILY.xattr." + key, value)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def data_extents(descriptor: int, size: int) -> Extents | None:
    """Return where an open file has data, or None if it has no holes."""
    extents = []
    at = 0
    while at < size:
        try:
            start = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole follows
            break
        if start >= size:
            break
        end = min(os.lseek(descriptor, start, os.SEEK_HOLE), size)
        extents.append((start, end - start))
        at = end
    if extents == [(0, size)]:
        return None
    return tuple(extents)
