"""The two superblocks: where everything else of the metadata begins.

A commit becomes true by the write of one block. The second superblock is written and synced
first, then the first one, which the next commit's first sync makes durable: so whichever write
is torn, the other superblock is whole, and what rots in one is found in the other.
"""

from __future__ import annotations

from struct import Struct as Layout

from msgspec import Struct
from msgspec.structs import replace

from .blocks import BLOCK_BYTES, Block, BlockKind, Damaged, read_block, write_block
from .media import Medium

SUPERBLOCKS = (0, 1)
_MAGIC, _VERSION = b"stowthin", 1
_LAYOUT = Layout("<8sII12Q")


class Superblock(Struct, frozen=True):
    """The state of a pool at one commit. Blocks of data are counted in *block_bytes*, blocks of
    metadata in 4 KiB; roots are numbers of metadata blocks, 0 for none."""

    block_bytes: int
    data_blocks: int
    metadata_blocks: int
    commit: int = 0
    time: int = 0
    """Counts snapshots; says which mappings are older than one."""
    transaction_id: int = 0
    """The user's own number, see ``set_transaction_id``."""
    data_used: int = 0
    metadata_used: int = 0
    devices_root: int = 0
    data_index: int = 0
    metadata_index: int = 0
    held_root: int = 0
    needs_check: bool = False


def write_superblocks(medium: Medium, superblock: Superblock) -> None:
    """Make *superblock* the truth; on return it is durable. Both are settled before."""
    first, second = SUPERBLOCKS
    write_block(medium, second, _encoded(superblock))
    medium.sync()
    write_block(medium, first, _encoded(superblock))


def _encoded(superblock: Superblock) -> Block:
    numbers = (
        superblock.block_bytes,
        superblock.data_blocks,
        superblock.metadata_blocks,
        superblock.commit,
        superblock.time,
        superblock.transaction_id,
        superblock.data_used,
        superblock.metadata_used,
        superblock.devices_root,
        superblock.data_index,
        superblock.metadata_index,
        superblock.held_root,
    )
    flags = int(superblock.needs_check)
    body = _LAYOUT.pack(_MAGIC, _VERSION, flags, *numbers)
    return Block(BlockKind.SUPERBLOCK, 1, superblock.commit, body)


def settle_superblocks(medium: Medium, superblock: Superblock) -> None:
    """Make both superblocks *superblock*, the newest, and durable, where a power cut or rot has
    left one behind: the next commit may tear the other one."""
    for number in SUPERBLOCKS:
        try:
            if read_one(medium, number) == superblock:
                continue
        except Damaged:
            pass
        write_block(medium, number, _encoded(superblock))
        medium.sync()


def read_superblock(medium: Medium) -> Superblock:
    """Return the newest superblock that is whole.

    Raises:
        Damaged: if neither is.
    """
    found: list[Superblock] = []
    reasons: list[Damaged] = []
    for number in SUPERBLOCKS:
        try:
            found.append(read_one(medium, number))
        except Damaged as damaged:
            reasons.append(damaged)
    if not found:
        raise reasons[0]
    return max(found, key=lambda superblock: superblock.commit)


def read_one(medium: Medium, number: int) -> Superblock:
    """Return superblock *number*.

    Raises:
        Damaged: if it is no superblock of this version.
    """
    block = read_block(medium, number)
    magic, version, flags, *numbers = _LAYOUT.unpack_from(block.body)
    if block.kind is not BlockKind.SUPERBLOCK or magic != _MAGIC:
        raise Damaged(number, "is no superblock of a thin pool")
    if version != _VERSION:
        raise Damaged(number, f"has version {version}, of which only {_VERSION} is known")
    return replace(Superblock(*numbers), needs_check=bool(flags & 1))


def is_blank(medium: Medium) -> bool:
    """Whether a new pool may be made here: the first 4 KiB are zeros, and the second superblock
    holds none (it is written before the first)."""
    if any(medium.read(0, BLOCK_BYTES)):
        return False
    try:
        read_one(medium, SUPERBLOCKS[1])
    except Damaged:
        return True
    return False
