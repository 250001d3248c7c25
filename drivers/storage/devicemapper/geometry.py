"""Sizes, features and modes of a pool, with dm-thin's limits."""

from __future__ import annotations

import errno
from enum import IntEnum

from msgspec import Struct

from stowage import InvalidArgument
from stowage.options import format_size

from .blocks import BLOCK_BYTES
from .refusals import refusal

SECTOR_BYTES = 512
MIN_BLOCK_BYTES, MAX_BLOCK_BYTES = 64 << 10, 1 << 30
MIN_METADATA_BYTES, MAX_METADATA_BYTES = 2 << 20, 16 << 30
MAX_DATA_BLOCKS = 1 << 32  # a mapping has 32 bits for the block and 32 for the time
MAX_DEVICE_ID = (1 << 24) - 1


class Mode(IntEnum):
    """What a pool can still do; it falls, and rises only as said."""

    WRITE = 0
    OUT_OF_DATA_SPACE = 1
    """What needs no new block works; rises when blocks become free or the data grow."""
    OUT_OF_METADATA_SPACE = 2
    """Read-only; rises when the metadata grow."""
    READ_ONLY = 3
    FAIL = 4
    """Nothing works any more."""

    @property
    def word(self) -> str:
        """As the status line has it."""
        return ("rw", "out_of_data_space", "ro", "ro", "Fail")[self]


class Features(Struct, frozen=True):
    """How a pool behaves; the defaults are dm-thin's."""

    zero_blocks: bool = True
    """Otherwise the rest of a new block shows what a deleted device had there."""
    discard: bool = True
    discard_passdown: bool = True
    """Give freed blocks back to the file system that the data lie on."""
    read_only: bool = False
    error_if_no_space: bool = False
    """Otherwise writes wait for space."""
    no_space_timeout_seconds: float = 60.0
    """How long they wait; 0 is for ever."""
    low_water_blocks: int = 0
    """``low_water`` is told when fewer blocks are free."""


def suggested_metadata_bytes(data_bytes: int, block_bytes: int) -> int:
    """Return how large metadata should be: 48 bytes for each block, within the limits."""
    wanted = 48 * data_bytes // block_bytes
    wanted = -(-wanted // BLOCK_BYTES) * BLOCK_BYTES
    return min(max(wanted, MIN_METADATA_BYTES), MAX_METADATA_BYTES)


def metadata_low_water(blocks: int) -> int:
    """Return below how many free blocks ``metadata_low_water`` is told."""
    return min(1024, blocks // 4)


def metadata_reserve(blocks: int) -> int:
    """Return how many blocks are kept for commits and for getting out of trouble."""
    return min(4096, blocks // 10)


def check_sizes(
    block_bytes: int, metadata_bytes: int | None = None, data_bytes: int | None = None
) -> None:
    """Refuse sizes that no pool can have; None is not looked at.

    Raises:
        InvalidArgument: saying which, and what it could be.
    """
    problem = expected = ""
    if not MIN_BLOCK_BYTES <= block_bytes <= MAX_BLOCK_BYTES or block_bytes % MIN_BLOCK_BYTES:
        problem = f"Blocks cannot have {format_size(block_bytes)} bytes"
        expected = "64K to 1G, a multiple of 64K"
    elif metadata_bytes is not None and metadata_bytes < MIN_METADATA_BYTES:
        problem = f"Metadata cannot have {format_size(metadata_bytes)} bytes"
        expected = "2M to 16G"
    elif data_bytes is not None and not block_bytes <= data_bytes <= block_bytes * MAX_DATA_BLOCKS:
        problem = f"Data cannot have {format_size(data_bytes)} bytes"
        expected = f"one block, {format_size(block_bytes)}, to {MAX_DATA_BLOCKS} blocks"
    if problem:
        raise refusal(InvalidArgument, errno.EINVAL, problem, f"it can be {expected}")
