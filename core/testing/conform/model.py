"""The reference model: what a snapshot must hold and do, in a few dictionaries.

It knows nothing of drivers, mounts and archives and shares no code with what it tests: a tree is
a mapping of paths to inodes, a child is a copy of it, a commit changes nothing. What drivers may
do differently is said by :class:`Traits`, which come from the driver's declared capabilities.

Times: an operation that sets a time makes it known; one that moves it to "now" makes it unknown
until the tree is looked at next (:meth:`ModelTree.learn`). From then on it must stay.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterable

from msgspec import Struct

from ...model import StorageCapabilities
from .operations import (
    Chmod,
    Chown,
    Create,
    Link,
    Mkdir,
    Mknod,
    Operation,
    RemoveXattr,
    Rename,
    Rmdir,
    SetXattr,
    Symlink,
    Truncate,
    Unlink,
    Utime,
    Write,
)
from .tree import KINDS, Node, Tree, canonical

_OK: frozenset[int] = frozenset()


class Traits(Struct, frozen=True):
    """What drivers may do differently, as declared; see ``StorageCapabilities``."""

    hardlinks_kept: bool = True
    dir_rename: bool = True

    @classmethod
    def of(cls, capabilities: StorageCapabilities) -> Traits:
        return cls(capabilities.hardlinks_kept, capabilities.dir_rename)


class Refused(Exception):
    """The operation must fail with one of *errnos*."""

    def __init__(self, *errnos: int) -> None:
        super().__init__(*errnos)
        self.errnos = frozenset(errnos)


class Inode:
    """What names lead to. *lower*: it comes from a parent; a file loses that when changed."""

    __slots__ = (
        "content", "gid", "kind", "lower", "mode", "mtime_ns", "rdev", "size", "target", "uid",
        "xattrs",
    )  # fmt: skip

    def __init__(self, kind: str, mode: int, gid: int = 0) -> None:
        self.kind = kind
        self.mode = mode
        self.uid = 0
        self.gid = gid
        self.mtime_ns: int | None = None
        self.size = 0
        #: What was written, by the number of the block; a block that is not there is a hole.
        self.content: dict[int, bytearray] = {}
        self.target = b""
        self.rdev = 0
        self.xattrs: dict[str, bytes] = {}
        self.lower = False

    def copy(self) -> Inode:
        made = Inode(self.kind, self.mode, self.gid)
        for name in self.__slots__:
            setattr(made, name, getattr(self, name))
        made.content = {number: bytearray(block) for number, block in self.content.items()}
        made.xattrs = dict(self.xattrs)
        return made

    # --- contents --------------------------------------------------------------------------------

    def write(self, content: bytes, offset: int) -> None:
        for index, value in enumerate(content, offset):
            block = self.content.setdefault(index // _BLOCK, bytearray(_BLOCK))
            block[index % _BLOCK] = value
        if content:
            self.size = max(self.size, offset + len(content))
            self.mtime_ns = None

    def truncate(self, size: int) -> None:
        for number in [number for number in self.content if number * _BLOCK >= size]:
            del self.content[number]
        rest = size % _BLOCK
        if rest and (last := self.content.get(size // _BLOCK)):
            last[rest:] = bytes(_BLOCK - rest)
        self.size = size
        self.mtime_ns = None

    def extents(self) -> tuple[tuple[int, bytes], ...]:
        pieces = []
        for number in sorted(self.content):
            start = number * _BLOCK
            pieces.append((start, bytes(self.content[number][: self.size - start])))
        return canonical(pieces)


_BLOCK = 4096


class ModelTree:
    """A tree that can be changed by operations; a new one is an empty root 0755 of 0:0."""

    def __init__(self, traits: Traits) -> None:
        self.traits = traits
        self.inodes: dict[bytes, Inode] = {b"": Inode("directory", 0o755)}

    # --- looking ---------------------------------------------------------------------------------

    def paths(self, *kinds: str) -> list[bytes]:
        """Return the names of those kinds (all without any), sorted; the root is among them."""
        return sorted(
            path for path, inode in self.inodes.items() if not kinds or inode.kind in kinds
        )

    def children(self, path: bytes) -> list[bytes]:
        prefix = path + b"/" if path else b""
        return [other for other in self.inodes if other and other.startswith(prefix)]

    def names_of(self, inode: Inode) -> list[bytes]:
        return sorted(path for path, other in self.inodes.items() if other is inode)

    def frozen(self) -> Tree:
        """Return it as an observed tree would be; a time not known yet is -1."""
        groups: dict[int, bytes] = {}
        seen = {}
        for path in sorted(self.inodes):
            inode = self.inodes[path]
            seen[path] = Node(
                inode.kind,
                inode.mode,
                inode.uid,
                inode.gid,
                -1 if inode.mtime_ns is None else inode.mtime_ns,
                inode.size,
                inode.extents(),
                inode.target,
                inode.rdev,
                tuple(sorted(inode.xattrs.items())),
                groups.setdefault(id(inode), path),
            )
        return seen

    def learn(self, seen: Tree) -> None:
        """Take over from an observed tree the times that are not known."""
        for path, inode in self.inodes.items():
            if inode.mtime_ns is None and path in seen:
                inode.mtime_ns = seen[path].mtime_ns

    # --- copies ----------------------------------------------------------------------------------

    def child(self) -> ModelTree:
        """Return what a new child of it holds."""
        made = self.copy()
        for inode in made.inodes.values():
            inode.lower = True
        return made

    def copy(self) -> ModelTree:
        made = ModelTree(self.traits)
        twins: dict[int, Inode] = {}
        made.inodes = {
            path: twins.setdefault(id(inode), inode.copy()) for path, inode in self.inodes.items()
        }
        return made

    # --- changing --------------------------------------------------------------------------------

    def act(self, operation: Operation) -> frozenset[int]:
        """Do *operation*; return the errnos of which it must fail with one (then nothing
        changed), or nothing if it must succeed."""
        try:
            self._act(operation)
        except Refused as refused:
            return refused.errnos
        return _OK

    def all_of(self, operations: Iterable[Operation]) -> ModelTree:
        """Do each of them; returns itself, for tests that know that they succeed."""
        for operation in operations:
            assert not self.act(operation), operation
        return self

    def _act(self, operation: Operation) -> None:
        path = operation.path
        match operation:
            case Create():
                made = self._make(path, Inode("file", operation.mode))
                made.write(operation.content, 0)
            case Mkdir():
                self._make(path, Inode("directory", operation.mode))
            case Symlink():
                self._make(path, Inode("symlink", 0o777)).target = operation.target
            case Mknod():
                kind = KINDS[stat.S_IFMT(operation.mode)]
                made = self._make(path, Inode(kind, stat.S_IMODE(operation.mode)))
                made.rdev = operation.rdev if kind.endswith("device") else 0
            case Write():
                self._file(path).write(operation.content, operation.offset)
            case Truncate():
                self._file(path).truncate(operation.size)
            case Chmod():
                if self._get(path).kind == "symlink":
                    raise Refused(errno.EOPNOTSUPP)
                self._changing(path).mode = operation.mode
            case Chown():
                self._chown(self._changing(path), operation.uid, operation.gid)
            case Utime():
                self._changing(path).mtime_ns = operation.mtime_ns
            case SetXattr() | RemoveXattr():
                self._xattr(operation)
            case Link():
                self._link(operation.source, path)
            case Rename():
                self._rename(path, operation.target)
            case Unlink():
                if self._get(path).kind == "directory":
                    raise Refused(errno.EISDIR)
                self._drop(path)
            case Rmdir():
                if self._get(path).kind != "directory":
                    raise Refused(errno.ENOTDIR)
                if self.children(path):
                    raise Refused(errno.ENOTEMPTY)
                self._drop(path)
            case _:
                raise TypeError(f"the model does not know {operation!r}")

    def _parent(self, path: bytes) -> Inode:
        directory = path.rpartition(b"/")[0]
        parts = directory.split(b"/") if directory else []
        for depth in range(len(parts)):
            inode = self.inodes.get(b"/".join(parts[: depth + 1]))
            if inode is None:
                raise Refused(errno.ENOENT)
            if inode.kind == "symlink":
                raise Refused(errno.ELOOP)
            if inode.kind != "directory":
                raise Refused(errno.ENOTDIR)
        return self.inodes[directory]

    def _get(self, path: bytes) -> Inode:
        self._parent(path)
        if path not in self.inodes:
            raise Refused(errno.ENOENT)
        return self.inodes[path]

    def _changing(self, path: bytes) -> Inode:
        """The inode behind a name, about to be changed through that name.

        Where hard links of a parent are not kept, the name gets a file of its own now.
        """
        inode = self._get(path)
        if inode.kind == "directory" or not inode.lower:
            return inode
        if not self.traits.hardlinks_kept and len(self.names_of(inode)) > 1:
            inode = self.inodes[path] = inode.copy()
        inode.lower = False
        return inode

    def _file(self, path: bytes) -> Inode:
        kind = self._get(path).kind
        if kind == "directory":
            raise Refused(errno.EISDIR)
        if kind == "symlink":
            raise Refused(errno.ELOOP)
        if kind != "file":
            raise Refused(errno.ENXIO)
        return self._changing(path)

    def _make(self, path: bytes, inode: Inode) -> Inode:
        parent = self._parent(path)
        if path in self.inodes:
            raise Refused(errno.EEXIST)
        if parent.mode & stat.S_ISGID:
            inode.gid = parent.gid
        parent.mtime_ns = None
        self.inodes[path] = inode
        return inode

    def _drop(self, path: bytes) -> None:
        self._parent(path).mtime_ns = None
        del self.inodes[path]

    @staticmethod
    def _chown(inode: Inode, uid: int, gid: int) -> None:
        """chown(2) takes the set-id bits of what is no directory; setgid only where the group
        may execute it."""
        if inode.kind not in ("directory", "symlink"):
            inode.mode &= ~stat.S_ISUID
            if inode.mode & stat.S_IXGRP:
                inode.mode &= ~stat.S_ISGID
            inode.xattrs.pop("security.capability", None)
        inode.uid, inode.gid = uid, gid

    def _xattr(self, operation: SetXattr | RemoveXattr) -> None:
        """user.* is for files and directories (xattr(7)); the others for everything."""
        kind, name = self._get(operation.path).kind, operation.name
        if name.startswith("user.") and kind not in ("file", "directory"):
            raise Refused(errno.EPERM)
        if isinstance(operation, SetXattr):
            self._changing(operation.path).xattrs[name] = operation.value
        elif name not in self._get(operation.path).xattrs:
            raise Refused(errno.ENODATA)
        else:
            del self._changing(operation.path).xattrs[name]

    def _link(self, source: bytes, path: bytes) -> None:
        self._parent(source)
        self._parent(path)
        inode = self._get(source)
        if path in self.inodes:
            raise Refused(errno.EEXIST)
        if inode.kind == "directory":
            raise Refused(errno.EPERM)
        inode = self._changing(source)
        self._parent(path).mtime_ns = None
        self.inodes[path] = inode

    def _rename(self, old: bytes, new: bytes) -> None:
        self._parent(old)
        self._parent(new)
        moved = self._get(old)
        if (new + b"/").startswith(old + b"/") and new != old:
            raise Refused(errno.EINVAL)
        if (old + b"/").startswith(new + b"/") and new != old:
            raise Refused(errno.ENOTEMPTY)
        replaced = self.inodes.get(new)
        if replaced is moved:
            return
        directory = moved.kind == "directory"
        refusals = set()
        if replaced is not None and directory and replaced.kind != "directory":
            raise Refused(errno.ENOTDIR)
        if replaced is not None and not directory and replaced.kind == "directory":
            raise Refused(errno.EISDIR)
        if replaced is not None and replaced.kind == "directory" and self.children(new):
            refusals.add(errno.ENOTEMPTY)
        if directory and moved.lower and not self.traits.dir_rename:
            refusals.add(errno.EXDEV)
        if refusals:
            raise Refused(*refusals)
        if not directory:
            self._changing(old)
        self._parent(old).mtime_ns = None
        self._parent(new).mtime_ns = None
        for path in self.children(old):
            self.inodes[new + path[len(old) :]] = self.inodes.pop(path)
        self.inodes[new] = self.inodes.pop(old)


__all__ = ["Inode", "ModelTree", "Refused", "Traits"]
