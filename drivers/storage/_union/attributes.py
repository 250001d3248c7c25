"""Operations on what a file has beside its content: mode, owner, times, extended attributes."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterable

from stowage.effects import effect, effectful
from stowage.linux.fuse_session import drop_set_ids

from .base import Operations
from .tree import Directory, File, failure

_UTIME_NOW, _UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
_ESCAPE = b"overlay."


class Attributes(Operations):
    """See the module's docstring."""

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
            now_ns = given = now_ns or time.time_ns()
        times.append(given)
    os.utime(where, ns=(times[0], times[1]), follow_symlinks=follow)
