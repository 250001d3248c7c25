"""Reading the trees of btrfs: items by key and by the transaction that wrote them.

``BTRFS_IOC_TREE_SEARCH_V2`` passes over every block that is older than what is asked for, so the
cost is that of what changed, not of what there is. Layouts: linux/btrfs_tree.h.
"""

from __future__ import annotations

import fcntl
import struct
from collections.abc import Iterator
from typing import NamedTuple

from msgspec import Struct

INODE_ITEM, INODE_REF, INODE_EXTREF = 1, 12, 13
DIR_INDEX, EXTENT_DATA = 96, 108
ROOT_ITEM, ROOT_REF, EXTENT_ITEM = 132, 156, 168

THIS_TREE, ROOT_TREE, EXTENT_TREE = 0, 1, 2
TOP_INODE = 256
"""The inode number of every subvolume's own root directory."""

_MOST = (1 << 64) - 1
_KEY = struct.Struct("=QQQQQQQLLLL32x")
_SIZE = struct.Struct("=Q")
_HEADER = struct.Struct("=QQQLL")
_BUFFER_BYTES = 64 << 10
_SEARCH = 3 << 30 | (_KEY.size + _SIZE.size) << 16 | 0x94 << 8 | 17

_INODE = struct.Struct("=QQQQQLLLL")
_REF = struct.Struct("=QH")
_EXTREF = struct.Struct("=QQH")
_DIR = struct.Struct("=QBQQHHB")
_EXTENT = struct.Struct("=QQBBHB")
_EXTENT_PLACE = struct.Struct("=QQ")
_EXTENT_OWN = struct.Struct("=QQ")
_INLINE = 0


class Item(NamedTuple):
    """One item of a tree: its key and its content."""

    object: int
    type: int
    offset: int
    content: memoryview


class Inode(Struct, frozen=True):
    """*created* and *changed* are transactions."""

    created: int
    changed: int
    links: int
    mode: int


class Entry(Struct, frozen=True):
    """A name in a directory: the number of the inode (or subvolume), and the kind of its key."""

    name: bytes
    number: int
    key_type: int
    is_directory: bool


class Extent(Struct, frozen=True):
    """Some of a file's contents: where on disk (0: a hole), or how many bytes inline."""

    written: int
    place: int = 0
    disk_bytes: int = 0
    inline_bytes: int = 0


def search(
    directory: int,
    *,
    tree: int = THIS_TREE,
    objects: tuple[int, int] = (0, _MOST),
    types: tuple[int, int] = (0, 255),
    offsets: tuple[int, int] = (0, _MOST),
    since: int = 0,
) -> Iterator[Item]:
    """Yield the items of a tree between two keys, in blocks that were written in or after the
    transaction *since*.

    Raises:
        OSError: EPERM without CAP_SYS_ADMIN.
    """
    buffer = bytearray(_KEY.size + _SIZE.size + _BUFFER_BYTES)
    low = (objects[0], types[0], offsets[0])
    high = (objects[1], types[1], offsets[1])
    while low <= high:
        _KEY.pack_into(
            buffer, 0, tree, low[0], high[0], low[2], high[2], since, _MOST,
            low[1], high[1], 1 << 20, 0,
        )  # fmt: skip
        _SIZE.pack_into(buffer, _KEY.size, _BUFFER_BYTES)
        fcntl.ioctl(directory, _SEARCH, buffer)
        count = _KEY.unpack_from(buffer)[9]
        if not count:
            return
        answer = memoryview(bytes(buffer))
        place = _KEY.size + _SIZE.size
        for _ in range(count):
            _, number, offset, kind, length = _HEADER.unpack_from(answer, place)
            place += _HEADER.size
            if types[0] <= kind <= types[1]:
                yield Item(number, kind, offset, answer[place : place + length])
            place += length
            low = (number, kind, offset)
        low = _next(*low)


def _next(number: int, kind: int, offset: int) -> tuple[int, int, int]:
    if offset < _MOST:
        return number, kind, offset + 1
    return (number, kind + 1, 0) if kind < 255 else (number + 1, 0, 0)


def inode(item: Item) -> Inode:
    """Read an INODE_ITEM."""
    created, changed, _, _, _, links, _, _, mode = _INODE.unpack_from(item.content)
    return Inode(created, changed, links, mode)


def extent(item: Item) -> Extent:
    """Read an EXTENT_DATA item."""
    written, _, _, _, _, kind = _EXTENT.unpack_from(item.content)
    if kind == _INLINE:
        return Extent(written, inline_bytes=len(item.content) - _EXTENT.size)
    place, disk_bytes = _EXTENT_PLACE.unpack_from(item.content, _EXTENT.size)
    return Extent(written, place, disk_bytes)


def entries(directory: int, number: int) -> Iterator[Entry]:
    """Yield the names in the directory with that inode number."""
    for item in search(directory, objects=(number, number), types=(DIR_INDEX, DIR_INDEX)):
        target, key_type, _, _, _, length, kind = _DIR.unpack_from(item.content)
        name = bytes(item.content[_DIR.size : _DIR.size + length])
        yield Entry(name, target, key_type, kind == 2)


def links(directory: int, number: int) -> Iterator[tuple[int, bytes]]:
    """Yield each name of an inode, with the number of the directory that it stands in."""
    for item in search(directory, objects=(number, number), types=(INODE_REF, INODE_EXTREF)):
        place = 0
        while place < len(item.content):
            if item.type == INODE_REF:
                (_, length), above = _REF.unpack_from(item.content, place), item.offset
                place += _REF.size
            else:
                above, _, length = _EXTREF.unpack_from(item.content, place)
                place += _EXTREF.size
            yield above, bytes(item.content[place : place + length])
            place += length


def allocated(directory: int, place: int, disk_bytes: int) -> int:
    """Return in which transaction the extent at *place* was allocated; 0 if it is gone."""
    for item in search(
        directory,
        tree=EXTENT_TREE,
        objects=(place, place),
        types=(EXTENT_ITEM, EXTENT_ITEM),
        offsets=(disk_bytes, disk_bytes),
    ):
        return int(_EXTENT_OWN.unpack_from(item.content)[1])
    return 0


def subvolumes_below(directory: int, number: int) -> Iterator[tuple[int, bytes]]:
    """Yield what subvolumes stand in the subvolume *number*: directory's inode number and name."""
    for item in search(
        directory, tree=ROOT_TREE, objects=(number, number), types=(ROOT_REF, ROOT_REF)
    ):
        above, _, length = _EXTREF.unpack_from(item.content)
        yield above, bytes(item.content[_EXTREF.size : _EXTREF.size + length])
