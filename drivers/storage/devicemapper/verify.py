"""Checking a pool's metadata without the code that changes them, as thin_check does.

All trees are walked from the superblock, every reference is counted, and the counts are compared
with what the space maps say.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from msgspec import Struct

from stowage import FailedPrecondition

from .blocks import BlockKind, Damaged, read_block
from .btree import Node
from .media import Medium
from .spacemap import CHUNK_BLOCKS, INDEX_WIDTH, decode_counts
from .superblock import SUPERBLOCKS, Superblock, read_one, read_superblock
from .transaction import DEVICE_WIDTH, MAPPING_WIDTH, Transaction


class Report(Struct, frozen=True):
    """What was found: *errors* lose or endanger data, *leaks* only waste space."""

    errors: tuple[str, ...] = ()
    leaks: tuple[str, ...] = ()
    needs_check: bool = False
    """The pool asks for this check, and is read-only until ``clear_needs_check``."""

    @property
    def ok(self) -> bool:
        return not self.errors


def verify(metadata: Medium) -> Report:
    """Check all metadata of a pool that nobody has open; change nothing."""
    try:
        superblock = read_superblock(metadata)
    except Damaged as damaged:
        return Report((str(damaged),))
    walk = _Walk(metadata, superblock)
    walk.superblocks()
    walk.all_trees()
    return Report(tuple(walk.errors), tuple(walk.leaks), superblock.needs_check)


def clear_needs_check(metadata: Medium) -> None:
    """Let a pool be written to again whose metadata are whole after all.

    Raises:
        FailedPrecondition: if they are not; then repair them.
    """
    report = verify(metadata)
    if not report.ok:
        raise FailedPrecondition(
            "The pool's metadata is damaged",
            details="\n".join(report.errors),
            resolution="repair it into another file",
        )
    Transaction(metadata, read_superblock(metadata)).mark(needs_check=False)


class _Seen(Struct, frozen=True):
    """A node that was walked already."""

    depth: int
    entries: int
    first: int
    last: int


class _Walk:
    def __init__(self, medium: Medium, superblock: Superblock) -> None:
        self.errors: list[str] = []
        self.leaks: list[str] = []
        self._medium = medium
        self._superblock = superblock
        self._metadata: Counter[int] = Counter()
        self._data: Counter[int] = Counter()
        self._seen: dict[int, _Seen | None] = {}
        self._roots: dict[int, _Seen | None] = {}
        self._leaf_of = {DEVICE_WIDTH: self._device_leaf, MAPPING_WIDTH: self._mapping_leaf}

    def superblocks(self) -> None:
        for number in SUPERBLOCKS:
            self._metadata[number] += 1
            try:
                stale = read_one(self._medium, number) != self._superblock
            except Damaged as damaged:
                self.leaks.append(f"{damaged}; the other superblock is whole")
            else:
                if stale:
                    self.leaks.append(
                        f"metadata block {number} is of an earlier commit than the "
                        "other superblock, as after a power cut"
                    )

    def all_trees(self) -> None:
        superblock = self._superblock
        self._tree(superblock.devices_root, DEVICE_WIDTH)
        if superblock.held_root:
            self._held(superblock.held_root)
        stored = [
            self._stored("metadata", superblock.metadata_index, superblock.metadata_blocks),
            self._stored("data", superblock.data_index, superblock.data_blocks),
        ]
        if self.errors:  # what cannot be read cannot be counted
            return
        self._compare("metadata", self._metadata, stored[0], superblock.metadata_used)
        self._compare("data", self._data, stored[1], superblock.data_used)

    # --- trees ---------------------------------------------------------------------------------

    def _tree(self, root: int, width: int) -> _Seen | None:
        return self._node(root, width, 0, 1 << 64)

    def _node(self, number: int, width: int, low: int, high: int) -> _Seen | None:
        """Walk what is below a node, which has one more reference; None if it is damaged."""
        self._metadata[number] += 1
        if number not in self._seen:
            self._seen[number] = None  # a tree that contains itself ends here
            try:
                self._seen[number] = self._walk(number, width)
            except Damaged as damaged:
                self.errors.append(str(damaged))
        seen = self._seen[number]
        if seen is not None and seen.entries and not (low <= seen.first and seen.last < high):
            self.errors.append(
                f"metadata block {number} has keys {seen.first} to {seen.last}, "
                f"but should have some of {low} to {high - 1}"
            )
        return seen

    def _walk(self, number: int, width: int) -> _Seen:
        block = read_block(self._medium, number, self._superblock.commit)
        node = Node.decode(number, block, width)
        keys = list(node.keys)
        if any(left >= right for left, right in pairwise(keys)):
            raise Damaged(number, "has keys that are not in order")
        if node.leaf:
            if (look := self._leaf_of.get(width)) is not None:
                look(number, node)
            return _Seen(0, len(keys), keys[0] if keys else 0, keys[-1] if keys else 0)
        if not keys:
            raise Damaged(number, "is a branch without children")
        ends = [*keys[1:], 1 << 64]
        children = [
            self._node(child, width, low, high)
            for child, low, high in zip(node.values, keys, ends, strict=True)
        ]
        whole = [child for child in children if child is not None]
        if not whole:
            raise Damaged(number, "has no child that is whole")
        if len({child.depth for child in whole}) > 1:
            raise Damaged(number, "has children of different depths")
        entries = sum(child.entries for child in whole)
        return _Seen(whole[0].depth + 1, entries, whole[0].first, whole[-1].last)

    def _device_leaf(self, number: int, node: Node) -> None:
        for index, device_id in enumerate(node.keys):
            root, mapped, _, created, snapshotted = node.value(index)
            seen = self._tree(root, MAPPING_WIDTH)
            if seen is not None and seen.entries != mapped:
                self.errors.append(
                    f"thin device {device_id} maps {seen.entries} blocks, but says {mapped}"
                )
            if max(created, snapshotted) > self._superblock.time:
                self.errors.append(f"thin device {device_id} is of a time that has not come")

    def _mapping_leaf(self, number: int, node: Node) -> None:
        for packed in node.values:
            block, time = packed >> 32, packed & 0xFFFFFFFF
            if block >= self._superblock.data_blocks:
                raise Damaged(number, f"maps data block {block}, which does not exist")
            if time > self._superblock.time:
                raise Damaged(number, f"maps data block {block} at a time that has not come")
            self._data[block] += 1

    def _held(self, number: int) -> None:
        self._metadata[number] += 1
        try:
            block = read_block(self._medium, number, self._superblock.commit)
        except Damaged as damaged:
            self.errors.append(str(damaged))
            return
        if block.kind is not BlockKind.HELD:
            self.errors.append(f"metadata block {number} holds no metadata snapshot")
            return
        self._tree(int.from_bytes(block.body[:8], "little"), DEVICE_WIDTH)

    # --- counts --------------------------------------------------------------------------------

    def _stored(self, name: str, index: int, size: int) -> dict[int, int]:
        """Return the counts that a space map has, where they are not 0."""
        counts: dict[int, int] = {}
        for chunk, number, free in self._chunks(index):
            self._metadata[number] += 1
            try:
                block = read_block(self._medium, number, self._superblock.commit)
                stored = decode_counts(number, block)
            except Damaged as damaged:
                self.errors.append(str(damaged))
                continue
            if stored.count(0) != free:
                self.errors.append(
                    f"chunk {chunk} of the {name} has {stored.count(0)} free blocks, "
                    f"but its index says {free}"
                )
            first = chunk * CHUNK_BLOCKS
            counts.update((first + at, count) for at, count in enumerate(stored) if count)
        if counts and max(counts) >= size:
            self.errors.append(f"the {name} counts block {max(counts)}, which does not exist")
        return counts

    def _chunks(self, root: int) -> list[tuple[int, int, int]]:
        """Walk an index; a damaged part of it is reported and left out."""
        found: list[tuple[int, int, int]] = []

        def look(number: int, node: Node) -> None:
            for at, chunk in enumerate(node.keys):
                found.append((chunk, *node.value(at)))  # type: ignore[arg-type]  # width is 2

        self._leaf_of[INDEX_WIDTH] = look
        self._tree(root, INDEX_WIDTH)
        return found

    def _compare(self, name: str, counted: Counter[int], stored: dict[int, int], used: int) -> None:
        for number in sorted(counted.keys() | stored.keys()):
            is_, says = counted[number], stored.get(number, 0)
            text = f"{name} block {number} is referred to {is_} times, but counted {says} times"
            if says < is_:
                self.errors.append(text)
            elif says > is_:
                self.leaks.append(text)
        if len(stored) != used:
            self.errors.append(f"{len(stored)} {name} blocks are in use, but {used} are reported")
