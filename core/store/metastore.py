"""The metastore: one SQLite file per root, shared by any number of threads and processes.

WAL with ``synchronous=NORMAL``: a transaction is atomic and ordered at once, and durable at the
next checkpoint, which the reaper makes before it unlinks anything. Transactions are short
(``BEGIN IMMEDIATE``) and hold no I/O but the database's. One connection per thread, and none
across a fork.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ..effects import effect
from ..errors import (
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    NoSpace,
    PermissionDenied,
    StowageError,
    Unavailable,
)
from .ballast import Ballast
from .schema import VERSION, migrate, version_of

T = TypeVar("T")

BUSY_SECONDS = 20.0
_JOURNAL_LENGTH = 16_384
_JOURNAL_SLACK = 256  # trimmed when a multiple of it is reached


class _Connection(sqlite3.Connection):
    """A connection whose errors are ours."""

    def execute(self, *args: Any) -> sqlite3.Cursor:  # sqlite3's own signature is as loose
        try:
            return super().execute(*args)
        except sqlite3.Error as error:
            raise translated(error) from error
        except UnicodeEncodeError as error:
            raise InvalidArgument(
                f"not UTF-8: {os.fsencode(str(error.object))!r}",
                details="nothing in a root has such a name",
            ) from error
        except OverflowError as error:
            raise InvalidArgument("a number is larger than 64 bits hold") from error


class _Slot:
    """A thread's connection; closed when the thread is gone."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def close(self) -> None:
        self.connection.close()

    __del__ = close


class Metastore:
    """The metadata of one root at *path*; made, migrated, or refused if a newer Stowage wrote it.

    Raises:
        FailedPrecondition: if a newer Stowage wrote the file.
        DataLoss: if the file is no database of ours.
        NoSpace: if there is no space even without the ballast.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ballast = Ballast(path.with_name("ballast"))
        self._pid = os.getpid()
        self._local = threading.local()
        self._slots: weakref.WeakSet[_Slot] = weakref.WeakSet()
        self._closed = False
        self.ballast.relieve(self._open)
        self.root_id = self.setting("root-id") or self.settle("root-id", os.urandom(4).hex())

    def _open(self) -> None:
        connection = self.read()
        if version_of(connection) < VERSION:
            with effect("metastore.migrate", path=self.path):
                _use_wal(connection)
                migrate(connection)
        connection.execute("SELECT 1 FROM settings").fetchone()  # maps the WAL's index: may be full

    def read(self) -> sqlite3.Connection:
        """Return this thread's connection, for single statements; rows are ``sqlite3.Row``.

        Raises:
            FailedPrecondition: after :meth:`close`, or in a child forked since it was opened.
        """
        if os.getpid() != self._pid:
            raise FailedPrecondition(
                "the metastore was opened before a fork",
                resolution="open the root again in the child process",
            )
        slot: _Slot | None = getattr(self._local, "slot", None)
        if slot is None:
            if self._closed:
                raise FailedPrecondition("the metastore is closed")
            slot = self._local.slot = _Slot(self._connect())
            self._slots.add(slot)
        elif self._closed:
            raise FailedPrecondition("the metastore is closed")
        return slot.connection

    def _connect(self) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(
                self.path,
                timeout=BUSY_SECONDS,
                isolation_level=None,  # BEGIN and COMMIT are ours
                check_same_thread=False,  # only close() comes from another thread
                factory=_Connection,
            )
        except sqlite3.Error as error:
            raise translated(error, self.path) from error
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Surround one short write: ``BEGIN IMMEDIATE``, then COMMIT, or ROLLBACK on an exception.

        What is read inside is still true when it commits. Not to be nested; no I/O inside.

        Raises:
            NoSpace: if the file system is full; :meth:`transact` gives up the ballast for it.
            Unavailable: if another process writes for longer than :data:`BUSY_SECONDS`.
        """
        connection = self.read()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            with effect("metastore.commit"):
                connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # a full disk may have rolled it back already
                connection.execute("ROLLBACK")
            raise

    def transact(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Run *function* in a transaction; on a full disk once more without the ballast."""

        def attempt() -> T:
            with self.transaction() as tx:
                return function(tx)

        return self.ballast.relieve(attempt)

    def setting(self, name: str) -> str | None:
        """Return what is recorded under *name*, or None."""
        row = self.read().execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def settle(self, name: str, value: str) -> str:
        """Record *value* under *name* unless something is there; returns what is recorded."""

        def record(tx: sqlite3.Connection) -> str:
            tx.execute("INSERT OR IGNORE INTO settings VALUES (?, ?)", (name, value))
            row = tx.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
            return str(row[0])

        return self.transact(record)

    def change(self, name: str, value: str) -> None:
        """Record *value* under *name*, whatever was there."""
        self.transact(
            lambda tx: tx.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))
        )

    def checkpoint(self) -> None:
        """Make every transaction so far survive a loss of power.

        Where the database file cannot grow, syncing the log alone is as good.
        """
        with effect("metastore.checkpoint", path=self.path):
            try:
                busy, *_ = self.read().execute("PRAGMA wal_checkpoint(FULL)").fetchone()
            except (NoSpace, Unavailable):
                busy = 1
            if busy:
                self._sync_log()

    def _sync_log(self) -> None:
        descriptor = os.open(f"{self.path}-wal", os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def leave_thread(self) -> None:
        """Close this thread's connection, before the thread says that it has ended."""
        slot: _Slot | None = getattr(self._local, "slot", None)
        if slot is not None:
            del self._local.slot
            slot.close()

    def close(self) -> None:
        """Close every thread's connection. Idempotent; in a forked child it does nothing."""
        if os.getpid() != self._pid:
            return
        self._closed = True
        for slot in list(self._slots):
            slot.close()


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch the file to WAL; another process may be doing the same, which SQLite calls busy
    without waiting."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except Unavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def record_event(
    tx: sqlite3.Connection,
    type: str,
    action: str,
    actor: str,
    attributes: Mapping[str, str],
) -> None:
    """Append to the journal, within the transaction of the change that it tells of."""
    cursor = tx.execute(
        "INSERT INTO journal (time_ns, type, action, actor, attributes) VALUES (?, ?, ?, ?, ?)",
        (time.time_ns(), type, action, actor, json.dumps(dict(attributes), sort_keys=True)),
    )
    number = cursor.lastrowid or 0
    if number % _JOURNAL_SLACK == 0:
        tx.execute("DELETE FROM journal WHERE seq <= ?", (number - _JOURNAL_LENGTH,))


def translated(error: sqlite3.Error, path: Path | None = None) -> StowageError:
    """Return the StowageError that an error of SQLite means."""
    code = getattr(error, "sqlite_errorcode", 0)
    where = f" {path}" if path else ""
    details = f"{error} ({getattr(error, 'sqlite_errorname', 'SQLite')})"
    primary = code & 0xFF
    if primary == sqlite3.SQLITE_FULL or code in _FULL:
        return NoSpace(f"no space left to record metadata{where}", details=details)
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Unavailable(
            f"the metadata{where} is locked by another process",
            details=details,
            resolution="try again",
        )
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return DataLoss(f"the metadata{where} is damaged", details=details)
    if primary in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return PermissionDenied(f"the metadata{where} cannot be opened", details=details)
    if isinstance(error, sqlite3.IntegrityError):
        return FailedPrecondition("the metadata does not allow this", details=details)
    return Unavailable(f"the metadata{where} cannot be used", details=details)


# A write that finds the disk full is an I/O error when it grows the WAL's shared index.
_FULL = {
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_SHMOPEN,
    sqlite3.SQLITE_IOERR_SHMMAP,
}
