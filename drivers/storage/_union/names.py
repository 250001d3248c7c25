"""Operations on names: making, linking, removing and renaming what they stand for."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable

from stowage.effects import effect

from .attributes import Attributes
from .tree import UPPER, Directory, File, failure
from .upper import inherited_owner

_SET_IDS = stat.S_ISUID | stat.S_ISGID
#: libfuse renames what is open to such a name instead of removing it.
_HIDDEN = re.compile(rb"\.fuse_hidden[0-9a-f]{16}")


class Names(Attributes):
    """See the module's docstring."""

    def _absent(self, path: bytes) -> tuple[Directory, bytes]:
        directory, name = self._tree.parent(path)
        if self._marks.is_reserved(name):
            raise failure(errno.EPERM)
        if len(name) > self._marks.longest_name:
            raise failure(errno.ENAMETOOLONG)
        if name in self._tree.entries(directory):
            raise failure(errno.EEXIST)
        self._change()
        return directory, name

    def _mode(self, directory: Directory, mode: int) -> int:
        """Apply the caller's umask, unless a default ACL is in its place (umask(2))."""
        names = self._xattr_names(directory, lambda: self._where(directory))
        if b"system.posix_acl_default" in names:
            return mode
        return mode & ~self.request.umask

    @staticmethod
    def _inherited(directory: Directory) -> frozenset[bytes] | None:
        """Return the names of extended attributes of what is new there, if they are known: none
        where the directory has none that could be inherited (ACL, security label)."""
        return frozenset() if directory.xattrs == frozenset() else None

    def _give_away(self, directory: Directory, above: int, made: int | bytes, mode: int) -> None:
        """Give what was just made to the caller, as the directory's setgid bit says."""
        facts = os.fstat(self._tree.descriptor(directory, UPPER))
        mode, gid = inherited_owner(facts, mode, self.request.gid)
        uid = self.request.uid
        with effect("union.give_away"):
            if isinstance(made, int):
                if uid or gid:
                    os.fchown(made, uid, gid)
                if mode & _SET_IDS:
                    os.fchmod(made, stat.S_IMODE(os.fstat(made).st_mode) | mode & _SET_IDS)
                return
            if uid or gid:
                os.chown(made, uid, gid, dir_fd=above, follow_symlinks=False)
            if mode & _SET_IDS:
                own = os.stat(made, dir_fd=above, follow_symlinks=False).st_mode
                os.chmod(made, stat.S_IMODE(own) | mode & _SET_IDS, dir_fd=above)

    def _appeared(self, directory: Directory, name: bytes, entry: Directory | File) -> None:
        self._tree.entries(directory)[name] = entry
        directory.whiteouts.discard(name)
        directory.image = None

    def _make(self, path: bytes, mode: int, make: Callable[[int, bytes, int], None]) -> None:
        """Make something that is not opened."""
        directory, name = self._absent(path)
        kind = stat.S_IFMT(mode)
        if kind != stat.S_IFLNK:
            mode = self._mode(directory, mode)

        def make_owned(above: int, made: bytes) -> None:
            make(above, made, mode)
            self._give_away(directory, above, made, 0 if kind == stat.S_IFLNK else mode)

        is_directory = kind == stat.S_IFDIR
        above = self._change().make(directory, name, make_owned, is_directory=is_directory)
        facts = os.stat(name, dir_fd=above, follow_symlinks=False)
        if is_directory:
            entry: Directory | File = Directory(directory, name, (UPPER,), facts.st_ino)
        else:
            entry = File(UPPER, facts, facts.st_ino)
        entry.xattrs = self._inherited(directory)
        self._appeared(directory, name, entry)

    def mkdir(self, path: bytes, mode: int) -> None:
        def make(above: int, made: bytes, mode: int) -> None:
            with effect("union.mkdir", entry=made):
                os.mkdir(made, stat.S_IMODE(mode), dir_fd=above)
                special = mode & (_SET_IDS | stat.S_ISVTX)
                if special:  # mkdir(2) takes permissions alone, and a default ACL has changed them
                    own = os.stat(made, dir_fd=above, follow_symlinks=False).st_mode
                    os.chmod(made, stat.S_IMODE(own) | special, dir_fd=above)

        self._make(path, stat.S_IMODE(mode) | stat.S_IFDIR, make)

    def symlink(self, target: bytes, path: bytes) -> None:
        def make(above: int, made: bytes, mode: int) -> None:
            with effect("union.symlink", entry=made):
                os.symlink(target, made, dir_fd=above)

        self._make(path, stat.S_IFLNK | 0o777, make)

    def mknod(self, path: bytes, mode: int, device: int) -> None:
        if stat.S_ISCHR(mode) and device == 0:  # it would be a whiteout; overlayfs as well
            raise failure(errno.EPERM)

        def make(above: int, made: bytes, mode: int) -> None:
            with effect("union.mknod", entry=made):
                os.mknod(made, mode, device, dir_fd=above)

        self._make(path, mode, make)

    def link(self, old: bytes, new: bytes) -> None:
        old_directory, old_name, file = self._file(old)
        directory, name = self._absent(new)
        upper = self._change()
        source = upper.file(old_directory, old_name, file)
        upper.link(source, old_name, directory, name)
        self._touched(file)
        self._tree.link(file, file.real_inode)
        self._appeared(directory, name, file)

    def unlink(self, path: bytes) -> None:
        if path in self._nameless:
            file, descriptor = self._nameless.pop(path)
            file.nameless -= 1
            os.close(descriptor)
            return
        directory, name, file = self._file(path)
        self._change().remove(directory, name, file)
        self._vanished(directory, name)
        self._touched(file)

    def rmdir(self, path: bytes) -> None:
        directory, name = self._tree.parent(path)
        removed = self._tree.entry(directory, name)
        if not isinstance(removed, Directory):
            raise failure(errno.ENOTDIR)
        if self._tree.entries(removed):
            raise failure(errno.ENOTEMPTY)
        self._change().remove_directory(directory, name, removed)
        self._vanished(directory, name)
        self._tree.drop(removed)
        self._tree.forget_paths()

    def _vanished(self, directory: Directory, name: bytes) -> None:
        del self._tree.entries(directory)[name]
        directory.image = None

    # --- renaming ---------------------------------------

    def rename(self, old: bytes, new: bytes) -> None:
        if _HIDDEN.fullmatch(new.rpartition(b"/")[2]):
            self._lose_name(old, new)
            return
        directory, name = self._tree.parent(old)
        target, new_name = self._tree.parent(new)
        moved = self._tree.entry(directory, name)
        replaced = self._replaceable(moved, target, new_name)
        upper = self._change()
        if moved is replaced:
            return  # two names of one file: rename(2)
        if isinstance(moved, Directory):
            upper.raise_whole(moved)
        else:
            upper.file(directory, name, moved)
        upper.move(directory, name, target, new_name, moved, replaced)
        self._vanished(directory, name)
        self._appeared(target, new_name, moved)
        if isinstance(moved, Directory):
            moved.above, moved.name, moved.image = target, new_name, None
            self._tree.forget_paths()
        else:
            self._touched(moved)
        if isinstance(replaced, Directory):
            self._tree.drop(replaced)
            self._tree.forget_paths()
        elif replaced is not None:
            self._touched(replaced)

    def _replaceable(
        self, moved: Directory | File, target: Directory, name: bytes
    ) -> Directory | File | None:
        """Return what a rename replaces; refuse what it may not."""
        if name not in self._tree.entries(target):
            self._absent(b"/".join((self._tree.path_of(target), name)))
            return None
        if self.request.no_replace:
            raise failure(errno.EEXIST)
        replaced = self._tree.entry(target, name)
        if isinstance(replaced, Directory):
            if not isinstance(moved, Directory):
                raise failure(errno.EISDIR)
            if self._tree.entries(replaced):
                raise failure(errno.ENOTEMPTY)
        elif isinstance(moved, Directory):
            raise failure(errno.ENOTDIR)
        return replaced

    def _lose_name(self, path: bytes, hidden: bytes) -> None:
        """Remove a name of an open file; libfuse goes on to call it by the hidden one."""
        directory, name, file = self._file(path)
        upper = self._change()
        holder = self._tree.descriptor(directory, file.layer)
        descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=holder)
        try:
            upper.remove(directory, name, file)
        except BaseException:
            os.close(descriptor)
            raise
        self._vanished(directory, name)
        self._touched(file)
        self._nameless[hidden] = (file, descriptor)
        file.nameless += 1
