"""What all operations of the union stand on: the tree, the upper layer, what has lost its name."""

from __future__ import annotations

import errno
import os

from stowage.effects import effect
from stowage.linux.fuse_calls import Request

from .tree import UPPER, Directory, File, Tree, failure, proc_path
from .upper import Upper


class Operations:
    """The state; a view has no *upper* and refuses every change with EROFS."""

    request: Request

    def __init__(self, tree: Tree, upper: Upper | None, *, syncs: bool = True) -> None:
        self._tree = tree
        self._upper = upper
        self._syncs = syncs
        self._marks = tree.marks
        self._files: dict[int, File] = {}
        self._appending: set[int] = set()
        self._nameless: dict[bytes, tuple[File, int]] = {}
        self._statfs_of = tree.root.descriptors[tree.root.layers[0]]

    def _change(self) -> Upper:
        if self._upper is None:
            raise failure(errno.EROFS)
        return self._upper

    def _file(self, path: bytes) -> tuple[Directory, bytes, File]:
        directory, name = self._tree.parent(path)
        entry = self._tree.entry(directory, name)
        if isinstance(entry, Directory):
            raise failure(errno.EISDIR)
        return directory, name, entry

    @staticmethod
    def _touched(file: File) -> None:
        file.image = None
        if file.layer == UPPER:
            file.facts = None

    def _raise_nameless(self, path: bytes) -> int:
        """Bring a file that has lost its name to the upper layer; return its descriptor."""
        file, descriptor = self._nameless[path]
        upper = self._change()
        if file.layer == UPPER:
            return descriptor
        names = self._tree.visible_names(file)
        if names:
            directory, name = self._tree.parent(names[0])
            above = upper.file(directory, name, file)
            fresh = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
        else:
            fresh = upper.copy_apart(descriptor, file)
        for other, (nameless, old) in list(self._nameless.items()):
            if nameless is file:
                with effect("union.replace_descriptor"):
                    os.dup2(fresh, old, inheritable=False)
                self._nameless[other] = (file, old)
        os.close(fresh)
        return descriptor

    def _where(self, directory: Directory) -> int:
        return self._tree.descriptor(directory, directory.layers[0])

    def _place(self, path: bytes, *, change: bool) -> tuple[bytes, Directory | File, bool]:
        """Return a path of /proc to what is at *path*, what it is, and whether to follow it.

        With *change* it is in the upper layer then.
        """
        if path in self._nameless:
            file, descriptor = self._nameless[path]
            if change:
                descriptor = self._raise_nameless(path)
            return of_descriptor(descriptor), file, True
        if path == b"/":
            entry: Directory | File = self._tree.root
        else:
            directory, name = self._tree.parent(path)
            entry = self._tree.entry(directory, name)
        if isinstance(entry, Directory):
            if not change:
                return of_descriptor(self._where(entry)), entry, True
            return of_descriptor(self._change().directory(entry)), entry, True
        if change:
            return proc_path(self._change().file(directory, name, entry), name), entry, False
        return proc_path(self._tree.descriptor(directory, entry.layer), name), entry, False

    def _forget(self, entry: Directory | File) -> None:
        entry.image = None
        if isinstance(entry, File):
            entry.facts = None


def of_descriptor(descriptor: int) -> bytes:
    """Return a path of /proc that leads to what a descriptor refers to."""
    return b"/proc/self/fd/%d" % descriptor
