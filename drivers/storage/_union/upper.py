"""Changing the upper layer: copying up, making, hiding and moving names in it.

Whatever is more than one system call is made in the work directory and renamed into its place, so
a kill at any point leaves each name as it was or as it was to be, and garbage in the work
directory alone, which is emptied before the next mount.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress

from stowage.effects import effect, effectful
from stowage.linux.attributes import copy_attributes, copy_attributes_at
from stowage.linux.files import copy_contents

from .tree import UPPER, Directory, File, Tree, failure

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEFAULT_ACL = "system.posix_acl_default"


class Upper:
    """The upper layer of a tree, and its work directory (a descriptor)."""

    def __init__(self, tree: Tree, work: int) -> None:
        self._tree = tree
        self._marks = tree.marks
        self._prefix = tree.marks.prefix.decode()
        self.work = work
        self._made = 0

    def _new_name(self) -> bytes:
        self._made += 1
        return b"%d" % self._made

    # --- directories ---------------------------------------

    def directory(self, directory: Directory) -> int:
        """Return a descriptor of a directory in the upper layer, where it is made if need be."""
        if not directory.in_upper:
            self._raise(directory)
        return self._tree.descriptor(directory, UPPER)

    def _raise(self, directory: Directory) -> None:
        assert directory.above is not None  # the root is there
        above = self.directory(directory.above)
        source = self._tree.descriptor(directory, directory.layers[0])
        made = self._new_name()
        with effect("union.copy_up_directory", entry=directory.name):
            os.mkdir(made, 0o700, dir_fd=self.work)
            try:
                copy = os.open(made, _DIRECTORY, dir_fd=self.work)
                try:
                    copy_attributes(
                        source, copy, os.fstat(source), fresh=True, skip_prefix=self._prefix
                    )
                    self._mark_origin(copy, directory.inode)
                    with _times_kept(above):
                        os.rename(made, directory.name, src_dir_fd=self.work, dst_dir_fd=above)
                except BaseException:
                    os.close(copy)
                    raise
            except BaseException:
                with suppress(FileNotFoundError):
                    os.rmdir(made, dir_fd=self.work)
                raise
        if directory.entries is not None:
            directory.below = set(directory.entries)
        directory.layers = (UPPER, *directory.layers)
        directory.image = None
        self._tree.keep(directory, UPPER, copy)

    def _mark_origin(self, descriptor: int, inode: int) -> None:
        own = os.fstat(descriptor).st_ino
        name, value = self._tree.origin_mark(inode, own)
        with suppress(PermissionError):  # without CAP_SYS_ADMIN numbers change with a remount
            os.setxattr(descriptor, name, value)

    # --- files ---------------------------------------

    def file(
        self, directory: Directory, name: bytes, file: File, *, size_bytes: int | None = None
    ) -> int:
        """Copy a file up if it is not there; return a descriptor of its upper directory.

        Only *size_bytes* of it are of use, if given. All other names of it go with it.
        """
        above = self.directory(directory)
        if file.layer == UPPER:
            return above
        facts = self.facts(directory, name, file)
        others = self._tree.visible_names(file) if facts.st_nlink > 1 else []
        source = self._tree.descriptor(directory, file.layer)
        made = self._copy(source, name, file, facts, size_bytes)
        try:
            with _times_kept(above), effect("union.copy_up", entry=name):
                os.rename(made, name, src_dir_fd=self.work, dst_dir_fd=above)
        except BaseException:
            self._discard(made)
            raise
        self._now_in_upper(file, above, name)
        for path in others:
            other, other_name = self._tree.parent(path)
            if (other, other_name) != (directory, name):
                with _times_kept(self.directory(other)):
                    self._link(above, name, self.directory(other), other_name)
        if others:
            self._tree.link(file, file.real_inode)
        return above

    def copy_apart(self, descriptor: int, file: File) -> int:
        """Copy an open file that has lost its name; return an O_PATH descriptor of the copy."""
        reading = os.open(b"/proc/self/fd/%d" % descriptor, os.O_RDONLY | os.O_CLOEXEC)
        made = self._new_name()
        try:
            self._copy_regular(reading, made, file, os.fstat(reading), None)
            copy = os.open(made, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.work)
            self._now_in_upper(file, self.work, made)
        finally:
            os.close(reading)
            self._discard(made)
        return copy

    def _copy(
        self, source: int, name: bytes, file: File, facts: os.stat_result, size_bytes: int | None
    ) -> bytes:
        """Copy a file into the work directory, with all that it has; return its name there."""
        made = self._new_name()
        try:
            if not stat.S_ISREG(facts.st_mode):
                self._copy_special(source, name, made, facts)
                return made
            reading = os.open(name, _READ | os.O_NOATIME, dir_fd=source)
            try:
                self._copy_regular(reading, made, file, facts, size_bytes)
            finally:
                os.close(reading)
        except BaseException:
            self._discard(made)
            raise
        return made

    @effectful("union.copy")
    def _copy_regular(
        self, reading: int, made: bytes, file: File, facts: os.stat_result, size_bytes: int | None
    ) -> None:
        writing = os.open(made, _NEW, 0o600, dir_fd=self.work)
        try:
            size = facts.st_size if size_bytes is None else min(size_bytes, facts.st_size)
            if size == facts.st_size:
                copy_contents(reading, writing, size)
            elif size:
                _copy_beginning(reading, writing, size)
            copy_attributes(reading, writing, facts, fresh=True, skip_prefix=self._prefix)
            self._mark_origin(writing, file.inode)
        finally:
            os.close(writing)

    @effectful("union.copy")
    def _copy_special(self, source: int, name: bytes, made: bytes, facts: os.stat_result) -> None:
        if stat.S_ISLNK(facts.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), made, dir_fd=self.work)
        else:
            os.mknod(made, facts.st_mode, facts.st_rdev, dir_fd=self.work)
        copy_attributes_at(
            source, self.work, os.fsdecode(name), facts, target_name=os.fsdecode(made)
        )

    def _now_in_upper(self, file: File, directory: int, name: bytes) -> None:
        """What has the file open for reading reads the copy from now on."""
        if file.handles:
            fresh = os.open(name, _READ, dir_fd=directory)
            try:
                for handle in file.handles:
                    os.dup2(fresh, handle, inheritable=False)
            finally:
                os.close(fresh)
        file.layer = UPPER
        file.facts = file.image = None
        file.real_inode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_ino

    @effectful("union.discard")
    def _discard(self, made: bytes) -> None:
        with suppress(FileNotFoundError):
            os.unlink(made, dir_fd=self.work)

    @effectful("union.link")
    def _link(self, source: int, name: bytes, target: int, new: bytes) -> None:
        """Give a file another name, where a name of the same file in a lower layer may be."""
        os.link(name, new, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)

    def facts(self, directory: Directory, name: bytes, file: File) -> os.stat_result:
        """Return a file's stat in its layer."""
        facts = file.facts
        if facts is None:
            holder = self._tree.descriptor(directory, file.layer)
            facts = file.facts = os.stat(name, dir_fd=holder, follow_symlinks=False)
        return facts

    # --- names ---------------------------------------

    def make(
        self, directory: Directory, name: bytes, make: Callable[[int, bytes], None],
        *, is_directory: bool = False,
    ) -> int:  # fmt: skip
        """Make something called *name* by *make*(directory's descriptor, name).

        Where a whiteout is it is made in the work directory first, as if in the directory itself.
        Returns the directory's descriptor.
        """
        above = self.directory(directory)
        if name not in directory.whiteouts:
            with effect("union.make", entry=name):
                make(above, name)
        else:
            made = self._new_name()
            with _default_acl_of(above, self.work), effect("union.make", entry=name):
                make(self.work, made)
            try:
                if is_directory:
                    self._make_opaque(made)
                self._marks.place(
                    self.work, made, above, name, is_directory=is_directory, hidden=True
                )
            except BaseException:
                (self.discard_directory if is_directory else self._discard)(made)
                raise
        return above

    def _make_opaque(self, made: bytes) -> None:
        descriptor = os.open(made, _DIRECTORY, dir_fd=self.work)
        try:
            self._marks.make_opaque(descriptor)
        finally:
            os.close(descriptor)

    def link(self, source: int, name: bytes, directory: Directory, new: bytes) -> None:
        """Give the upper layer's file *name* in *source* another name."""

        def make(target: int, made: bytes) -> None:
            self._link(source, name, target, made)

        self.make(directory, new, make)

    def remove(self, directory: Directory, name: bytes, file: File) -> None:
        """Remove a name of a file."""
        above = self.directory(directory)
        hide = name in directory.below
        self._marks.remove(self.work, above, name, present=file.layer == UPPER, hide=hide)
        if hide:
            directory.whiteouts.add(name)

    def remove_directory(self, directory: Directory, name: bytes, removed: Directory) -> None:
        """Remove a directory that shows empty."""
        above = self.directory(directory)
        hide = name in directory.below
        if not removed.in_upper:
            self._marks.hide(above, name)
        else:
            self._take_away(above, name, hide=hide)
        if hide:
            directory.whiteouts.add(name)

    def _take_away(self, above: int, name: bytes, *, hide: bool) -> None:
        """Move a directory to the work directory, a whiteout in its place, and remove it there."""
        taken = self._new_name()
        if hide:
            self._marks.swap_for_whiteout(self.work, taken, above, name)
        else:
            with effect("union.take_away", entry=name):
                os.rename(name, taken, src_dir_fd=above, dst_dir_fd=self.work)
        self.discard_directory(taken)

    @effectful("union.discard")
    def discard_directory(self, made: bytes) -> None:
        """Remove a directory of the work directory; nothing but marks is in it."""
        descriptor = os.open(made, _DIRECTORY, dir_fd=self.work)
        try:
            for name in os.listdir(descriptor):
                os.unlink(name, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        os.rmdir(made, dir_fd=self.work)

    # --- moving ---------------------------------------

    def raise_whole(self, directory: Directory) -> None:
        """Copy up all that shows in a directory, so that no lower layer is needed for it."""
        own = self.directory(directory)
        for name, entry in list(self._tree.entries(directory).items()):
            looked_at = entry if not isinstance(entry, tuple) else self._tree.entry(directory, name)
            if isinstance(looked_at, Directory):
                self.raise_whole(looked_at)
            else:
                self.file(directory, name, looked_at)
        if len(directory.layers) > 1:
            with _times_kept(own):
                self._marks.make_opaque(own)
                for name in directory.whiteouts:
                    self._marks.unhide(own, name)
            directory.layers = (UPPER,)
            directory.below, directory.whiteouts = set(), set()

    def move(
        self, old: Directory, old_name: bytes, new: Directory, new_name: bytes,
        moved: Directory | File, replaced: Directory | File | None,
    ) -> None:  # fmt: skip
        """Rename what is in the upper layer already; *replaced* may be replaced."""
        source, target = self.directory(old), self.directory(new)
        hidden = new_name in new.whiteouts
        hide = old_name in old.below
        if isinstance(moved, Directory) and (hidden or new_name in new.below):
            own = self._tree.descriptor(moved, UPPER)
            with _times_kept(own):
                self._marks.make_opaque(own)
        if isinstance(replaced, Directory) and replaced.in_upper:
            hidden = self._marks.empty(target, new_name)
        self._marks.move(
            source, old_name, target, new_name,
            is_directory=isinstance(moved, Directory), hide=hide, hidden=hidden,
        )  # fmt: skip
        if hide:
            old.whiteouts.add(old_name)
        new.whiteouts.discard(new_name)


class _times_kept:  # noqa: N801  # reads as what it does
    """Give a directory the times back that it had: copying up is not a change of it."""

    def __init__(self, directory: int) -> None:
        self._directory = directory

    def __enter__(self) -> None:
        facts = os.fstat(self._directory)
        self._times = facts.st_atime_ns, facts.st_mtime_ns

    def __exit__(self, *exc: object) -> None:
        with effect("union.times", directory=self._directory):
            os.utime(self._directory, ns=self._times)


class _default_acl_of:  # noqa: N801  # reads as what it does
    """Let what is made in *work* inherit what it would in *directory*."""

    def __init__(self, directory: int, work: int) -> None:
        self._directory, self._work = directory, work
        self._given = False

    def __enter__(self) -> None:
        try:
            value = os.getxattr(self._directory, _DEFAULT_ACL)
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
                raise
            return
        with effect("union.default_acl"):
            os.setxattr(self._work, _DEFAULT_ACL, value)
        self._given = True

    def __exit__(self, *exc: object) -> None:
        if self._given:
            with effect("union.default_acl"):
                os.removexattr(self._work, _DEFAULT_ACL)


def _copy_beginning(source: int, target: int, size: int) -> None:
    at = 0
    while at < size:
        copied = os.copy_file_range(source, target, size - at, at, at)
        if not copied:
            raise failure(errno.EIO)
        at += copied


def inherited_owner(directory: os.stat_result, mode: int, gid: int) -> tuple[int, int]:
    """Return mode and group of what is made in a directory (setgid: mkdir(2), open(2))."""
    if directory.st_mode & stat.S_ISGID:
        gid = directory.st_gid
        if stat.S_ISDIR(mode):
            mode |= stat.S_ISGID
    return mode, gid
