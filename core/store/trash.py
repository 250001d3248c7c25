"""The trash: removing is one transaction and one rename; deleting comes later.

The row of a snapshot becomes a row of the trash in one transaction: from then on its name is free
and its number is never used again. Then its directory moves from ``storage/<driver>/<id>`` to
``trash/<driver>-<id>``; after a kill between the two, whoever comes next makes the move.

The transaction is not synced: a loss of power can take it and leave the rename. Then the row is
back, and its directory has to be moved back too (:meth:`Trash.restore`).
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from ..effects import effect
from .layout import RootLayout
from .metastore import Metastore


class TrashEntry(Struct, frozen=True):
    """One removed directory; *directory* is its name in the trash."""

    id: int
    driver: str
    directory: str
    diff_id: str | None

    @property
    def number(self) -> int | None:
        """The id that the snapshot had; None if it was an orphan."""
        tail = self.directory.removeprefix(f"{self.driver}-")
        return int(tail) if tail.isdigit() else None


class Trash:
    """The trash of one root."""

    def __init__(self, layout: RootLayout, metastore: Metastore) -> None:
        self._layout = layout
        self._metastore = metastore

    def path(self, entry: TrashEntry) -> Path:
        return self._layout.trash / entry.directory

    def forget(self, tx: sqlite3.Connection, driver: str, number: int) -> TrashEntry:
        """Within a transaction: turn a snapshot's row into one of the trash."""
        row = tx.execute("SELECT diff_id FROM snapshots WHERE id = ?", (number,)).fetchone()
        diff_id = None if row is None else row[0]
        tx.execute("DELETE FROM mounts WHERE snapshot_id = ?", (number,))
        tx.execute("DELETE FROM snapshots WHERE id = ?", (number,))
        return _insert(tx, driver, f"{driver}-{number}", diff_id)

    def bury(self, entry: TrashEntry) -> None:
        """Move the directory of a forgotten snapshot into the trash. Idempotent."""
        if entry.number is None:
            return
        source = self._layout.snapshot(entry.driver, entry.number)

        def move() -> None:
            with effect("trash.bury", path=source), suppress(FileNotFoundError):
                os.rename(source, self.path(entry))  # else never made, or moved already

        self._metastore.ballast.relieve(move)

    def bury_orphan(self, driver: str, directory: Path) -> TrashEntry | None:
        """Move a directory of *driver* that no row knows into the trash; None if it is gone.

        It may lie there already. It gets a name that no snapshot's can meet: the number may be
        given out again when a loss of power took the row but not the directory.
        """
        was = directory.name.removeprefix(f"{driver}-")
        name = f"{driver}-{was}.{secrets.token_hex(4)}"
        try:
            with effect("trash.bury", path=directory):
                os.rename(directory, self._layout.trash / name)
        except FileNotFoundError:
            return None
        return self._metastore.transact(lambda tx: _insert(tx, driver, name, None))

    def restore(self, driver: str, number: int) -> bool:
        """Move the directory of a snapshot that has a row out of the trash; idempotent.

        False if the snapshot has another directory: its number was given out again.
        """
        source = self._layout.trash / f"{driver}-{number}"
        target = self._layout.snapshot(driver, number)
        if target.exists():
            return not source.exists()
        with suppress(FileNotFoundError), effect("trash.restore", path=target):
            os.rename(source, target)
        return True

    def entries(self) -> list[TrashEntry]:
        """Return what waits for the reaper, oldest first."""
        rows = self._metastore.read().execute(
            "SELECT id, driver, directory, diff_id FROM trash ORDER BY id"
        )
        return [TrashEntry(*row) for row in rows.fetchall()]

    def clear(self, entry: TrashEntry) -> None:
        """Forget an entry whose directory is gone."""
        self._metastore.transact(
            lambda tx: tx.execute("DELETE FROM trash WHERE id = ?", (entry.id,))
        )


def _insert(tx: sqlite3.Connection, driver: str, name: str, diff_id: str | None) -> TrashEntry:
    cursor = tx.execute(
        "INSERT INTO trash (driver, directory, diff_id, created_ns) VALUES (?, ?, ?, ?)",
        (driver, name, diff_id, time.time_ns()),
    )
    return TrashEntry(cursor.lastrowid or 0, driver, name, diff_id)
