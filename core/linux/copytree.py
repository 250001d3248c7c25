"""Copying a whole tree so that nobody can tell the copy from the original.

Kept are types, contents with their holes, hard links within the tree, owners, modes, all
xattrs and ACLs, and times to the nanosecond. Contents are shared where the file system can,
else copied in the kernel, else read and written (:class:`.files.Copier`).

The work is a stack of directories, so no depth is too deep; two threads serve it, since most of
the time is spent in system calls. Further names of a file are linked when all files are there.
Directories get their attributes at the very end, deepest first: filling one changes its times,
and a default ACL would be inherited.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from threading import Condition, Thread

from ..effects import effect
from .attributes import copy_attributes, copy_attributes_at
from .files import Copier
from .paths import open_deep

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def copy_tree(source: Path | int, target: Path | int) -> None:
    """Copy the directory *source* onto the empty directory *target*, its attributes included.

    A directory is a path or a descriptor of it. Nobody else may change the source meanwhile.
    *target* must have no default ACL (``make_base`` sees to that).

    Raises:
        OSError: at the first thing that cannot be copied as it is; *target* is half made then.
    """
    source_root = _open(source)
    try:
        target_root = _open(target)
        try:
            _TreeCopy(source_root, target_root).run()
        finally:
            os.close(target_root)
    finally:
        os.close(source_root)


def _open(directory: Path | int) -> int:
    if isinstance(directory, int):
        return os.open(".", _DIRECTORY, dir_fd=directory)
    return os.open(directory, _DIRECTORY)


class _TreeCopy:
    """One run; paths are relative to both roots."""

    def __init__(self, source_root: int, target_root: int) -> None:
        self._source_root = source_root
        self._target_root = target_root
        self._copier = Copier()
        self._todo = ["."]
        self._busy = 0
        self._changed = Condition()
        self._failure: BaseException | None = None
        self._directories: list[str] = []
        self._first_names: dict[tuple[int, int], tuple[str, str]] = {}
        self._further_names: list[tuple[tuple[str, str], tuple[str, str]]] = []

    def run(self) -> None:
        helper = Thread(target=self._serve, name="stowage-copy", daemon=True)
        helper.start()
        try:
            self._serve()
        except BaseException as error:  # noqa: BLE001  # an interrupt; the helper ends first
            self._failure = error
        helper.join()
        if self._failure is not None:
            raise self._failure
        for first, further in self._further_names:
            self._link(first, further)
        for path in reversed(self._directories):
            self._finish_directory(path)

    # --- the stack of directories --------------------------------------------------------------

    def _serve(self) -> None:
        while (path := self._next()) is not None:
            below: list[str] = []
            try:
                self._copy_directory(path, below)
            except BaseException as error:  # noqa: BLE001  # raised again by run()
                self._failure = self._failure or error
            with self._changed:
                self._todo += below
                self._busy -= 1
                self._changed.notify_all()

    def _next(self) -> str | None:
        with self._changed:
            while not self._todo and self._busy and self._failure is None:
                self._changed.wait()
            if not self._todo or self._failure is not None:
                return None
            self._busy += 1
            path = self._todo.pop()
            self._directories.append(path)  # a parent is always popped before its children
            return path

    def _copy_directory(self, path: str, below: list[str]) -> None:
        source, target = self._open_both(path)
        try:
            with os.scandir(source) as entries:
                for entry in entries:
                    facts = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(facts.st_mode):
                        with effect("directory.make", path=entry.name):
                            os.mkdir(entry.name, 0o700, dir_fd=target)
                        below.append(os.path.join(path, entry.name))
                    elif facts.st_nlink == 1 or self._is_first_name(path, entry.name, facts):
                        self._copy_entry(source, target, entry.name, facts)
        finally:
            os.close(source)
            os.close(target)

    def _open_both(self, path: str) -> tuple[int, int]:
        source = open_deep(self._source_root, path, _DIRECTORY)
        try:
            return source, open_deep(self._target_root, path, _DIRECTORY)
        except BaseException:
            os.close(source)
            raise

    # --- entries -------------------------------------------------------------------------------

    def _copy_entry(self, source: int, target: int, name: str, facts: os.stat_result) -> None:
        if stat.S_ISREG(facts.st_mode):
            with effect("file.copy", path=name, size_bytes=facts.st_size):
                self._copy_file(source, target, name, facts)
            return
        with effect("file.make", path=name, mode=facts.st_mode):
            if stat.S_ISLNK(facts.st_mode):
                os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            else:
                os.mknod(name, facts.st_mode, facts.st_rdev, dir_fd=target)
            copy_attributes_at(source, target, name, facts)

    def _copy_file(self, source: int, target: int, name: str, facts: os.stat_result) -> None:
        reading = os.open(name, _READ, dir_fd=source)
        try:
            writing = os.open(name, _WRITE, stat.S_IMODE(facts.st_mode), dir_fd=target)
            try:
                if facts.st_size:
                    self._copier.copy(reading, writing, facts.st_size)
                copy_attributes(reading, writing, facts, fresh=True)
            finally:
                os.close(writing)
        finally:
            os.close(reading)

    def _is_first_name(self, path: str, name: str, facts: os.stat_result) -> bool:
        inode, here = (facts.st_dev, facts.st_ino), (path, name)
        with self._changed:
            first = self._first_names.setdefault(inode, here)
            if first is not here:
                self._further_names.append((first, here))
        return first is here

    def _link(self, first: tuple[str, str], further: tuple[str, str]) -> None:
        from_directory = open_deep(self._target_root, first[0], _DIRECTORY)
        try:
            to_directory = open_deep(self._target_root, further[0], _DIRECTORY)
            try:
                with effect("file.link", path=further[1]):
                    os.link(
                        first[1],
                        further[1],
                        src_dir_fd=from_directory,
                        dst_dir_fd=to_directory,
                        follow_symlinks=False,
                    )
            finally:
                os.close(to_directory)
        finally:
            os.close(from_directory)

    def _finish_directory(self, path: str) -> None:
        source, target = self._open_both(path)
        try:
            copy_attributes(source, target, os.fstat(source))
        finally:
            os.close(source)
            os.close(target)
