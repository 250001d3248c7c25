"""The metadata file as numbered blocks of 4 KiB, each with a checksum.

::

    0  u32  CRC-32 of all that follows
    4  u16  kind        8  u64  the block's own number
    6  u16  entries    16  u64  the commit that it was written for
   24  …    body

The number tells a block that was written to the wrong place; the commit tells one that a later
transaction has put in the place of the block that is looked for.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct as Layout
from zlib import crc32

from msgspec import Struct

from .media import Medium

BLOCK_BYTES = 4096
_CHECKSUM = Layout("<I")
_HEADER = Layout("<HHQQ")
_BODY_AT = _CHECKSUM.size + _HEADER.size
BODY_BYTES = BLOCK_BYTES - _BODY_AT


class BlockKind(IntEnum):
    SUPERBLOCK = 1
    LEAF = 2
    BRANCH = 3
    COUNTS = 4
    """Reference counts of a space map."""
    HELD = 5
    """What was kept of the superblock by ``reserve_metadata_snap``."""


class Damaged(Exception):
    """The metadata is not what was written; *reason* says of a block how it differs."""

    def __init__(self, number: int, reason: str, device: str = "metadata") -> None:
        super().__init__(f"{device} block {number} {reason}")
        self.number = number
        self.reason = reason


class Block(Struct, frozen=True):
    """One block as read: *body* is all of it, of which *entries* say how much is in use."""

    kind: BlockKind
    entries: int
    commit: int
    body: bytes


def read_block(medium: Medium, number: int, newest_commit: int | None = None) -> Block:
    """Return block *number*, as a state reads it that was committed as *newest_commit*.

    Raises:
        Damaged: if it cannot be read, is of a later commit, or its checksum, number or kind is
            wrong.
    """
    try:
        contents = medium.read(number * BLOCK_BYTES, BLOCK_BYTES)
    except OSError as error:
        raise Damaged(number, f"cannot be read: {error.strerror}") from error
    (checksum,) = _CHECKSUM.unpack_from(contents)
    if crc32(memoryview(contents)[_CHECKSUM.size :]) != checksum:
        raise Damaged(number, "has a wrong checksum" if any(contents) else "is empty")
    kind, entries, own_number, commit = _HEADER.unpack_from(contents, _CHECKSUM.size)
    if own_number != number:
        raise Damaged(number, f"says it is block {own_number}")
    if newest_commit is not None and commit > newest_commit:
        raise Damaged(number, f"belongs to commit {commit}, which is later than {newest_commit}")
    try:
        return Block(BlockKind(kind), entries, commit, contents[_BODY_AT:])
    except ValueError:
        raise Damaged(number, f"is of the unknown kind {kind}") from None


def write_block(medium: Medium, number: int, block: Block) -> None:
    """Write *block* as number *number*; it is durable after the medium's next ``sync``."""
    assert len(block.body) <= BODY_BYTES
    tail = _HEADER.pack(block.kind, block.entries, number, block.commit)
    tail += block.body.ljust(BODY_BYTES, b"\0")
    medium.write(number * BLOCK_BYTES, _CHECKSUM.pack(crc32(tail)) + tail)
