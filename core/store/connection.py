"""Connections to the metastore, also on a disk that has no room left for what they need."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

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
from .reserve import CHECKPOINT_PAGES, Reserve

BUSY_SECONDS = 20.0
_LOG_ATTEMPTS = 3
_INDEX_BYTES = 32 << 10  # https://www.sqlite.org/walformat.html#the_wal_index_file_format


class Connection(sqlite3.Connection):
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


class Connector:
    """Connects to the database at *path*.

    Where the disk has no room for the log and the index that processes share
    (``metadata.db-wal`` and ``-shm``), it is *cramped*: the reserve becomes the log, and SQLite
    keeps the index in our memory and all other processes out
    (https://www.sqlite.org/vfs.html#standard_unix_vfses, ``unix-excl``).
    """

    def __init__(self, path: Path, ballast: Ballast, reserve: Reserve) -> None:
        self._path = path
        self._ballast = ballast
        self._reserve = reserve
        self.cramped = False

    def connect(self, *, others: bool) -> sqlite3.Connection:
        """Return a new connection; *others* says whether this process has any already.

        Raises:
            NoSpace, Unavailable, DataLoss, PermissionDenied: see :func:`translated`.
        """
        self.cramped = self._ballast.wanted
        if not self.cramped:
            try:
                return self._connect_shared(BUSY_SECONDS)
            except NoSpace:
                self.cramped = True
        return self._connect_cramped(others=others)

    def _connect_shared(self, wait_seconds: float) -> sqlite3.Connection:
        return self._opened(wait_seconds, "unix")

    def _connect_cramped(self, *, others: bool) -> sqlite3.Connection:
        deadline = time.monotonic() + BUSY_SECONDS
        attempts = 0
        while True:
            attempts += 1
            self._reserve.lend()
            try:
                connection = self._opened(0.1, "unix-excl")
            except Unavailable:  # others are connected, and share an index that is there
                if time.monotonic() > deadline:
                    raise
                if self._has_index():
                    with suppress(NoSpace, Unavailable):
                        return self._connect_shared(0.1)
                time.sleep(0.02)
            else:
                if others or self._reserve.lent or attempts > _LOG_ATTEMPTS:
                    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
                    return connection
                connection.close()  # writes back a log that is not the reserve, and deletes it

    def _has_index(self) -> bool:
        """Whether the index that is shared has its room already: a page of it that the disk has
        no block for kills who writes into it (SIGBUS)."""
        try:
            return os.stat(f"{self._path}-shm").st_size >= _INDEX_BYTES
        except FileNotFoundError:
            return False

    def _opened(self, wait_seconds: float, system: str) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(
                f"file:{quote(os.fspath(self._path))}?vfs={system}",
                timeout=wait_seconds,
                isolation_level=None,  # BEGIN and COMMIT are ours
                check_same_thread=False,  # only close() comes from another thread
                factory=Connection,
                uri=True,
            )
        except sqlite3.Error as error:
            raise translated(error, self._path) from error
        try:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()  # maps the index
            connection.execute(f"PRAGMA busy_timeout = {round(BUSY_SECONDS * 1000)}")
        except BaseException:
            connection.close()
            raise
        return connection


def translated(error: sqlite3.Error, path: Path | None = None) -> StowageError:
    """Return the StowageError that an error of SQLite means."""
    code = getattr(error, "sqlite_errorcode", 0)
    where = f" {path}" if path else ""
    details = f"{error} ({getattr(error, 'sqlite_errorname', 'SQLite')})"
    primary = code & 0xFF
    if primary == sqlite3.SQLITE_FULL or code in _FULL:
        return NoSpace(
            f"no space left to record metadata{where}",
            details=details,
            resolution="free space on the root's file system; a new root needs some MiB there",
        )
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
