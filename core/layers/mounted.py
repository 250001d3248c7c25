"""Real mount points that users ask for, with a row each so that they are found again.

One row per user: a process (``with mounted(key)``), which it dies with, or nobody in particular
(``stowage mount``), until it is unmounted. All users of a snapshot share one mount point; the last
to leave unmounts it. Rows and the mount table together say whether a snapshot is mounted: a row
whose mount is not there is a leftover.
"""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from ..effects import effect
from ..errors import Busy, FailedPrecondition, NotFound
from ..linux import mount as kernel
from ..linux.mountinfo import read_mountinfo
from ..linux.process import ProcessIdentity, describe, identity
from ..records import as_dict
from ..store.holders import holders_of
from ..store.locks import Lease
from . import rows
from .attach import attach
from .context import StoreContext
from .rows import Row


class MountRow(Struct, frozen=True):
    """One user of a mount point; *owner* is None for one that stays until unmounted."""

    id: int
    snapshot_id: int
    path: Path
    device: int
    owner: ProcessIdentity | None

    @property
    def wanted(self) -> bool:
        """Whether anybody still stands behind it."""
        return self.owner is None or self.owner.alive

    @property
    def user(self) -> str:
        who = "a user" if self.owner is None else describe(self.owner.pid)
        return f"{who}: mounted at {self.path}"


