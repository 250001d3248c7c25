"""Reading tar: V7, ustar, PAX, GNU and star headers into members.

Layers are not read by libarchive (which reads all other kinds, see ``foreign``): it converts the
names in PAX headers by the locale, takes ``-1.5`` seconds for -0.5, and cannot say which bytes
were headers, which the recipe needs; and hostile input is best parsed in a memory-safe language.
It is one of the oracles of the tests.
"""

from __future__ import annotations

from collections.abc import Iterator

from .acl import acl_from_text
from .recipe_format import Extents
from .tape import Tape
from .tarheader import (
    BLOCK,
    HEADER,
    ZERO_BLOCK,
    check_sum,
    damaged,
    decimal,
    number,
    parse_pax,
    time_ns,
)
from .tarsparse import sparse_from_old_header, sparse_from_pax

FILE, LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = (
    b"0",
    b"1",
    b"2",
    b"3",
    b"4",
    b"5",
    b"6",
)

_EXTENSION_LIMIT = 1 << 23
"""Most bytes of one PAX header: each xattr may have 64 KiB."""
_EXTENSIONS_LIMIT = 16
_NO_ID = 0xFFFFFFFF  # chown(2) takes it for "leave it"
_XATTR, _ACL, _SPARSE = b"SCHILY.xattr.", b"SCHILY.acl.", b"GNU.sparse."
_SPECIAL = (_XATTR, _ACL, _SPARSE)
_UNUSED = frozenset([b"atime", b"ctime"])
_ACL_XATTRS = {
    b"access": b"system.posix_acl_access",
    b"default": b"system.posix_acl_default",
}
_REGULAR = frozenset([b"0", b"\0", b"7", b"S"])
_EXTENSIONS = frozenset([b"x", b"X", b"g", b"L", b"K", b"V", b"A", b"I"])
"""PAX (``X``: Sun's), GNU's long names; a label, an ACL or inode facts of Sun, passed over."""
_FOR_THE_NEXT = frozenset([b"x", b"X", b"L", b"K"])
_DUMP_DIRECTORY = b"D"  # GNU tar --incremental: a directory with the names in it as payload
_KNOWN = frozenset([b"1", b"2", b"3", b"4", b"5", b"6"])


# Not a Struct, nor are other records that the process of ``apart_reader`` loads: it would spend
# half of its start on importing msgspec.
class Member:
    """One entry. *size* are the bytes on the tape, *file_size* those of the file.

    *extension_bytes* is the size of the extension headers before it; *payload*, of a file whose
    contents the recipe refers to, the number of the reference.
    """

    __slots__ = (
        "device",
        "extension_bytes",
        "extents",
        "file_size",
        "gid",
        "link",
        "mode",
        "mtime_ns",
        "name",
        "payload",
        "size",
        "type",
        "uid",
        "xattrs",
    )

    def __init__(
        self,
        name: bytes,
        type: bytes,
        mode: int,
        uid: int,
        gid: int,
        mtime_ns: int,
        size: int = 0,
        link: bytes = b"",
        device: tuple[int, int] = (0, 0),
        xattrs: tuple[tuple[bytes, bytes], ...] = (),
        file_size: int = 0,
        extents: Extents | None = None,
        extension_bytes: int = 0,
        payload: int | None = None,
    ) -> None:
        self.name = name
        self.type = type
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.mtime_ns = mtime_ns
        self.size = size
        self.link = link
        self.device = device
        self.xattrs = xattrs
        self.file_size = file_size
        self.extents = extents
        self.extension_bytes = extension_bytes
        self.payload = payload


class _Pending:
    """What extension headers said about the member that follows them."""

    __slots__ = ("count", "records", "sparse")

    def __init__(self) -> None:
        self.records: dict[bytes, bytes] = {}
        self.sparse: list[tuple[bytes, bytes]] = []
        self.count = 0


