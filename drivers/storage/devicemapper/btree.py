"""A persistent B-tree: changing one leaves every earlier version of it as it was.

Versions share their nodes. A node that the running transaction did not make is never changed: a
copy of it takes its place, and so of all nodes above it up to a new root (Rodeh, "B-trees,
shadowing, and clones", 2008). Each node is counted, once for each node or user that refers to
it; the copy of a node that stays in use elsewhere makes one more reference to everything that it
refers to. So a snapshot of a tree is one more reference to its root.

Keys are 64-bit numbers, values fixed numbers of them. Of a branch, key *i* is at most the
smallest key below child *i*.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from .blocks import BODY_BYTES, Block, BlockKind, Damaged

WORD_BYTES = 8
Value = tuple[int, ...]


class Node:
    """A node in memory: ``keys[i]`` goes with ``values[i * width : (i + 1) * width]``.

    In a branch the values are the numbers of the children, so its width is 1.
    """

    __slots__ = ("keys", "leaf", "values", "width")

    def __init__(self, leaf: bool, width: int, keys: array[int], values: array[int]) -> None:
        self.leaf = leaf
        self.width = width
        self.keys = keys
        self.values = values

    @classmethod
    def empty(cls, width: int) -> Node:
        return cls(True, width, array("Q"), array("Q"))

    @classmethod
    def decode(cls, number: int, block: Block, width: int) -> Node:
        """Read a node of a tree whose values are *width* numbers.

        Raises:
            Damaged: if *block* is no such node.
        """
        if block.kind not in (BlockKind.LEAF, BlockKind.BRANCH):
            raise Damaged(number, f"is {block.kind.name.lower()}, not a node")
        leaf = block.kind is BlockKind.LEAF
        width = width if leaf else 1
        middle = block.entries * WORD_BYTES
        end = middle * (1 + width)
        if end > BODY_BYTES:
            raise Damaged(number, f"{block.entries} entries do not fit")
        keys, values = array("Q"), array("Q")
        keys.frombytes(block.body[:middle])
        values.frombytes(block.body[middle:end])
        return cls(leaf, width, keys, values)

    def encode(self, commit: int) -> Block:
        kind = BlockKind.LEAF if self.leaf else BlockKind.BRANCH
        return Block(kind, len(self.keys), commit, self.keys.tobytes() + self.values.tobytes())

    def copy(self) -> Node:
        return Node(self.leaf, self.width, self.keys[:], self.values[:])

    @property
    def capacity(self) -> int:
        return BODY_BYTES // WORD_BYTES // (1 + self.width)

    def value(self, index: int) -> Value:
        return tuple(self.values[index * self.width : (index + 1) * self.width])

    def put(self, index: int, value: Sequence[int]) -> None:
        self.values[index * self.width : (index + 1) * self.width] = array("Q", value)

    def insert(self, index: int, key: int, value: Sequence[int]) -> None:
        self.keys.insert(index, key)
        self.values[index * self.width : index * self.width] = array("Q", value)

    def pop(self, index: int) -> None:
        del self.keys[index]
        del self.values[index * self.width : (index + 1) * self.width]

    def split(self, index: int) -> Node:
        """Cut off everything from *index* on and return it as a node."""
        cut = index * self.width
        right = Node(self.leaf, self.width, self.keys[index:], self.values[cut:])
        del self.keys[index:]
        del self.values[cut:]
        return right

    def extend(self, right: Node) -> None:
        self.keys.extend(right.keys)
        self.values.extend(right.values)


class NodeStore(Protocol):
    """Where nodes live; see :class:`~.transaction.Transaction`."""

    def node(self, number: int, width: int) -> Node: ...
    def add(self, node: Node) -> int: ...
    def own(self, number: int) -> bool:
        """Whether the running transaction made that node, and nobody shares it."""
        ...

    def retain(self, number: int) -> None: ...
    def release(self, number: int) -> int:
        """Drop one reference to a block; return how many are left."""
        ...


class References(Protocol):
    """What a tree's values refer to, counted."""

    def retain(self, value: Value) -> None: ...
    def release(self, value: Value) -> None: ...


