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
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from ..effects import effect
from ..errors import (
    FailedPrecondition,
    NoSpace,
    Unavailable,
)
from .ballast import Ballast, is_full
from .connection import BUSY_SECONDS, Connector
from .reserve import SIZE_BYTES as LOG_BYTES
from .reserve import Reserve
from .schema import VERSION, migrate, version_of

T = TypeVar("T")

_JOURNAL_LENGTH = 16_384
_JOURNAL_SLACK = 256  # trimmed when a multiple of it is reached


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
        self.reserve = Reserve(path.with_name("reserve"), path.with_name(f"{path.name}-wal"))
        self._connector = Connector(path, self.ballast, self.reserve)
        self._pid = os.getpid()
        self._local = threading.local()
        self._slots: weakref.WeakSet[_Slot] = weakref.WeakSet()
        self._closed = False
        self._open()
        self.root_id = self.setting("root-id") or self.settle("root-id", os.urandom(4).hex())

    def _open(self) -> None:
        connection = self.read()
        if version_of(connection) < VERSION:
            with effect("metastore.migrate", path=self.path):
                _use_wal(connection)
                migrate(connection)

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
            slot = self._local.slot = _Slot(self._connector.connect(others=bool(self._slots)))
            self._slots.add(slot)
        elif self._closed:
            raise FailedPrecondition("the metastore is closed")
        return slot.connection

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
        """Run *function* in a transaction; on a full disk again with the reserve as the log, and
        at last without the ballast."""

        def attempt() -> T:
            with self.transaction() as tx:
                return function(tx)

        try:
            return attempt()
        except (OSError, NoSpace) as error:
            if not is_full(error):
                raise
            self.leave_thread()  # to come back as the disk is now
        return self.ballast.relieve(attempt, then=self._grow_log)

    def _grow_log(self) -> None:
        """Take for the log what the ballast has left free, before anybody else does."""
        with suppress(OSError):
            descriptor = os.open(self.reserve.log, os.O_WRONLY | os.O_CLOEXEC)
            try:
                with effect("metastore.grow_log", path=self.reserve.log):
                    os.posix_fallocate(descriptor, os.fstat(descriptor).st_size, LOG_BYTES)
            finally:
                os.close(descriptor)

    def rest(self) -> None:
        """To be called before a long wait: keep nobody out meanwhile. See :class:`Connector`."""
        if self._connector.cramped:
            self.leave_thread()

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
