"""What a snapshot changed, by transaction: the paths, and the blocks that it allocated.

Every block and every inode of btrfs carries the number of the transaction that wrote it, and a
snapshot keeps the inode numbers of what it is a snapshot of. So only inodes written since the
snapshot was made are looked at, and in a directory among them only the names that lead to another
inode than in the parent.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator

from stowage import Change, ChangeKind, Usage

from . import _tree as tree
from ._ioctl import directory_path


class ChangedPaths:
    """Finds the paths that may differ between the snapshot *child* and its *parent*.

    Both are descriptors of their roots; *since* is the transaction in which the snapshot was
    made, and nothing may be pending. The parent is read-only, and neither has a subvolume in it.
    """

    def __init__(self, child: int, parent: int, since: int) -> None:
        self._child = child
        self._parent = parent
        self._since = since
        self._path_by_directory: dict[int, bytes | None] = {tree.TOP_INODE: b""}
        self._found: set[bytes] = set()
        self._linked: set[int] = set()
        self._walked: set[tuple[int, int]] = set()

    def find(self) -> list[Change]:
        """Return the candidates; each is said to be MODIFIED, for the core looks at it anyway.

        Raises:
            OSError: ENAMETOOLONG if a path is too long to be told.
        """
        for number, found in self._written():
            if stat.S_ISDIR(found.mode):
                path = self._directory(number)
                if path is not None:
                    self._found.add(path)
                    self._compare(path, number)
            else:
                self._add_links(number)
        for number in sorted(self._linked):
            self._add_links(number)
        return [Change(b"/" + path, ChangeKind.MODIFIED) for path in sorted(self._found) if path]

    def _written(self) -> Iterator[tuple[int, tree.Inode]]:
        types = (tree.INODE_ITEM, tree.INODE_ITEM)
        for item in tree.search(self._child, types=types, since=self._since + 1):
            found = tree.inode(item)
            if item.object >= tree.TOP_INODE and found.changed > self._since:
                yield item.object, found

    def _compare(self, path: bytes, number: int) -> None:
        now = {entry.name: entry for entry in tree.entries(self._child, number)}
        before = {entry.name: entry for entry in tree.entries(self._parent, number)}
        for name in now.keys() | before.keys():
            one, other = now.get(name), before.get(name)
            if one != other:
                below = _join(path, name)
                self._found.add(below)
                if one is not None and one.is_directory:
                    self._add_tree(self._child, below, one.number, linked=True)
                if other is not None and other.is_directory and one is not None:
                    self._add_tree(self._parent, below, other.number)

    def _add_tree(self, root: int, path: bytes, number: int, *, linked: bool = False) -> None:
        """Add all beneath a directory: what was moved with it kept its own inode unwritten.

        With *linked*, all names of files with several are to be looked at, wherever they stand:
        which of them belong together is a change.
        """
        todo = [(path, number)]
        while todo:
            above, directory = todo.pop()
            if (root, directory) in self._walked:
                continue
            self._walked.add((root, directory))
            for entry in tree.entries(root, directory):
                below = _join(above, entry.name)
                self._found.add(below)
                if entry.is_directory:
                    todo.append((below, entry.number))
                elif linked:
                    self._linked.add(entry.number)

    def _add_links(self, number: int) -> None:
        for above, name in tree.links(self._child, number):
            path = self._directory(above)
            if path is not None:
                self._found.add(_join(path, name))

    def _directory(self, number: int) -> bytes | None:
        """Return a directory's path; None if it is deleted."""
        if number not in self._path_by_directory:
            try:
                path: bytes | None = directory_path(self._child, number)
            except FileNotFoundError:
                path = None
            self._path_by_directory[number] = path
        return self._path_by_directory[number]


def allocated_since(root: int, since: int) -> Usage:
    """Return what a snapshot allocated after the transaction *since*: blocks and inodes.

    Blocks that it shares with what it was made of are not counted, whatever names lead to them;
    an extent counts once, as large as it lies on disk (compressed, or kept whole by one block).
    """
    size_bytes = inodes = 0
    seen: set[int] = set()
    types = (tree.INODE_ITEM, tree.EXTENT_DATA)
    for item in tree.search(root, types=types, since=since + 1):
        if item.object < tree.TOP_INODE:
            continue
        if item.type == tree.INODE_ITEM:
            inodes += tree.inode(item).created > since
        elif item.type == tree.EXTENT_DATA:
            extent = tree.extent(item)
            if extent.written <= since:
                continue
            size_bytes += extent.inline_bytes
            if extent.place and extent.place not in seen:
                seen.add(extent.place)
                if tree.allocated(root, extent.place, extent.disk_bytes) > since:
                    size_bytes += extent.disk_bytes
    return Usage(size_bytes, inodes)


def too_long(error: OSError) -> bool:
    """Whether a path could not be told because of its length."""
    return error.errno == errno.ENAMETOOLONG


def _join(above: bytes, name: bytes) -> bytes:
    return above + b"/" + name if above else name
