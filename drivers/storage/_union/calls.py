"""What FUSE asks for, as operations on the merged tree and its upper layer."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from stowage.effects import effect
from stowage.linux.fuse_calls import Opened, stat_image
from stowage.linux.fuse_session import drop_set_ids

from .base import of_descriptor
from .names import Names
from .tree import UPPER, Directory, File

_ACCESS = os.O_ACCMODE
_KEPT_FLAGS = os.O_ACCMODE | os.O_SYNC | os.O_DSYNC
_ALWAYS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Union(Names):
    """All operations (:class:`stowage.linux.fuse_calls.Calls`)."""

    # --- looking ---------------------------------------

    def getattr(self, path: bytes) -> bytes:
        if path == b"/":
            return self._directory_image(self._tree.root)
        if path in self._nameless:
            file, descriptor = self._nameless[path]
            # libfuse takes one off, for its hidden name would be a name as well
            return self._nameless_image(file, os.stat(of_descriptor(descriptor)), more_links=1)
        directory, name = self._tree.parent(path)
        entry = self._tree.entry(directory, name)
        if isinstance(entry, Directory):
            return self._directory_image(entry)
        self.request.shared = entry.nameless > 0
        return entry.image or self._file_image(directory, name, entry)

    def fgetattr(self, handle: int) -> bytes:
        file = self._files[handle]
        return self._nameless_image(file, os.fstat(handle))

    def _directory_image(self, directory: Directory) -> bytes:
        image = directory.image
        if image is None:
            layers = directory.layers
            facts = os.fstat(self._tree.descriptor(directory, layers[0]))
            links = facts.st_nlink if len(layers) == 1 else 1  # as overlayfs has it
            image = directory.image = stat_image(facts, directory.inode, links)
        return image

    def _file_image(self, directory: Directory, name: bytes, file: File) -> bytes:
        facts = file.facts
        if facts is None:
            holder = self._tree.descriptor(directory, file.layer)
            facts = file.facts = os.stat(name, dir_fd=holder, follow_symlinks=False)
        links = facts.st_nlink
        if links > 1 and file.layer != UPPER:
            links = len(self._tree.visible_names(file))
        image = file.image = stat_image(facts, file.inode, links)
        return image

    def _nameless_image(self, file: File, facts: os.stat_result, *, more_links: int = 0) -> bytes:
        links = facts.st_nlink
        if file.layer != UPPER:
            links = len(self._tree.visible_names(file)) if links > 1 else not file.nameless
        return stat_image(facts, file.inode, links + more_links)

    def readlink(self, path: bytes) -> bytes:
        directory, name, file = self._file(path)
        return os.readlink(name, dir_fd=self._tree.descriptor(directory, file.layer))

    def readdir(self, path: bytes) -> Iterable[tuple[bytes, int, int]]:
        directory = self._tree.directory(path)
        yield b".", directory.inode, stat.S_IFDIR
        yield b"..", (directory.above or directory).inode, stat.S_IFDIR
        bottom = len(self._tree.root.descriptors) - (self._upper is not None)
        for name, entry in list(self._tree.entries(directory).items()):
            if isinstance(entry, tuple) and entry[1][0] != bottom:
                entry = self._tree.entry(directory, name)  # its number may be another
            if isinstance(entry, tuple):
                yield name, entry[2], entry[0]
            elif isinstance(entry, Directory):
                yield name, entry.inode, stat.S_IFDIR
            else:
                yield name, entry.inode, stat.S_IFMT(entry.facts.st_mode) if entry.facts else 0

    def statfs(self, path: bytes) -> os.statvfs_result:
        return os.fstatvfs(self._statfs_of)

    # --- open files ---------------------------------------

    def open(self, path: bytes, flags: int) -> Opened:
        writing = flags & _ACCESS != os.O_RDONLY
        if path in self._nameless:
            file, descriptor = self._nameless[path]
            if writing:
                descriptor = self._raise_nameless(path)
            return self._opened(os.open(of_descriptor(descriptor), _clean(flags)), file, flags)
        directory, name, file = self._file(path)
        if writing:
            holder = self._change().file(directory, name, file)
        else:
            holder = self._tree.descriptor(directory, file.layer)
        own_flags = _clean(flags) | _ALWAYS
        if file.layer != UPPER:
            own_flags |= os.O_NOATIME
        return self._opened(os.open(name, own_flags, dir_fd=holder), file, flags)

    def _opened(self, handle: int, file: File, flags: int) -> Opened:
        self._files[handle] = file
        if flags & os.O_APPEND:
            self._appending.add(handle)
        file.handles.add(handle)
        facts = file.facts
        if facts is None:
            facts = file.facts = os.fstat(handle)
        return Opened(handle, shared=facts.st_nlink > 1 or file.nameless > 0)

    def create(self, path: bytes, mode: int, flags: int) -> Opened:
        directory, name = self._absent(path)
        handles: list[int] = []

        def make(above: int, made: bytes) -> None:
            flags_here = _clean(flags) | _ALWAYS | os.O_CREAT | os.O_EXCL
            handle = os.open(made, flags_here, stat.S_IMODE(mode), dir_fd=above)
            handles.append(handle)
            self._give_away(directory, above, handle, mode)

        mode = self._mode(directory, stat.S_IMODE(mode) | stat.S_IFREG)
        try:
            self._change().make(directory, name, make)
        except BaseException:
            for handle in handles:
                os.close(handle)
            raise
        (handle,) = handles
        facts = os.fstat(handle)
        file = File(UPPER, facts, facts.st_ino)
        file.xattrs = self._inherited(directory)
        self._appeared(directory, name, file)
        return self._opened(handle, file, flags)

    def accessed(self, handle: int) -> None:
        file = self._files[handle]
        if file.layer == UPPER:  # of others not even the time of access changes (O_NOATIME)
            file.facts = file.image = None

    def writing(self, handle: int, offset: int, *, delayed: bool = False) -> int:
        """Return where to write: the kernel may know an old end of a file with several names."""
        file = self._files[handle]
        file.facts = file.image = None
        if handle in self._appending and not delayed:
            facts = os.fstat(handle)
            if facts.st_nlink > 1:
                return facts.st_size
        return offset

    def release(self, handle: int) -> None:
        file = self._files.pop(handle)
        self._appending.discard(handle)
        file.handles.discard(handle)
        file.image = None if file.layer == UPPER else file.image
        os.close(handle)
        if not file.handles:
            for path, (nameless, descriptor) in list(self._nameless.items()):
                if nameless is file:
                    del self._nameless[path]
                    os.close(descriptor)
            file.nameless = 0

    def fsync(self, handle: int, data_only: bool) -> None:
        if self._syncs:
            (os.fdatasync if data_only else os.fsync)(handle)

    def fsyncdir(self, path: bytes, data_only: bool) -> None:
        directory = self._tree.directory(path)
        if directory.in_upper:
            self.fsync(self._tree.descriptor(directory, UPPER), data_only)

    def ftruncate(self, handle: int, length: int) -> None:
        self.writing(handle, 0)
        if self.request.kills_suid:
            drop_set_ids(handle)
        with effect("union.truncate"):
            os.ftruncate(handle, length)


def _clean(flags: int) -> int:
    return flags & _KEPT_FLAGS | os.O_CLOEXEC
