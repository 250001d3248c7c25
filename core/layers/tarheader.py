"""The fields of tar headers as they are on tape: numbers, checksums, PAX records.

Sources: POSIX pax (pax interchange format), GNU tar's manual ("Basic Tar Format", "Sparse
Formats"), star(5) for SCHILY keys. All names are bytes; nothing is ever decoded.
"""

from __future__ import annotations

import re
import zlib
from functools import lru_cache
from struct import Struct
from typing import NamedTuple

from ..errors import InvalidArchive

BLOCK = 512
ZERO_BLOCK = bytes(BLOCK)

# name mode uid gid size mtime checksum type linkname magic (uname gname) major minor prefix
HEADER = Struct("100s8s8s8s12s12s8s1s100s8s64x8s8s155s12x")
_MODULUS = 65521  # of adler32
_SPACES = 8 * ord(" ")
_REPEATABLE = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")

_DECIMAL_TIME = re.compile(rb"(-?)([0-9]+)(?:\.([0-9]*))?\Z")


class Extension(NamedTuple):
    """The records of a PAX header: the last value of each key, and the repeatable sparse keys."""

    records: dict[bytes, bytes]
    sparse: list[tuple[bytes, bytes]]


def damaged(what: str) -> InvalidArchive:
    return InvalidArchive("The archive is damaged or not a tar archive", details=what)


def header_sum(block: bytes, field: bytes) -> int:
    """Return the sum of a header's bytes with its checksum *field* taken as spaces.

    Modulo 65521: the low half of adler32 is the sum, thirty times as fast as ``sum()``.
    """
    return ((zlib.adler32(block, 0) & 0xFFFF) - sum(field) + _SPACES) % _MODULUS


def check_sum(block: bytes, field: bytes) -> None:
    """Raise InvalidArchive if the checksum of a header is wrong."""
    try:
        expected = int(field.strip(b" \0"), 8)
    except ValueError:
        raise damaged("a header has no checksum") from None
    if header_sum(block, field) == expected % _MODULUS:
        return
    # some old archivers summed signed bytes
    signed = sum(byte - 256 if byte > 127 else byte for byte in block)
    signed += _SPACES - sum(byte - 256 if byte > 127 else byte for byte in field)
    if signed != expected:
        raise damaged("the checksum of a header is wrong")


@lru_cache(maxsize=4096)  # owners, modes and times repeat
def number(field: bytes) -> int:
    """Return a numeric field: octal digits, or GNU's base-256 (two's complement)."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big")
        if field[0] & 0x40:
            return value - (1 << 8 * len(field))
        return value - (0x80 << 8 * (len(field) - 1))
    digits = field.strip(b" \0")
    if not digits:
        return 0
    try:
        return int(digits, 8)
    except ValueError:
        raise damaged(f"a numeric field holds {field!r}") from None


def decimal(text: bytes, what: str) -> int:
    """Return a whole number of a PAX record."""
    if not text.isdigit() or len(text) > 20:
        raise damaged(f"PAX {what} is {text[:40]!r}")
    return int(text)


def time_ns(text: bytes) -> int:
    """Return a PAX time (decimal seconds, perhaps negative) in nanoseconds, cut off below."""
    match = _DECIMAL_TIME.match(text)
    if not match or len(match[2]) > 18:
        raise damaged(f"PAX time is {text[:40]!r}")
    fraction = (match[3] or b"")[:9].ljust(9, b"0")
    value = int(match[2]) * 1_000_000_000 + int(fraction)
    return -value if match[1] else value


def parse_pax(raw: bytes) -> Extension:
    """Parse ``<length> <key>=<value>\\n`` records; values may hold any byte."""
    lines = raw.split(b"\n")
    if lines.pop():
        return _parse_pax_bytes(raw)
    records: dict[bytes, bytes] = {}
    for line in lines:
        digits, _, record = line.partition(b" ")
        key, equals, value = record.partition(b"=")
        if digits != b"%d" % (len(line) + 1) or not equals or key in _REPEATABLE:
            return _parse_pax_bytes(raw)
        records[key] = value
    return Extension(records, [])


def _parse_pax_bytes(raw: bytes) -> Extension:
    """Parse what may also have newlines in values, sparse keys or damage."""
    records: dict[bytes, bytes] = {}
    sparse: list[tuple[bytes, bytes]] = []
    at, end = 0, len(raw)
    while at < end:
        space = raw.find(b" ", at, at + 12)
        digits = raw[at:space] if space > 0 else b""
        if not digits.isdigit():
            if not raw[at:].strip(b"\0"):
                break
            raise damaged("a PAX record has no length")
        stop = at + int(digits)
        equals = raw.find(b"=", space, stop)
        if stop > end or equals < 0 or stop <= space or raw[stop - 1] != 0x0A:
            raise damaged("a PAX record does not end where it says")
        key, value = raw[space + 1 : equals], raw[equals + 1 : stop - 1]
        if key in _REPEATABLE:
            sparse.append((key, value))
        else:
            records[key] = value
        at = stop
    return Extension(records, sparse)


def pax_record(key: bytes, value: bytes) -> bytes:
    """Return one PAX record; its length counts its own digits."""
    rest = len(key) + len(value) + 3
    size = rest + len(str(rest))
    if len(str(size)) != len(str(rest)):
        size = rest + len(str(size))
    return b"%d %s=%s\n" % (size, key, value)
