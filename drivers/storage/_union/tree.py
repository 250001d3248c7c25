"""What is where: the merged tree, kept in memory, for nobody else changes the layers.

A directory is listed once in each of its layers; from then on looking up a name, whether it is
there or not, is a look into a dictionary. Layer 0 is the one that is written (absent in a view),
the others never change. Descriptors of directories are opened one name beneath the next, from the
layers' roots, and never follow a symlink.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence

from .marks import Kind, Marks

UPPER = 0
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_DESCRIPTORS = 2000

#: An entry that nobody has looked at: its kind, its layers and its inode in the first of them.
Unseen = tuple[Kind, tuple[int, ...], int]


def failure(number: int) -> OSError:
    """Return the OSError for an errno."""
    return OSError(number, os.strerror(number))


class File:
    """Anything but a directory: one inode, known under one name or several."""

    __slots__ = (
        "facts", "handles", "image", "inode", "layer", "nameless", "real_inode", "xattrs",
    )  # fmt: skip

    def __init__(self, layer: int, facts: os.stat_result, inode: int) -> None:
        self.layer = layer
        self.inode = inode
        self.real_inode = facts.st_ino
        self.facts: os.stat_result | None = facts
        self.image: bytes | None = None
        self.xattrs: frozenset[bytes] | None = None
        self.handles: set[int] = set()
        self.nameless = 0
        """How many of its names are gone while it was open under them."""


class Directory:
    """A directory: *layers* are those that show in it, nearest first."""

    __slots__ = (
        "above", "below", "descriptors", "entries", "image", "inode", "layers", "name",
        "whiteouts", "xattrs",
    )  # fmt: skip

    def __init__(
        self, above: Directory | None, name: bytes, layers: tuple[int, ...], inode: int
    ) -> None:
        self.above = above
        self.name = name
        self.layers = layers
        self.inode = inode
        self.image: bytes | None = None
        self.xattrs: frozenset[bytes] | None = None
        self.descriptors: dict[int, int] = {}
        self.entries: dict[bytes, Entry] | None = None
        self.below: set[bytes] = set()
        """What the layers below the upper one show, whiteouts of the upper one aside."""
        self.whiteouts: set[bytes] = set()

    @property
    def in_upper(self) -> bool:
        return self.layers[0] == UPPER


Entry = Directory | File | Unseen


class Tree:
    """The merged tree of *lowers* (descriptors, nearest first) beneath *upper*."""

    def __init__(self, upper: int | None, lowers: Sequence[int], marks: Marks) -> None:
        self.marks = marks
        self._origin = (marks.prefix + b"stowage.inode").decode()
        self._bottom = len(lowers)
        self._linked: dict[tuple[int, int], File] = {}
        self._names_by_inode: dict[int, dict[int, list[bytes]]] = {}
        self._opened: dict[tuple[Directory, int], None] = {}
        roots = dict(enumerate(lowers, 1))
        if upper is not None:
            roots[UPPER] = upper
        layers = tuple(sorted(roots))
        self.root = Directory(None, b"", layers, 0)
        self.root.descriptors = roots
        self.root.layers = self._showing(self.root, layers)
        # children of what lies on another file system would have equal numbers; one is enough
        self.root.inode = os.fstat(roots[self.root.layers[-1]]).st_ino
        self._by_path: dict[bytes, Directory] = {b"": self.root}

    # --- paths ---------------------------------------

    def parent(self, path: bytes) -> tuple[Directory, bytes]:
        """Return the directory that a path lies in, and its name there."""
        above, _, name = path.rpartition(b"/")
        known = self._by_path.get(above)
        return known or self.directory(above), name

    def directory(self, path: bytes) -> Directory:
        """Return the directory at a path (``b"/a"``; ``b""`` or ``b"/"`` is the root)."""
        path = path.rstrip(b"/")
        known = self._by_path.get(path)
        if known is None:
            above, name = self.parent(path)
            entry = self.entry(above, name)
            if not isinstance(entry, Directory):
                raise failure(errno.ENOTDIR)
            known = self._by_path[path] = entry
        return known

    def forget_paths(self) -> None:
        """Directories were moved or removed: look paths up again."""
        self._by_path = {b"": self.root}

    def path_of(self, directory: Directory) -> bytes:
        """Return where a directory is."""
        names = []
        at: Directory | None = directory
        while at is not None and at.above is not None:
            names.append(at.name)
            at = at.above
        return b"".join(b"/" + name for name in reversed(names))

    # --- entries ---------------------------------------

    def entries(self, directory: Directory) -> dict[bytes, Entry]:
        """Return what is in a directory, by name."""
        if directory.entries is None:
            self._list(directory)
            assert directory.entries is not None
        return directory.entries

    def entry(self, directory: Directory, name: bytes) -> Directory | File:
        """Return what is called *name* in a directory; ENOENT if nothing is."""
        entries = directory.entries
        if entries is None:
            entries = self.entries(directory)
        found = entries.get(name)
        if found is None:
            raise failure(errno.ENOENT)
        if type(found) is tuple:
            found = entries[name] = self._look_at(directory, name, found)
        return found  # type: ignore[return-value]  # no tuple any more

    def peek(self, path: bytes) -> Directory | File | None:
        """Return what is at a path; None if nothing is."""
        try:
            return self.entry(*self.parent(path))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return None
            raise

    def _list(self, directory: Directory) -> None:
        below: dict[bytes, Entry] = {}
        closed: set[bytes] = set()
        for layer in directory.layers:
            if layer != UPPER:
                self._list_lower(directory, layer, below, closed)
        if not directory.in_upper:
            directory.entries = below
            return
        directory.below = set(below)
        listing = self.marks.sort(self.descriptor(directory, UPPER))
        directory.whiteouts = set(listing.whiteouts)
        for name in listing.whiteouts:
            below.pop(name, None)
        for name, kind, inode in listing.names:
            under = below.get(name)
            layers: tuple[int, ...] = (UPPER,)
            if kind == stat.S_IFDIR and type(under) is tuple and under[0] == stat.S_IFDIR:
                layers = (UPPER, *under[1])
            below[name] = (kind, layers, inode)
        directory.entries = below

    def _list_lower(
        self, directory: Directory, layer: int, below: dict[bytes, Entry], closed: set[bytes]
    ) -> None:
        """Add what a layer shows beneath what is there already; of *closed* names nothing more."""
        listing = self.marks.sort(self.descriptor(directory, layer))
        alone = (layer,)
        for name, kind, inode in listing.names:
            known = below.get(name)
            if known is None:
                if name not in closed:
                    below[name] = (kind, alone, inode)
            elif name not in closed and type(known) is tuple and known[0] == stat.S_IFDIR:
                if kind == stat.S_IFDIR:
                    below[name] = (kind, (*known[1], layer), known[2])
                else:
                    closed.add(name)
        closed.update(listing.whiteouts)

    def _look_at(self, directory: Directory, name: bytes, unseen: Unseen) -> Directory | File:
        kind, layers, inode = unseen
        if kind == stat.S_IFDIR:
            made = Directory(directory, name, layers, inode)
            made.layers = self._showing(made, layers)
            if layers[0] != self._bottom:
                made.inode = self._origin_of(self.descriptor(made, layers[0]), inode)
            return made
        layer = layers[0]
        holder = self.descriptor(directory, layer)
        facts = os.stat(name, dir_fd=holder, follow_symlinks=False)
        if facts.st_nlink > 1:
            known = self._linked.get((layer, facts.st_ino))
            if known is not None:
                return known
        if layer != self._bottom:
            inode = self._origin_of(proc_path(holder, name), facts.st_ino)
        made_file = File(layer, facts, inode)
        if facts.st_nlink > 1:
            self._linked[layer, facts.st_ino] = made_file
        return made_file

    def _showing(self, directory: Directory, layers: tuple[int, ...]) -> tuple[int, ...]:
        """Return the layers down to the first in which the directory is opaque."""
        for count, layer in enumerate(layers[:-1], 1):
            if self.marks.is_opaque(self.descriptor(directory, layer)):
                return layers[:count]
        return layers

    # --- descriptors ---------------------------------------

    def descriptor(self, directory: Directory, layer: int) -> int:
        """Return a descriptor of a directory in one of its layers; it stays the tree's."""
        known = directory.descriptors.get(layer)
        if known is not None:
            return known
        assert directory.above is not None  # the roots' are there
        opened = os.open(directory.name, _DIRECTORY, dir_fd=self.descriptor(directory.above, layer))
        self.keep(directory, layer, opened)
        return opened

    def keep(self, directory: Directory, layer: int, descriptor: int) -> None:
        """Take over a descriptor of a directory in a layer; old ones are closed beyond a limit."""
        directory.descriptors[layer] = descriptor
        self._opened[directory, layer] = None
        while len(self._opened) > _MAX_DESCRIPTORS:
            oldest = next(iter(self._opened))
            del self._opened[oldest]
            closed = oldest[0].descriptors.pop(oldest[1], None)
            if closed is not None:
                os.close(closed)

    def drop(self, directory: Directory) -> None:
        """Close what is open of a directory that is gone."""
        for layer, descriptor in directory.descriptors.items():
            self._opened.pop((directory, layer), None)
            os.close(descriptor)
        directory.descriptors.clear()

    # --- inodes ---------------------------------------

    def _origin_of(self, where: int | bytes, inode: int) -> int:
        """Return the number that an inode shows: what it was copied up from, if it was."""
        try:
            value = os.getxattr(where, self._origin, follow_symlinks=isinstance(where, int))
        except OSError as error:
            if error.errno in (errno.ENODATA, errno.EOPNOTSUPP, errno.EPERM):
                return inode
            raise
        origin, _, own = value.partition(b" ")
        return int(origin) if own == b"%d" % inode else inode  # or the layer was copied

    def origin_mark(self, shown: int, own: int) -> tuple[str, bytes]:
        """Return the extended attribute that keeps an inode's number over copy-up and remount."""
        return self._origin, b"%d %d" % (shown, own)

    def link(self, file: File, real_inode: int) -> None:
        """A file has several names in the upper layer now: who meets one meets this file."""
        self._linked[UPPER, real_inode] = file

    # --- hard links of lower layers ---------------------------------------

    def visible_names(self, file: File) -> list[bytes]:
        """Return the paths under which a file of a lower layer shows."""
        layer = file.layer
        if layer not in self._names_by_inode:
            self._names_by_inode[layer] = dict(_linked_names(self.root.descriptors[layer]))
        names = self._names_by_inode[layer].get(file.real_inode, ())
        return [path for path in names if self.peek(path) is file]


def proc_path(directory: int, name: bytes) -> bytes:
    """Return a path for calls that take no directory's descriptor; they must not follow *name*."""
    return b"/proc/self/fd/%d/%s" % (directory, name)


def _linked_names(root: int) -> Iterator[tuple[int, list[bytes]]]:
    """Yield the inodes of a layer that have several names, with their paths."""
    found: dict[int, list[bytes]] = {}
    todo = [b""]
    while todo:
        path = todo.pop()
        directory = os.open(b"." + path, _DIRECTORY, dir_fd=root)
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    here = path + b"/" + os.fsencode(entry.name)
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(here)
                    elif entry.stat(follow_symlinks=False).st_nlink > 1:
                        found.setdefault(entry.inode(), []).append(here)
        finally:
            os.close(directory)
    yield from found.items()
