"""What every part of the layer store works with: the root, its records and the drivers."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from ..errors import Busy, NotFound
from ..handle import StorageHandle
from ..model import Kind, SnapshotInfo
from ..options import Options, parse_options
from ..store.layout import RootLayout
from ..store.locks import WAIT_SECONDS, Lease, Locks
from ..store.metastore import Metastore, record_event
from ..store.reaper import Reaper
from ..store.recipes import Recipes
from ..store.trash import Trash
from . import rows
from .rows import Row

_CLOCK_REALTIME_COARSE = 5  # clock_gettime(2): the clock that file systems stamp times with


class StoreContext:
    """One root as the layer store sees it; shared by all its parts and safe from threads."""

    def __init__(
        self,
        layout: RootLayout,
        metastore: Metastore,
        open_storage: Callable[[str], StorageHandle],
        *,
        sync: bool,
    ) -> None:
        self.layout = layout
        self.metastore = metastore
        self.sync = sync
        self.locks = Locks(layout.locks)
        self.trash = Trash(layout, metastore)
        self.recipes = Recipes(layout, metastore, self.locks)
        self.reaper = Reaper(layout, metastore, self.trash, self.recipes, self.handle)
        self.in_use: Callable[[SnapshotInfo], str | None] | None = None
        self.mount_users: Callable[[Row], list[str]] = lambda row: []
        self._open_storage = open_storage
        self._handles: dict[str, StorageHandle] = {}

    def handle(self, driver: str) -> StorageHandle:
        """Return the opened driver; raises as ``Registry.storage``.

        No lock of ours is held while it is opened: the reaper's thread and whoever is opening
        the layer store would wait for each other.
        """
        handle = self._handles.get(driver)
        if handle is None:
            handle = self._handles.setdefault(driver, self._open_storage(driver))
        return handle

    def options(self, row: Row) -> Options:
        """Return the snapshot's own options, parsed as its driver declared them."""
        return self.parse_options(row.driver, row.options)

    def parse_options(self, driver: str, given: Iterable[str]) -> Options:
        """Parse options of one snapshot; raises InvalidConfig naming every wrong one."""
        declared = getattr(self.handle(driver).driver, "options", ())
        return parse_options(driver, declared, given, scope="snapshot")

    def get(self, driver: str, name: str) -> Row:
        """Return the row of a snapshot that exists for users, or raise NotFound."""
        return rows.get(self.metastore.read(), driver, name)

    def directory(self, row: Row) -> Path:
        return self.layout.snapshot(row.driver, row.id)

    def parents(self, row: Row) -> list[Path]:
        """Return the directories of the parents, nearest first."""
        numbers, host_root = rows.stack(self.metastore.read(), row.id)
        directories = [self.layout.snapshot(row.driver, number) for number in numbers]
        return [*directories, Path(host_root)] if host_root is not None else directories

    def lease_name(self, row: Row) -> str:
        return f"{row.driver}-{row.id}"

    def lease(
        self,
        row: Row,
        *,
        exclusive: bool,
        purpose: str = "",
        wait_seconds: float = WAIT_SECONDS,
    ) -> Lease:
        """Take the lease of a snapshot; raises Busy naming who has it.

        Parents need none: they cannot be removed while a child has a row.
        """
        return self.metastore.ballast.relieve(
            lambda: self.locks.acquire(
                self.lease_name(row),
                exclusive=exclusive,
                subject=f"snapshot {row.name!r}",
                purpose=purpose,
                wait_seconds=wait_seconds,
            )
        )

    def lease_current(
        self, row: Row, *, exclusive: bool, purpose: str = "", settle: bool = True
    ) -> tuple[Lease, Row]:
        """Take the lease, and return with it the row as it is now that nobody else changes it.

        A commit that lost its process is settled first, unless the snapshot is to go anyway
        (*settle* false): nobody gets at what is about to be published.

        Raises:
            Busy: as ``lease``.
            NotFound: if the snapshot was removed, or committed under another name, meanwhile.
            StowageError, OSError: what keeps its commit from being settled.
        """
        lease = self.lease(row, exclusive=exclusive, purpose=purpose)
        try:
            now = rows.by_id(self.metastore.read(), row.id)
            if now is not None and now.committing is not None and exclusive and settle:
                from .committing import settle as settle_commit  # which works with contexts

                now = settle_commit(self, now)
            if now is None or now.state != "ready" or now.name != row.name:
                if now is None:
                    self.discard_remade(row, lease)
                raise NotFound("snapshot", row.name)
        except BaseException:
            lease.close()
            raise
        return lease, now

    def discard_remade(self, row: Row, lease: Lease) -> None:
        """Give up the lease of a removed snapshot, with the file that taking it made anew."""
        lease.close()
        self.locks.discard(self.lease_name(row))

    def refuse_if_used(self, row: Row) -> None:
        """Raise Busy if a mount or a container uses the snapshot; its lease says the rest."""
        users = self.mount_users(row)
        if self.in_use is not None and row.kind is not Kind.COMMITTED:
            text = self.in_use(row.info())
            if text is not None:
                users = [*users, text]
        if users:
            raise Busy(f"snapshot {row.name!r} is in use", users)

    def discard(self, row: Row, lease: Lease) -> None:
        """Take back a snapshot that was being made; its name is free at once.

        The lease is given up even on an error: what is left is then a snapshot without a maker,
        which the next recovery takes back.
        """
        with lease:
            entry = self.metastore.transact(lambda tx: self.trash.forget(tx, row.driver, row.id))
            self.trash.bury(entry)
            lease.discard()
        self.reaper.nudge()

    def record(
        self, tx: sqlite3.Connection, action: str, row: Row, name: str | None = None
    ) -> None:
        """Append to the journal what happened to a snapshot."""
        attributes = {"driver": row.driver, "id": str(row.id)}
        if name is not None:
            attributes["name"] = name
        record_event(tx, "snapshot", action, row.name, attributes)


def file_system_clock() -> int:
    """Return the time that a file written now would get, or a little less."""
    return time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)
