"""Saving what can be saved of damaged metadata into another file, as thin_repair does.

Every node that can still be read is copied, each once, so that what was shared stays shared;
what hangs on a damaged one is lost and reported. All counts are made anew. Mapped blocks keep
their places, so the data file is used as it is.
"""

from __future__ import annotations

import errno
from array import array
from collections.abc import Sequence

from msgspec import Struct

from stowage import InvalidArgument

from .blocks import Damaged, read_block
from .btree import Node
from .media import Medium
from .refusals import damaged, refusal
from .superblock import Superblock, is_blank, read_superblock
from .transaction import DEVICE_WIDTH, MAPPING_WIDTH, Transaction


class Saved(Struct, frozen=True):
    """What became of a repair: how much was saved, and in words what was lost."""

    devices: int
    mapped: int
    lost: tuple[str, ...]


def repair(source: Medium, target: Medium) -> Saved:
    """Write what is readable in *source*, which is not changed, to *target*, which is blank and
    at least as large.

    Raises:
        DataLoss: if both superblocks are damaged: nothing says then where anything is.
        InvalidArgument: if *target* is not blank, or too small.
    """
    try:
        superblock = read_superblock(source)
    except Damaged as error:
        raise damaged(error) from error
    if not is_blank(target) or target.size_bytes < source.size_bytes:
        raise refusal(
            InvalidArgument,
            errno.EINVAL,
            "The repaired metadata needs a file of its own",
            f"give an empty one of {source.size_bytes} bytes",
        )
    copier = _Copier(source, superblock, target)
    return copier.run()


class _Copy(Struct, frozen=True):
    root: int
    entries: int


class _Copier:
    def __init__(self, source: Medium, superblock: Superblock, target: Medium) -> None:
        self._source = source
        self._superblock = superblock
        self._target_medium = target
        blank = Superblock(
            superblock.block_bytes,
            superblock.data_blocks,
            superblock.metadata_blocks,
            commit=superblock.commit,
            time=superblock.time,
            transaction_id=superblock.transaction_id,
        )
        self._target = Transaction.format(target, blank)
        self._copies: dict[int, _Copy | None] = {}
        self._lost: list[str] = []

    def run(self) -> Saved:
        target = self._target
        copied = self._tree(self._superblock.devices_root, DEVICE_WIDTH)
        if copied is not None:
            target.devices.destroy(target.devices_root)
            target.devices_root = copied.root
        devices = [device for _, device in target.all_devices()]
        mapped = sum(device.mapped for device in devices)
        target.commit()
        self._target_medium.sync()
        return Saved(len(devices), mapped, tuple(self._lost))

    def _tree(self, number: int, width: int) -> _Copy | None:
        """Copy what is below a node of the source; None if nothing is left of it."""
        if number in self._copies:
            copy = self._copies[number]
            if copy is not None:
                self._target.retain(copy.root)
            return copy
        self._copies[number] = None
        try:
            node = self._read(number, width)
        except Damaged as error:
            self._lost.append(str(error))
            return None
        saved = Node(node.leaf, node.width, array("Q"), array("Q"))
        entries = 0
        for index, key in enumerate(node.keys):
            if node.leaf:
                value: Sequence[int] | None = self._value(number, key, node.value(index))
                count = 1
            else:
                child = self._tree(node.values[index], width)
                value = None if child is None else (child.root,)
                count = 0 if child is None else child.entries
            if value is not None:
                saved.insert(len(saved.keys), key, value)
                entries += count
        if not saved.keys:
            return None
        made = self._copies[number] = _Copy(self._target.add(saved), entries)
        return made

    def _read(self, number: int, width: int) -> Node:
        block = read_block(self._source, number, self._superblock.commit)
        node = Node.decode(number, block, width)
        if list(node.keys) != sorted(set(node.keys)):
            raise Damaged(number, "has keys that are not in order")
        return node

    def _value(self, number: int, key: int, value: Sequence[int]) -> Sequence[int] | None:
        if len(value) == MAPPING_WIDTH:
            block = value[0] >> 32
            if block >= self._superblock.data_blocks:
                self._lost.append(f"metadata block {number} maps data block {block}: none such")
                return None
            self._target.data.retain(block)
            return value
        root, mapped, *rest = value
        copied = self._tree(root, MAPPING_WIDTH)
        if copied is None:
            copied = _Copy(self._target.mappings.create(), 0)
        if copied.entries < mapped:
            self._lost.append(f"thin device {key}: {mapped - copied.entries} of {mapped} blocks")
        return copied.root, copied.entries, *rest
