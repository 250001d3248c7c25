"""Sparse members: GNU's old headers and PAX versions 0.0, 0.1 and 1.0.

Source: GNU tar's manual, appendix "Storing Sparse Files". All become the extents of the file
that have data; the rest are holes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .recipe_format import Extents
from .tape import Tape
from .tarheader import BLOCK, damaged, decimal, number

if TYPE_CHECKING:
    from .tarreader import Member

_DIGITS_LIMIT = 24


def sparse_from_old_header(tape: Tape, block: bytes, size: int) -> tuple[int, Extents]:
    """Return file size and extents of a type ``S`` member; takes its extension blocks."""
    numbers = _old_entries(block, 386, 4)
    file_size = number(block[483:495])
    extended = block[482]
    while extended:
        more = tape.block()
        numbers += _old_entries(more, 0, 21)
        extended = more[504]
    return file_size, checked_extents(numbers, size, file_size)


def _old_entries(block: bytes, at: int, count: int) -> list[int]:
    numbers = []
    for begin in range(at, at + 24 * count, 24):
        if not block[begin]:
            break
        numbers += [number(block[begin : begin + 12]), number(block[begin + 12 : begin + 24])]
    return numbers


def sparse_from_pax(
    tape: Tape, member: Member, records: dict[bytes, bytes], pairs: list[tuple[bytes, bytes]]
) -> None:
    """Give *member* the name, size and extents that ``GNU.sparse.*`` records say.

    Version 1.0 has its map in front of the data; it is taken and no longer counts to the size.
    """
    if name := records.get(b"GNU.sparse.name"):
        member.name = name
    size = records.get(b"GNU.sparse.realsize") or records.get(b"GNU.sparse.size")
    if size is None:
        raise damaged("a sparse member has no size")
    if records.get(b"GNU.sparse.major") == b"1":
        numbers = _map_before_data(tape, member)
    elif table := records.get(b"GNU.sparse.map"):
        numbers = [decimal(item, "sparse map") for item in table.split(b",")]
    else:
        keys = [key for key, _ in pairs]
        if keys != [b"GNU.sparse.offset", b"GNU.sparse.numbytes"] * (len(pairs) // 2):
            raise damaged("the sparse map of a member is out of order")
        numbers = [decimal(value, "sparse map") for _, value in pairs]
    member.file_size = decimal(size, "sparse size")
    member.extents = checked_extents(numbers, member.size, member.file_size)


def _map_before_data(tape: Tape, member: Member) -> list[int]:
    """Version 1.0: decimal lines: how many extents, then offset and length of each."""
    raw = b""
    numbers: list[int] = []
    expected = 1
    while len(numbers) < expected:
        if member.size < BLOCK:
            raise damaged("the sparse map of a member does not end")
        member.size -= BLOCK
        raw += tape.block()
        *lines, raw = raw.split(b"\n")
        if len(raw) > _DIGITS_LIMIT and len(numbers) + len(lines) < expected:
            raise damaged("the sparse map of a member holds no numbers")
        for line in lines:
            if len(numbers) < expected:
                numbers.append(decimal(line, "sparse map"))
                if len(numbers) == 1:
                    expected = 1 + 2 * numbers[0]
    return numbers[1:]


def checked_extents(numbers: Iterable[int], size: int, file_size: int) -> Extents:
    """Return the extents with data, or raise InvalidArchive if they cannot be true."""
    flat = list(numbers)
    if len(flat) % 2:
        raise damaged("the sparse map of a member has an offset without a length")
    at = total = 0
    extents = []
    for offset, length in zip(flat[::2], flat[1::2], strict=True):
        if length < 0 or offset < at or offset + length > file_size:
            raise damaged("the sparse map of a member overlaps itself or leaves the file")
        at = offset + length
        total += length
        if length:
            extents.append((offset, length))
    if total != size or file_size < 0:
        raise damaged("the sparse map of a member does not match its size")
    return tuple(extents)