class MountPoints:
    """The mount points of one root.

    The lock ``<lease>.mount`` is held while mounts of a snapshot change, never while it is used.
    """

    def __init__(self, context: StoreContext) -> None:
        self._context = context

    def users(self, row: Row) -> list[str]:
        """Return who has the snapshot mounted, as texts; leftovers do not count."""
        found = self._rows("snapshot_id = ?", row.id)
        return sorted({entry.user for entry in found if _is_mounted(entry)})

    def mount(
        self, row: Row, path: Path | None, *, owned: bool, clone: int | None = None
    ) -> MountRow:
        """Mount a snapshot, or join those who have it mounted.

        One that a container runs on is mounted there already: *clone* is a detached copy of that
        mount.

        Raises:
            Busy: if it is attached or run by anybody, or mounted elsewhere than at *path*.
            NotFound: if *path* is no directory.
        """
        with self._changing(row):
            there = self._settled(row.id)
            if there:
                return self._join(row, there, path, owned=owned)
            place = path or self._default_path(row)
            with self._detached(row, clone) as mount:
                entry = self._insert(row, place, os.fstat(mount).st_dev, owned=owned)
                try:
                    self._make_place(place, given=path is not None)
                    kernel.move(mount, place)
                except BaseException:
                    self._forget(entry)
                    raise
            return entry

    @contextmanager
    def _detached(self, row: Row, clone: int | None) -> Iterator[int]:
        if clone is not None:
            yield clone
            return
        with attach(self._context, row, purpose="mounting it") as attached:
            yield attached.root

    def leave(self, row: Row, entry: MountRow) -> None:
        """Stop using a mount point; the last user unmounts it.

        Raises:
            Busy: if a process still uses the mount, which then stays.
        """
        with self._changing(row) as lock:
            others = [other for other in self._settled(row.id) if other.id != entry.id]
            if not others:
                self._take_down(entry)
            self._forget(entry)
            if not others:
                lock.discard()

    def place(self, row: Row) -> Path | None:
        """Return where ``mount`` has mounted a snapshot to stay, or None."""
        there = self._rows("snapshot_id = ? AND owner IS NULL", row.id)
        return there[0].path if there else None

    def unmount(self, path: Path) -> None:
        """Unmount what ``mount`` mounted at *path*.

        Raises:
            NotFound: if nothing of this root is mounted there.
            Busy: if a process uses it, or has it from ``mounted``.
        """
        found = self._rows("path = ?", os.fspath(path))
        if not found:
            raise NotFound("mount", str(path), brief=f"{path} is not mounted by this root")
        row = rows.by_id(self._context.metastore.read(), found[0].snapshot_id)
        if row is None:
            return
        with self._changing(row) as lock:
            there = self._settled(row.id)
            mine = identity()
            others = [e.user for e in there if e.owner is not None and e.owner != mine]
            if others:
                raise Busy(f"cannot unmount {path}", others)
            if there:
                self._take_down(there[0])
            for entry in there:
                self._forget(entry)
            lock.discard()

    def recover(self) -> None:
        """Drop rows without a mount, and unmount what died with its process. Idempotent."""
        numbers = {entry.snapshot_id for entry in self._rows("1 = ?", 1)}
        for number in sorted(numbers):
            row = rows.by_id(self._context.metastore.read(), number)
            if row is None:
                continue
            lease = self._try_changing(row)
            if lease is None:
                continue  # somebody is mounting or unmounting it now
            with lease:
                self._recover_one(row)
                if not self._rows("snapshot_id = ?", number):
                    lease.discard()

    # --- helpers -------------------------------------------------------------------------------

    def _recover_one(self, row: Row) -> None:
        there = self._settled(row.id)
        wanted = [entry for entry in there if entry.wanted]
        unwanted = [entry for entry in there if not entry.wanted]
        try:
            if unwanted and not wanted:
                self._take_down(unwanted[0])
        except Busy:
            return  # a process that outlived its maker uses it: it stays, with its row
        for entry in unwanted:
            self._forget(entry)

    def _join(self, row: Row, there: list[MountRow], path: Path | None, *, owned: bool) -> MountRow:
        place = there[0].path
        if (path is not None and path != place) or not _seen_by("self", there[0]):
            raise Busy(f"snapshot {row.name!r} is in use", [entry.user for entry in there])
        if not owned:
            for entry in there:
                if entry.owner is None:
                    return entry
        return self._insert(row, place, there[0].device, owned=owned)

    def _settled(self, number: int) -> list[MountRow]:
        """Return the rows of what is mounted indeed, and drop the others."""
        there = []
        for entry in self._rows("snapshot_id = ?", number):
            if _is_mounted(entry):
                there.append(entry)
            else:
                self._remove_place(entry.path)
                self._forget(entry)
        return there

    def _take_down(self, entry: MountRow) -> None:
        try:
            kernel.unmount(entry.path)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise Busy(
                    f"cannot unmount {entry.path}",
                    holders_of(entry.path),
                    resolution="end those processes, or let them leave the directory",
                ) from error
            if error.errno not in (errno.EINVAL, errno.ENOENT):  # a user was quicker
                raise
        self._remove_place(entry.path)

    def _default_path(self, row: Row) -> Path:
        root_id = self._context.metastore.root_id
        return self._context.layout.mount_points(root_id) / f"{row.driver}-{row.id}"

    def _make_place(self, place: Path, *, given: bool) -> None:
        if given:
            if not place.is_dir():
                raise NotFound("directory", str(place))
            return
        with effect("mountpoint.create", path=place):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _remove_place(self, place: Path) -> None:
        """Remove a mount point that was ours; one that the user gave stays."""
        if place.parent != self._context.layout.mount_points(self._context.metastore.root_id):
            return
        try:
            with effect("mountpoint.remove", path=place):
                place.rmdir()
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EBUSY, errno.ENOTEMPTY):
                raise

    def _lock(self, row: Row) -> str:
        return f"{self._context.lease_name(row)}.mount"

    def _changing(self, row: Row) -> Lease:
        return self._context.locks.acquire(
            self._lock(row), exclusive=True, subject=f"the mount of snapshot {row.name!r}"
        )

    def _try_changing(self, row: Row) -> Lease | None:
        return self._context.locks.try_acquire(self._lock(row), exclusive=True)

    def _rows(self, condition: str, value: object) -> list[MountRow]:
        found = self._context.metastore.read().execute(
            f"SELECT * FROM mounts WHERE {condition} ORDER BY id", (value,)
        )
        return [_parse(raw) for raw in found.fetchall()]

    def _insert(self, row: Row, place: Path, device: int, *, owned: bool) -> MountRow:
        owner = identity() if owned else None
        text = None if owner is None else json.dumps(as_dict(owner))

        def insert(tx: sqlite3.Connection) -> int:
            if rows.by_id(tx, row.id) is None:
                raise NotFound("snapshot", row.name)
            cursor = tx.execute(
                "INSERT INTO mounts (snapshot_id, path, device, owner) VALUES (?, ?, ?, ?)",
                (row.id, os.fspath(place), device, text),
            )
            self._context.record(tx, "mount", row)
            return cursor.lastrowid or 0

        number = self._context.metastore.transact(insert)
        return MountRow(number, row.id, place, device, owner)

    def _forget(self, entry: MountRow) -> None:
        self._context.metastore.transact(
            lambda tx: tx.execute("DELETE FROM mounts WHERE id = ?", (entry.id,))
        )


def _parse(raw: sqlite3.Row) -> MountRow:
    owner = None if raw["owner"] is None else ProcessIdentity(**json.loads(raw["owner"]))
    return MountRow(raw["id"], raw["snapshot_id"], Path(raw["path"]), raw["device"], owner)


def _is_mounted(entry: MountRow) -> bool:
    """Whether that very mount is there, for us or for its owner's mount namespace."""
    if _seen_by("self", entry):
        return True
    owner = entry.owner
    return owner is not None and owner.alive and _seen_by(str(owner.pid), entry)


def _seen_by(process: str, entry: MountRow) -> bool:
    target = os.fspath(entry.path)
    try:
        if not any(mount.target == target for mount in read_mountinfo(process)):
            return False
        return os.stat(f"/proc/{process}/root{target}").st_dev == entry.device
    except OSError:  # ended meanwhile, or not ours to look at
        return False


def require_absolute(path: Path) -> Path:
    """Return *path* without symlinks; raises FailedPrecondition for a relative one."""
    if not path.is_absolute():
        raise FailedPrecondition(f"the mount point {str(path)!r} is not an absolute path")
    return path.resolve()
