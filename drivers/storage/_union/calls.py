"""What FUSE asks for, as operations on the merged tree and its upper layer."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterable

from stowage.effects import effect, effectful
from stowage.linux.fuse_session import Opened, Request, drop_set_ids, stat_image

from .tree import UPPER, Directory, File, Tree, failure, proc_path
from .upper import Upper, inherited_owner

_ACCESS = os.O_ACCMODE
_KEPT_FLAGS = os.O_ACCMODE | os.O_SYNC | os.O_DSYNC
_ALWAYS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_UTIME_NOW, _UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
_ESCAPE = b"overlay."
_SET_IDS = stat.S_ISUID | stat.S_ISGID
#: libfuse renames what is open to such a name instead of removing it.
_HIDDEN = re.compile(rb"\.fuse_hidden[0-9a-f]{16}")


class Union:
    """The operations; a view has no *upper* and refuses every change with EROFS."""

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

    # --- looking ---------------------------------------

    def getattr(self, path: bytes) -> bytes:
        if path == b"/":
            return self._directory_image(self._tree.root)
        if path in self._nameless:
            file, descriptor = self._nameless[path]
            # libfuse takes one off, for its hidden name would be a name as well
            return self._nameless_image(file, os.stat(_of(descriptor)), more_links=1)
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

    def _file(self, path: bytes) -> tuple[Directory, bytes, File]:
        directory, name = self._tree.parent(path)
        entry = self._tree.entry(directory, name)
        if isinstance(entry, Directory):
            raise failure(errno.EISDIR)
        return directory, name, entry

    # --- open files ---------------------------------------

    def open(self, path: bytes, flags: int) -> Opened:
        writing = flags & _ACCESS != os.O_RDONLY
        if path in self._nameless:
            file, descriptor = self._nameless[path]
            if writing:
                descriptor = self._raise_nameless(path)
            return self._opened(os.open(_of(descriptor), _clean(flags)), file, flags)
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

    # --- making and removing ---------------------------------------

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
        self._appeared(directory, name, entry)

    def mkdir(self, path: bytes, mode: int) -> None:
        def make(above: int, made: bytes, mode: int) -> None:
            with effect("union.mkdir", entry=made):
                os.mkdir(made, stat.S_IMODE(mode), dir_fd=above)
                if mode & (_SET_IDS | stat.S_ISVTX):  # mkdir(2) takes permissions alone
                    os.chmod(made, stat.S_IMODE(mode), dir_fd=above)

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

    @staticmethod
    def _touched(file: File) -> None:
        file.image = None
        if file.layer == UPPER:
            file.facts = None

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

    # --- attributes ---------------------------------------

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
            return _of(descriptor), file, True
        if path == b"/":
            entry: Directory | File = self._tree.root
        else:
            directory, name = self._tree.parent(path)
            entry = self._tree.entry(directory, name)
        if isinstance(entry, Directory):
            if not change:
                return _of(self._where(entry)), entry, True
            return _of(self._change().directory(entry)), entry, True
        if change:
            return proc_path(self._change().file(directory, name, entry), name), entry, False
        return proc_path(self._tree.descriptor(directory, entry.layer), name), entry, False

    def _forget(self, entry: Directory | File) -> None:
        entry.image = None
        if isinstance(entry, File):
            entry.facts = None

    def chmod(self, path: bytes, mode: int) -> None:
        where, entry, _ = self._place(path, change=True)
        with effect("union.chmod"):
            os.chmod(where, stat.S_IMODE(mode))
        self._forget(entry)
        entry.xattrs = None

    def chown(self, path: bytes, uid: int, gid: int) -> None:
        where, entry, follow = self._place(path, change=True)
        with effect("union.chown"):
            os.chown(where, uid, gid, follow_symlinks=follow)
        self._forget(entry)
        entry.xattrs = None  # file capabilities are gone with the owner

    def truncate(self, path: bytes, length: int) -> None:
        if path not in self._nameless:
            directory, name, file = self._file(path)
            self._change().file(directory, name, file, size_bytes=length)
        where, entry, _ = self._place(path, change=True)
        handle = os.open(where, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if self.request.kills_suid:
                drop_set_ids(handle)
            with effect("union.truncate"):
                os.ftruncate(handle, length)
        finally:
            os.close(handle)
        self._forget(entry)

    def utimens(self, path: bytes, atime_ns: int, mtime_ns: int) -> None:
        where, entry, follow = self._place(path, change=True)
        set_times(where, atime_ns, mtime_ns, follow=follow)
        self._forget(entry)

    # --- extended attributes ---------------------------------------

    def _xattr_names(
        self, entry: Directory | File, where: Callable[[], int | bytes], follow: bool = True
    ) -> frozenset[bytes]:
        """Return the names that show of an entry's extended attributes."""
        names = entry.xattrs
        if names is None:
            place = where()
            try:
                stored = os.listxattr(place, follow_symlinks=follow or isinstance(place, int))
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise
                stored = []
            shown = (self._shown(os.fsencode(name)) for name in stored)
            names = entry.xattrs = frozenset(name for name in shown if name is not None)
        return names

    def _shown(self, stored: bytes) -> bytes | None:
        prefix = self._marks.prefix
        if not stored.startswith(prefix):
            return stored
        rest = stored[len(prefix) :]
        return prefix + rest[len(_ESCAPE) :] if rest.startswith(_ESCAPE) else None

    def _stored(self, name: bytes) -> bytes:
        prefix = self._marks.prefix
        return prefix + _ESCAPE + name[len(prefix) :] if name.startswith(prefix) else name

    def getxattr(self, path: bytes, name: bytes) -> bytes:
        where, entry, follow = self._place(path, change=False)
        if name not in self._xattr_names(entry, lambda: where, follow):
            raise failure(errno.ENODATA)
        return os.getxattr(where, self._stored(name), follow_symlinks=follow)

    def listxattr(self, path: bytes) -> Iterable[bytes]:
        where, entry, follow = self._place(path, change=False)
        return sorted(self._xattr_names(entry, lambda: where, follow))

    def setxattr(self, path: bytes, name: bytes, value: bytes, flags: int) -> None:
        where, entry, follow = self._place(path, change=True)
        with effect("union.setxattr"):
            os.setxattr(where, self._stored(name), value, flags, follow_symlinks=follow)
        self._forget(entry)
        entry.xattrs = None

    def removexattr(self, path: bytes, name: bytes) -> None:
        where, entry, follow = self._place(path, change=False)
        if name not in self._xattr_names(entry, lambda: where, follow):
            raise failure(errno.ENODATA)
        where, entry, follow = self._place(path, change=True)
        with effect("union.removexattr"):
            os.removexattr(where, self._stored(name), follow_symlinks=follow)
        self._forget(entry)
        entry.xattrs = None


@effectful("union.utimens")
def set_times(where: bytes, atime_ns: int, mtime_ns: int, *, follow: bool) -> None:
    """utimensat(2) with UTIME_NOW and UTIME_OMIT, which Python's does not take."""
    if (atime_ns, mtime_ns) == (_UTIME_NOW, _UTIME_NOW):
        os.utime(where, follow_symlinks=follow)
        return
    facts = os.stat(where, follow_symlinks=follow)
    now_ns = None
    times = []
    for given, kept in ((atime_ns, facts.st_atime_ns), (mtime_ns, facts.st_mtime_ns)):
        if given == _UTIME_OMIT:
            given = kept
        elif given == _UTIME_NOW:
            import time

            now_ns = given = now_ns or time.time_ns()
        times.append(given)
    os.utime(where, ns=(times[0], times[1]), follow_symlinks=follow)


def _clean(flags: int) -> int:
    return flags & _KEPT_FLAGS | os.O_CLOEXEC


def _of(descriptor: int) -> bytes:
    return b"/proc/self/fd/%d" % descriptor
