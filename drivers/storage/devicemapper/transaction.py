"""One transaction over a pool's metadata: what changes, and the commit that makes it true.

All changes stay in memory, as new nodes of persistent trees, until the commit writes them to
blocks that the last committed state does not use, and then the superblock. So at each instant
the medium holds exactly one committed state, and an abort only forgets.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from operator import itemgetter

from msgspec import Struct
from msgspec.structs import replace

from .blocks import Block, BlockKind, Damaged, read_block, write_block
from .btree import BTree, Node, Value
from .media import Medium
from .spacemap import INDEX_WIDTH, SpaceMap
from .superblock import SUPERBLOCKS, Superblock, settle_superblocks, write_superblocks

MAPPING_WIDTH, DEVICE_WIDTH = 1, 5
_CACHED_NODES = 4096


class Device(Struct):
    """What the pool knows of a thin device. Its size is not among it: a table says that."""

    root: int
    """Of its mappings."""
    mapped: int = 0
    transaction_id: int = 0
    """The pool's when it was made."""
    created: int = 0
    snapshotted: int = 0
    """The pool's time when it last was, or took part in, a snapshot."""

    def value(self) -> Value:
        return self.root, self.mapped, self.transaction_id, self.created, self.snapshotted


class _Mappings:
    """The values of a device's tree: a data block, and the time when it was mapped."""

    def __init__(self, data: SpaceMap) -> None:
        self._data = data

    def retain(self, value: Value) -> None:
        self._data.retain(value[0] >> 32)

    def release(self, value: Value) -> None:
        self._data.release(value[0] >> 32)


class _Devices:
    """The values of the tree of devices: the first word is the root of a tree of mappings."""

    def __init__(self, transaction: Transaction, mappings: BTree) -> None:
        self._transaction = transaction
        self._mappings = mappings

    def retain(self, value: Value) -> None:
        self._transaction.retain(value[0])

    def release(self, value: Value) -> None:
        self._mappings.destroy(value[0])


