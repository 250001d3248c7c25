"""Which blocks are in use, and how often: a reference count for each block.

The counts lie in chunks of a block each; an index (a tree) says where each chunk is stored and
how many of its blocks are free. A chunk that the index lacks is all free, so a new pool's map is
empty whatever the pool's size. Chunks are read when they are needed and written to a new place
at commit, as tree nodes are.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Protocol

from .blocks import BODY_BYTES, Block, BlockKind, Damaged
from .btree import BTree, Value

CHUNK_BLOCKS = BODY_BYTES // 4  # counts of 32 bits
INDEX_WIDTH = 2  # where the chunk is, and how many of its blocks are free


class Full(Exception):
    """No block can be allocated before the next commit."""


class ChunkStore(Protocol):
    """Where chunks are stored; see :class:`~.transaction.Transaction`."""

    def read_counts(self, number: int) -> Block: ...
    def write_counts(self, number: int, block: Block) -> None: ...
    def allocate(self) -> int: ...
    def release(self, number: int) -> int: ...


def decode_counts(number: int, block: Block) -> array[int]:
    """Return the counts of a chunk stored as *block*.

    Raises:
        Damaged: if it is none.
    """
    if block.kind is not BlockKind.COUNTS or block.entries != CHUNK_BLOCKS:
        raise Damaged(number, f"is {block.kind.name.lower()}, not reference counts")
    counts = array("I")
    counts.frombytes(block.body[: 4 * CHUNK_BLOCKS])
    return counts


class SpaceMap:
    """The counts of *size* blocks, of which *used* are in use. The lowest free one is taken first.

    A block that was freed is not taken again before the commit: until then the last committed
    state still refers to it.
    """

    def __init__(
        self, name: str, store: ChunkStore, index: BTree, index_root: int, size: int, used: int
    ) -> None:
        self.name = name
        self.size = size
        self.used = used
        self.index_root = index_root
        self._store = store
        self._index = index
        self._chunks: dict[int, array[int]] = {}
        self._free: dict[int, int] = {}  # of each chunk that was looked at
        self._changed: set[int] = set()
        self._placed: set[int] = set()  # changed ones that have a new place already
        self._freed: set[int] = set()
        self._lowest = 0  # no block below it can be taken

    @property
    def free(self) -> int:
        """How many blocks are free, those included that can only be taken after a commit."""
        return self.size - self.used

    @property
    def takeable(self) -> int:
        """How many blocks can be taken before the commit."""
        return self.free - len(self._freed)

    @property
    def freed(self) -> Sequence[int]:
        """The blocks that the running transaction has freed, in order."""
        return sorted(self._freed)

    def count(self, number: int) -> int:
        """Return how often block *number* is referred to."""
        chunk, offset = divmod(number, CHUNK_BLOCKS)
        return self._counts(chunk)[offset]

    def retain(self, number: int) -> None:
        """Count one more reference."""
        chunk, offset = divmod(number, CHUNK_BLOCKS)
        counts = self._counts(chunk)
        if counts[offset] == 0:
            self.used += 1
            self._free[chunk] -= 1
        counts[offset] += 1
        self._changed.add(chunk)

    def release(self, number: int) -> int:
        """Count one reference less, and return how many are left.

        Raises:
            Damaged: if there is none: the map contradicts who refers to the block.
        """
        chunk, offset = divmod(number, CHUNK_BLOCKS)
        counts = self._counts(chunk)
        if counts[offset] == 0:
            raise Damaged(number, "is referred to, but counted as free", self.name)
        counts[offset] -= 1
        self._changed.add(chunk)
        if counts[offset] == 0:
            self.used -= 1
            self._free[chunk] += 1
            self._freed.add(number)
        return counts[offset]

    def allocate(self) -> int:
        """Take the lowest block that is free, with one reference.

        Raises:
            Full: if there is none.
        """
        for chunk in range(self._lowest // CHUNK_BLOCKS, -(-self.size // CHUNK_BLOCKS)):
            number = self._find_in(chunk)
            if number is not None:
                self._lowest = number + 1
                self.retain(number)
                return number
        self._lowest = self.size
        raise Full

    def grow(self, size: int) -> None:
        self.size = size

    # --- commit ----------------------------------------------------------------------------------

    @property
    def changed_chunks(self) -> int:
        """How many blocks of metadata the commit will take for this map."""
        return len(self._changed)

    def place(self) -> None:
        """Give each changed chunk a new place, where the committed one is not overwritten.

        Placing takes blocks of metadata, which changes the map of the metadata: its own chunks
        are placed until none is left. The last of them is final when all maps are placed.
        """
        while unplaced := self._changed - self._placed:
            chunk = min(unplaced)
            self._placed.add(chunk)
            number = self._store.allocate()
            old = self._entry(chunk)
            self.index_root = self._index.set(self.index_root, chunk, (number, 0))
            if old is not None:
                self._store.release(old[0])

    def write(self, commit: int) -> None:
        """Write the chunks to their places, once nothing changes any more."""
        for chunk in sorted(self._placed):
            entry = self._entry(chunk)
            assert entry is not None, "it was placed"
            number, _ = entry
            self.index_root = self._index.set(self.index_root, chunk, (number, self._free[chunk]))
            counts = self._chunks[chunk].tobytes()
            block = Block(BlockKind.COUNTS, CHUNK_BLOCKS, commit, counts)
            self._store.write_counts(number, block)

    def committed(self) -> None:
        """What was freed can be taken from now on."""
        self._lowest = min(self._lowest, min(self._freed, default=self._lowest))
        self._changed.clear()
        self._placed.clear()
        self._freed.clear()

    # --- chunks ----------------------------------------------------------------------------------

    def _counts(self, chunk: int) -> array[int]:
        counts = self._chunks.get(chunk)
        if counts is None:
            entry = self._entry(chunk)
            if entry is None:
                counts = array("I", bytes(4 * CHUNK_BLOCKS))
                self._free[chunk] = CHUNK_BLOCKS
            else:
                counts = decode_counts(entry[0], self._store.read_counts(entry[0]))
                self._free[chunk] = counts.count(0)
            self._chunks[chunk] = counts
        return counts

    def _entry(self, chunk: int) -> Value | None:
        """The index has no root only while a new pool is made."""
        return self._index.get(self.index_root, chunk) if self.index_root else None

    def _find_in(self, chunk: int) -> int | None:
        if self._free_in(chunk) == 0:
            return None
        base = chunk * CHUNK_BLOCKS
        counts = self._counts(chunk)
        offset = max(0, self._lowest - base)
        while base + offset < self.size:
            try:
                offset = counts.index(0, offset)
            except ValueError:
                return None
            number = base + offset
            if number not in self._freed:
                return number if number < self.size else None
            offset += 1
        return None

    def _free_in(self, chunk: int) -> int:
        """Read no chunk that is known to be full."""
        if chunk not in self._free:
            entry = self._entry(chunk)
            self._free[chunk] = CHUNK_BLOCKS if entry is None else entry[1]
        return self._free[chunk]