class BTree:
    """The operations on trees of one sort. Trees are told apart by their roots: what changes a
    tree consumes the reference to the old root and returns the new one."""

    def __init__(self, store: NodeStore, width: int, references: References | None = None) -> None:
        self._store = store
        self._width = width
        self._references = references

    def create(self) -> int:
        """Return the root of a new, empty tree."""
        return self._store.add(Node.empty(self._width))

    def get(self, root: int, key: int) -> Value | None:
        """Return the value of *key*, or None."""
        node = self._node(root)
        while not node.leaf:
            node = self._node(node.values[_child_of(node, key)])
        index = bisect_left(node.keys, key)
        found = index < len(node.keys) and node.keys[index] == key
        return node.value(index) if found else None

    def items(self, root: int, start: int = 0, stop: int = 1 << 64) -> Iterator[tuple[int, Value]]:
        """Walk the entries with *start* <= key < *stop* in order; the tree must not change."""
        node = self._node(root)
        if node.leaf:
            for index in range(bisect_left(node.keys, start), bisect_left(node.keys, stop)):
                yield node.keys[index], node.value(index)
            return
        for index in range(_child_of(node, start), len(node.keys)):
            if node.keys[index] >= stop:
                return
            yield from self.items(node.values[index], start, stop)

    def last(self, root: int) -> int | None:
        """Return the largest key, or None."""
        node = self._node(root)
        while not node.leaf:
            node = self._node(node.values[-1])
        return node.keys[-1] if node.keys else None

    def set(self, root: int, key: int, value: Sequence[int]) -> int:
        """Give *key* a *value*; return the root.

        The tree takes over the caller's reference to *value*, and the caller that to the value
        which *key* had.
        """
        root, right = self._set(root, key, value)
        if right is None:
            return root
        keys = array("Q", [self._node(root).keys[0], self._node(right).keys[0]])
        return self._store.add(Node(False, 1, keys, array("Q", [root, right])))

    def remove(self, root: int, key: int) -> int:
        """Take *key*, which must be there, away; return the root.

        The caller takes over the reference to its value.
        """
        root = self._remove(root, key)
        node = self._node(root)
        while not node.leaf and len(node.keys) == 1:
            (child,) = node.values
            self._store.release(root)
            root, node = child, self._node(child)
        if not node.leaf and not node.keys:
            self._store.release(root)
            return self.create()
        return root

    def destroy(self, root: int) -> None:
        """Drop the reference to a tree, and with the last one all that it refers to."""
        node = self._node(root)
        if self._store.release(root):
            return
        if node.leaf:
            self._each_value(node, "release")
        else:
            for child in node.values:
                self.destroy(child)

    # --- on the way down -------------------------------------------------------------------------

    def _node(self, number: int) -> Node:
        return self._store.node(number, self._width)

    def _shadow(self, number: int) -> tuple[int, Node]:
        """Return a node that may be changed in the place of *number*, and its number."""
        node = self._node(number)
        if self._store.own(number):
            return number, node
        copy = node.copy()
        made = self._store.add(copy)
        if self._store.release(number):
            if node.leaf:
                self._each_value(copy, "retain")
            else:
                for child in copy.values:
                    self._store.retain(child)
        return made, copy

    def _each_value(self, leaf: Node, verb: str) -> None:
        if self._references is not None:
            act: Callable[[Value], None] = getattr(self._references, verb)
            for index in range(len(leaf.keys)):
                act(leaf.value(index))

    def _set(self, number: int, key: int, value: Sequence[int]) -> tuple[int, int | None]:
        """Return the numbers of the changed node and, if it had to be split, of its right half."""
        number, node = self._shadow(number)
        if node.leaf:
            index = _set_in_leaf(node, key, value)
        else:
            index = _child_of(node, key)
            node.keys[index] = min(node.keys[index], key)
            child, right = self._set(node.values[index], key, value)
            node.values[index] = child
            if right is not None:
                index += 1
                node.insert(index, self._node(right).keys[0], (right,))
        if len(node.keys) <= node.capacity:
            return number, None
        # Who writes in order fills each node, and starts a new one.
        at_end = index == len(node.keys) - 1
        cut = index if at_end else len(node.keys) // 2
        return number, self._store.add(node.split(cut))

    def _remove(self, number: int, key: int) -> int:
        number, node = self._shadow(number)
        if node.leaf:
            node.pop(bisect_left(node.keys, key))
        else:
            index = _child_of(node, key)
            node.values[index] = self._remove(node.values[index], key)
            self._mend(node, index)
        return number

    def _mend(self, parent: Node, index: int) -> None:
        """Drop child *index* if it is empty, or join it with a neighbour if both fit in one."""
        child = self._node(parent.values[index])
        if not child.keys:
            self._store.release(parent.values[index])
            parent.pop(index)
            return
        if len(child.keys) * 3 > child.capacity:
            return
        for left in (index - 1, index):
            if 0 <= left < len(parent.keys) - 1 and self._join(parent, left):
                return

    def _join(self, parent: Node, index: int) -> bool:
        left, right = (self._node(parent.values[at]) for at in (index, index + 1))
        if len(left.keys) + len(right.keys) > left.capacity:
            return False
        parent.values[index], left = self._shadow(parent.values[index])
        emptied, right = self._shadow(parent.values[index + 1])
        left.extend(right)
        self._store.release(emptied)
        parent.pop(index + 1)
        return True


def _set_in_leaf(leaf: Node, key: int, value: Sequence[int]) -> int:
    index = bisect_left(leaf.keys, key)
    if index < len(leaf.keys) and leaf.keys[index] == key:
        leaf.put(index, value)
    else:
        leaf.insert(index, key, value)
    return index


def _child_of(branch: Node, key: int) -> int:
    return max(0, bisect_right(branch.keys, key) - 1)