class Transaction:
    """The metadata as last committed, with all that has changed since."""

    def __init__(self, medium: Medium, superblock: Superblock) -> None:
        self._medium = medium
        self.committed = superblock
        self.commit_number = superblock.commit + 1
        """What the next commit will be called; no two attempts have the same number."""
        self._settled = False
        self._clean: OrderedDict[int, Node] = OrderedDict()
        self._begin()

    def _begin(self) -> None:
        superblock = self.committed
        self._own: dict[int, Node] = {}
        self._written: dict[int, Block] = {}
        self._edited: dict[int, Device] = {}
        index = BTree(self, INDEX_WIDTH)
        self.metadata = SpaceMap(
            "metadata",
            self,
            index,
            superblock.metadata_index,
            superblock.metadata_blocks,
            superblock.metadata_used,
        )
        self.data = SpaceMap(
            "data",
            self,
            index,
            superblock.data_index,
            superblock.data_blocks,
            superblock.data_used,
        )
        self.mappings = BTree(self, MAPPING_WIDTH, _Mappings(self.data))
        self.devices = BTree(self, DEVICE_WIDTH, _Devices(self, self.mappings))
        self.devices_root = superblock.devices_root
        self.held_root = superblock.held_root
        self.time = superblock.time
        self.transaction_id = superblock.transaction_id

    @classmethod
    def format(cls, medium: Medium, superblock: Superblock) -> Transaction:
        """Begin a pool without devices; it is one after the first commit."""
        transaction = cls(medium, superblock)
        transaction._settled = True  # there are none yet
        for number in SUPERBLOCKS:
            transaction.metadata.retain(number)
        transaction.metadata.index_root = BTree(transaction, INDEX_WIDTH).create()
        transaction.data.index_root = BTree(transaction, INDEX_WIDTH).create()
        transaction.devices_root = transaction.devices.create()
        return transaction

    @property
    def changed(self) -> bool:
        return bool(self._own) or self._superblock() != self.committed

    # --- nodes and chunks ------------------------------------------------------------------------

    def node(self, number: int, width: int) -> Node:
        """Return the tree node in block *number*; what it holds must not be changed unless own.

        Raises:
            Damaged: if it is no node of this pool's state.
        """
        node = self._own.get(number)
        if node is None:
            node = self._clean.get(number)
            if node is None:
                node = Node.decode(number, self._read(number), width)
                self._keep(number, node)
            else:
                self._clean.move_to_end(number)
        return node

    def _keep(self, number: int, node: Node) -> None:
        self._clean[number] = node
        if len(self._clean) > _CACHED_NODES:
            self._clean.popitem(last=False)

    def _read(self, number: int) -> Block:
        if not 0 < number < self.metadata.size:
            raise Damaged(number, "lies outside the metadata")
        return read_block(self._medium, number, self.committed.commit)

    def add(self, node: Node) -> int:
        """Store a new node, with one reference to it; return its block's number."""
        number = self.allocate()
        self._own[number] = node
        return number

    def own(self, number: int) -> bool:
        return number in self._own and self.metadata.count(number) == 1

    def read_counts(self, number: int) -> Block:
        return self._read(number)

    def write_counts(self, number: int, block: Block) -> None:
        self._written[number] = block

    def allocate(self) -> int:
        number = self.metadata.allocate()
        self._clean.pop(number, None)
        return number

    def retain(self, number: int) -> None:
        self.metadata.retain(number)

    def release(self, number: int) -> int:
        left = self.metadata.release(number)
        if not left:
            self._own.pop(number, None)
        return left

    # --- devices ---------------------------------------------------------------------------------

    def device(self, device_id: int) -> Device | None:
        """Return what is recorded of a device, or None; only ``edit`` may change it."""
        edited = self._edited.get(device_id)
        if edited is not None:
            return edited
        value = self.devices.get(self.devices_root, device_id)
        return None if value is None else Device(*value)

    def edit(self, device_id: int) -> Device:
        """Return what is recorded of a device, which exists, to be changed until the commit.

        Its leaf is made our own first: one that is held elsewhere refers to the same mappings,
        which must be counted before they change.
        """
        device = self._edited.get(device_id)
        if device is None:
            value = self.devices.get(self.devices_root, device_id)
            assert value is not None, "the caller has seen it"
            self.devices_root = self.devices.set(self.devices_root, device_id, value)
            device = self._edited[device_id] = Device(*value)
        return device

    def add_device(self, device_id: int, device: Device) -> None:
        self.devices_root = self.devices.set(self.devices_root, device_id, device.value())

    def remove_device(self, device_id: int) -> None:
        """Remove a device, which exists, and what it alone has mapped."""
        root = self.edit(device_id).root
        del self._edited[device_id]
        self.devices_root = self.devices.remove(self.devices_root, device_id)
        self.mappings.destroy(root)

    def all_devices(self) -> Iterator[tuple[int, Device]]:
        """Walk all devices in the order of their numbers."""
        for device_id, value in self.devices.items(self.devices_root):
            yield device_id, self._edited.get(device_id) or Device(*value)

    def hold(self) -> None:
        """Keep the tree of devices as it is, for ``held_devices``; nothing may have changed."""
        self.retain(self.devices_root)
        number = self.allocate()
        body = self.devices_root.to_bytes(8, "little")
        self._written[number] = Block(BlockKind.HELD, 1, self.commit_number, body)
        self.held_root = number

    def held_devices(self) -> int:
        """Return the root of the tree of devices that is held.

        Raises:
            Damaged: if the block that names it is.
        """
        block = self._read(self.held_root)
        if block.kind is not BlockKind.HELD:
            raise Damaged(self.held_root, "holds no metadata snapshot")
        return int.from_bytes(block.body[:8], "little")

    def let_go(self) -> None:
        self.devices.destroy(self.held_devices())
        self.release(self.held_root)
        self.held_root = 0

    # --- the end ---------------------------------------------------------------------------------

    def commit(self) -> None:
        """Make all changes durable at once; the data they refer to must be durable already.

        Raises:
            Full: if the metadata is used up; then abort.
            OSError: if writing fails. Whether it is committed is not known then.
        """
        for device_id, device in self._edited.items():
            self.devices_root = self.devices.set(self.devices_root, device_id, device.value())
        self.data.place()
        self.metadata.place()
        superblock = replace(self._superblock(), commit=self.commit_number)
        self.commit_number += 1
        self._write(superblock)
        self.committed = superblock
        for number, node in self._own.items():
            self._keep(number, node)
        self._own = {}
        self._written = {}
        self._edited = {}
        self.data.committed()
        self.metadata.committed()

    def _settle(self) -> None:
        """Before anything is written that an older state than the committed one may refer to."""
        if not self._settled:
            settle_superblocks(self._medium, self.committed)
            self._settled = True

    def _write(self, superblock: Superblock) -> None:
        self._settle()
        self.data.write(superblock.commit)
        self.metadata.write(superblock.commit)
        for number, node in self._own.items():
            self._written[number] = node.encode(superblock.commit)
        for number, block in sorted(self._written.items(), key=itemgetter(0)):
            write_block(self._medium, number, block)
        self._medium.sync()
        write_superblocks(self._medium, superblock)

    def abort(self) -> None:
        """Forget all changes since the last commit."""
        self._begin()

    def mark(self, *, needs_check: bool) -> None:
        """Say in the superblock whether the metadata must be checked; nothing else may have
        changed."""
        superblock = replace(self.committed, commit=self.commit_number, needs_check=needs_check)
        self.commit_number += 1
        self._settle()
        write_superblocks(self._medium, superblock)
        self._medium.sync()
        self.committed = superblock

    def _superblock(self) -> Superblock:
        return replace(
            self.committed,
            time=self.time,
            transaction_id=self.transaction_id,
            data_blocks=self.data.size,
            metadata_blocks=self.metadata.size,
            data_used=self.data.used,
            metadata_used=self.metadata.used,
            devices_root=self.devices_root,
            data_index=self.data.index_root,
            metadata_index=self.metadata.index_root,
            held_root=self.held_root,
        )