class TarReader:
    """The members of the archive on *tape*, in order.

    Whoever iterates uses up the payload (``member.size`` bytes and what rounds them up to whole
    blocks) before asking for the next member.
    """

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self._global: dict[bytes, bytes] = {}
        self._extension_bytes = 0

    def __iter__(self) -> Iterator[Member]:
        """Yield members until the end marker.

        Raises:
            InvalidArchive: for damage, and if the end marker is missing.
        """
        tape, pending = self._tape, _Pending()
        unpack = HEADER.unpack
        while True:
            block = tape.block()
            fields = unpack(block)
            checksum = fields[6]
            if not block[0] and block == ZERO_BLOCK:
                if pending.count:
                    raise damaged("an extension header belongs to no member")
                return
            check_sum(block, checksum)
            kind = fields[7]
            if kind in _EXTENSIONS:
                self._extend(pending, kind, number(fields[4]))
                continue
            member = self._member(block, fields)
            if pending.count:
                self._apply(member, pending, block)
                pending = _Pending()
            elif self._global:
                self._apply(member, _Pending(), block)
            elif kind == b"S":
                member.file_size, member.extents = sparse_from_old_header(tape, block, member.size)
            if member.size < 0 or not 0 <= member.uid < _NO_ID or not 0 <= member.gid < _NO_ID:
                raise damaged("a size or an owner is out of range")
            member.extension_bytes = self._extension_bytes
            self._extension_bytes = 0
            yield member

    def _member(self, block: bytes, fields: tuple[bytes, ...]) -> Member:
        name, mode, uid, gid, size, mtime, _, kind, link, magic, major, minor, prefix = fields
        name = name.partition(b"\0")[0]
        if prefix[0] and magic[:6] == b"ustar\0":
            if block[508:] == b"tar\0":  # star keeps times behind a shorter prefix
                prefix = prefix[:131]
            name = prefix.partition(b"\0")[0] + b"/" + name
        seconds = number(mtime)
        if kind in _REGULAR:
            length = number(size)
            if kind == b"\0" and name.endswith(b"/"):  # V7 knows no directories
                kind, length = DIRECTORY, 0
            else:
                kind = FILE
            return Member(
                name, kind, number(mode), number(uid), number(gid), seconds * 1_000_000_000,
                length, file_size=length,
            )  # fmt: skip
        if kind == _DUMP_DIRECTORY:
            length = number(size)
            self._tape.skip(length + -length % BLOCK)
            kind = DIRECTORY
        if kind not in _KNOWN:
            raise damaged(f"{name!r} has the unknown type {kind!r}")
        member = Member(
            name, kind, number(mode), number(uid), number(gid), seconds * 1_000_000_000,
            link=link.partition(b"\0")[0],
        )  # fmt: skip
        if kind in (CHARACTER, BLOCK_DEVICE):
            member.device = number(major), number(minor)
        return member

    # --- extension headers -------------------------------------------------------------------

    def _extend(self, pending: _Pending, kind: bytes, size: int) -> None:
        if not 0 <= size <= _EXTENSION_LIMIT:
            raise damaged(f"an extension header has {size} bytes")
        pending.count += kind in _FOR_THE_NEXT
        if pending.count > _EXTENSIONS_LIMIT:
            raise damaged("too many extension headers for one member")
        self._extension_bytes += size + BLOCK
        raw = self._tape.take(size)
        if kind == b"L":
            pending.records[b"path"] = raw.partition(b"\0")[0]
        elif kind == b"K":
            pending.records[b"linkpath"] = raw.partition(b"\0")[0]
        elif kind == b"g":
            self._global.update(parse_pax(raw).records)
        elif kind in (b"x", b"X"):
            extension = parse_pax(raw)
            pending.records = {**pending.records, **extension.records}
            pending.sparse += extension.sparse

    def _apply(self, member: Member, pending: _Pending, block: bytes) -> None:
        """Let PAX records override what the header says (an empty value: the header holds)."""
        records = {**self._global, **pending.records} if self._global else pending.records
        regular = member.type == FILE
        special = False
        for key, value in records.items():
            if key in _UNUSED:
                continue
            if key.startswith(_SPECIAL):
                special = True
            elif not value:
                continue
            elif key == b"mtime":
                member.mtime_ns = time_ns(value)
            elif key == b"path":
                member.name = _name(value)
            elif key == b"linkpath":
                member.link = _name(value)
            elif key == b"uid":
                member.uid = decimal(value, "uid")
            elif key == b"gid":
                member.gid = decimal(value, "gid")
            elif key == b"size" and regular:
                member.size = member.file_size = decimal(value, "size")
            elif key == b"SCHILY.devmajor":
                member.device = decimal(value, "devmajor"), member.device[1]
            elif key == b"SCHILY.devminor":
                member.device = member.device[0], decimal(value, "devminor")
        if special:
            member.xattrs = _xattrs(records)
        if not regular:
            return
        if block[156:157] == b"S":
            sparse = sparse_from_old_header(self._tape, block, member.size)
            member.file_size, member.extents = sparse
        elif special and any(key.startswith(_SPARSE) for key in records):
            sparse_from_pax(self._tape, member, records, pending.sparse)


def _name(value: bytes) -> bytes:
    if b"\0" in value:
        raise damaged("a name holds a zero byte")
    return value


def _xattrs(records: dict[bytes, bytes]) -> tuple[tuple[bytes, bytes], ...]:
    found: dict[bytes, bytes] = {}
    for key, value in records.items():
        if key.startswith(_XATTR):
            found[_name(key[len(_XATTR) :])] = value
        elif key.startswith(_ACL) and (name := _ACL_XATTRS.get(key[len(_ACL) :])):
            found.setdefault(name, acl_from_text(value))
    return tuple(sorted(found.items()))
