"""Leases: ``flock`` on files, which the kernel frees when their holder is gone (flock(2)).

A lock belongs to an open file description: it works between threads, between processes, and is
free the moment its holder is killed. Files are deleted only by who holds them exclusively;
everybody looks at the inode again once the lock is held, so a deleted file is never held for the
one that replaced it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path

from ..closing import Closing
from ..effects import effect
from ..errors import Busy
from ..linux.process import describe

WAIT_SECONDS = 0.5
"""How long an acquisition waits: others hold a lock briefly only to look whether it is free."""


class Lease(Closing):
    """A lock that is held until :meth:`close`; close-on-exec."""

    def __init__(self, path: Path, descriptor: int, *, exclusive: bool) -> None:
        self.path = path
        self.exclusive = exclusive
        self._descriptor = descriptor

    def take(self) -> bool:
        """Take the lock if it is free at this instant; tells whether it was."""
        kind = fcntl.LOCK_EX if self.exclusive else fcntl.LOCK_SH
        try:
            with effect("lock.take", path=self.path):
                fcntl.flock(self._descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def current(self) -> bool:
        """Whether the file that is held is still the one at the path."""
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(self._descriptor))

    def leave_purpose(self, purpose: str) -> None:
        """Tell others what the lock is held for; a full disk keeps it from them."""
        text = f"{os.getpid()} {purpose}\n".encode()
        try:
            with effect("lock.purpose", path=self.path):
                os.pwrite(self._descriptor, text, 0)
                os.ftruncate(self._descriptor, len(text))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise

    def close(self) -> None:
        """Free the lock. Idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def discard(self) -> None:
        """Delete the lock's file and free the lock; only for who holds it exclusively."""
        if self._descriptor >= 0:
            with effect("lock.discard", path=self.path):
                self.path.unlink(missing_ok=True)
        self.close()

    @property
    def held(self) -> bool:
        return self._descriptor >= 0


class Locks:
    """The locks in *directory*, known by their names."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def try_acquire(self, name: str, *, exclusive: bool, purpose: str = "") -> Lease | None:
        """Take the lock if it is free at this instant, else return None.

        *purpose* is what others are told ("mounted for writing"); only an exclusive holder can
        leave one.
        """
        path = self.directory / name
        while True:
            lease = Lease(path, _open(path), exclusive=exclusive)
            try:
                if not lease.take():
                    lease.close()
                    return None
                if lease.current():
                    if exclusive and purpose:
                        lease.leave_purpose(purpose)
                    return lease
            except BaseException:
                lease.close()
                raise
            lease.close()  # deleted between open and flock; there is another file now

    def acquire(
        self,
        name: str,
        *,
        exclusive: bool,
        subject: str,
        purpose: str = "",
        wait_seconds: float = WAIT_SECONDS,
    ) -> Lease:
        """Take the lock, waiting at most *wait_seconds*.

        Raises:
            Busy: "*subject* is in use", naming the processes that hold the lock.
        """
        deadline = time.monotonic() + wait_seconds
        pause = 0.001
        while True:
            lease = self.try_acquire(name, exclusive=exclusive, purpose=purpose)
            if lease is not None:
                return lease
            if time.monotonic() >= deadline:
                raise Busy(f"{subject} is in use", self.holders(name))
            time.sleep(pause)
            pause = min(pause * 2, 0.05)

    def discard(self, name: str) -> bool:
        """Delete a lock's file unless anybody holds it; tells whether it is gone."""
        lease = self.try_acquire(name, exclusive=True)
        if lease is None:
            return False
        with lease:
            lease.discard()
        return True

    def holders(self, name: str) -> list[str]:
        """Return who holds the lock, as texts for messages; a process that hides is left out."""
        path = self.directory / name
        try:
            status = path.stat()
            maker, purpose = _read_purpose(path)
        except FileNotFoundError:
            return []
        texts = []
        for pid, mode in _flocks(status):
            what = "reading it" if mode == "READ" else "changing it"
            if mode == "WRITE" and pid == maker and purpose:
                what = purpose
            texts.append(f"{describe(pid)}: {what}")
        return texts


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        with effect("lock.create", path=path):
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _read_purpose(path: Path) -> tuple[int, str]:
    pid, _, purpose = path.read_text(errors="replace").strip().partition(" ")
    return (int(pid) if pid.isdigit() else 0), purpose


def _flocks(status: os.stat_result) -> list[tuple[int, str]]:
    """Return (pid, ``READ`` or ``WRITE``) of who holds a flock on that inode; see proc_locks(5)."""
    found = []
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if "->" in fields or fields[1] != "FLOCK":  # "->" marks one that waits
            continue
        mode, pid, place = fields[3], int(fields[4]), fields[5]
        major, minor, inode = place.split(":")
        if int(inode) != status.st_ino or pid <= 0:
            continue
        device = os.makedev(int(major, 16), int(minor, 16))
        if device == status.st_dev or _has_open(pid, status):  # btrfs: another number than stat's
            found.append((pid, mode))
    return found


def _has_open(pid: int, status: os.stat_result) -> bool:
    try:
        for entry in os.scandir(f"/proc/{pid}/fd"):
            try:
                if os.path.samestat(os.stat(entry.path), status):
                    return True
            except OSError:  # closed meanwhile
                continue
    except OSError:  # ended meanwhile, or not ours to look at
        pass
    return False
