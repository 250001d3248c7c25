"""The volumes of one root: what the command line, the API and Python users call.

One lock per name (``locks/volume-<hash>``) is held by whoever makes, fills or removes a volume,
never by who uses it. All of it is safe from threads and beside other processes on the same root.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from ..effects import effect
from ..errors import FailedPrecondition, NotFound, NotSupported, StowageError
from ..linux.attributes import make_base
from ..store.erase import erase_path
from ..store.layout import RootLayout
from ..store.locks import Lease, Locks
from ..store.metastore import Metastore
from . import filling, rows
from .names import check_name, new_name
from .rows import DRIVER, VolumeRequest, VolumeRow

if TYPE_CHECKING:
    from ..layers.check import CheckFinding

logger = logging.getLogger("stowage.volumes")

_WAIT_SECONDS = 60.0


class Volume(Struct, frozen=True):
    """A volume; *path* is the directory that containers see, *users* counts them, running or
    not."""

    name: str
    labels: Mapping[str, str]
    created_ns: int
    path: Path
    users: int = 0
    driver: str = DRIVER


class Volumes:
    """All volumes of a root; opening them recovers what killed processes left."""

    def __init__(self, layout: RootLayout, metastore: Metastore) -> None:
        self._layout = layout
        self._metastore = metastore
        self._locks = Locks(layout.locks)
        self.recover()

    # --- looking -----------------------------------------------------------------------------

    def get(self, name: str) -> Volume:
        """Return the volume called *name*.

        Raises:
            NotFound: "No such volume: x".
        """
        row = rows.find(self._metastore.read(), name)
        if row is None or row.state != "ready":
            raise NotFound("volume", name)
        return self._volume(row, len(self.users(name)))

    def list(self) -> Sequence[Volume]:
        """Return every volume, by name."""
        connection = self._metastore.read()
        counts = rows.user_counts(connection)
        return [self._volume(row, counts.get(row.name, 0)) for row in rows.ready(connection)]

    def users(self, name: str) -> Sequence[str]:
        """Return the ids of the containers that use a volume, running or not."""
        return rows.users(self._metastore.read(), name)

    def size_bytes(self, name: str) -> int:
        """Return how long the files of a volume are together; walks through it.

        Raises:
            NotFound: if its directory is gone.
        """
        from ..layers.diff import files_bytes

        try:
            root = os.open(self._layout.volume_data(name), os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            raise NotFound("volume", name) from None
        try:
            return files_bytes(root)
        finally:
            os.close(root)

    def path(self, name: str) -> Path:
        """Return the directory that containers see of a volume."""
        return self._layout.volume_data(name)

    def _volume(self, row: VolumeRow, users: int) -> Volume:
        path = self._layout.volume_data(row.name)
        return Volume(row.name, row.labels, row.created_ns, path, users)

    # --- making and removing -----------------------------------------------------------------

    def create(
        self,
        name: str | None = None,
        *,
        driver: str = DRIVER,
        labels: Mapping[str, str] | None = None,
    ) -> Volume:
        """Make a volume; one that is there already is returned as it is. Without *name* it gets
        64 hex digits.

        Raises:
            InvalidArgument: if the name cannot be one.
            NotSupported: for another driver than ``local``.
        """
        if driver != DRIVER:
            raise unknown_driver(driver, name or "")
        name = check_name(name) if name else new_name()
        with self._locked(name, "is making it"):
            row = self._find(name)
            if row is not None and row.state == "removing":
                self._finish_removal(name)
                row = None
            if row is None:
                self._metastore.transact(lambda tx: rows.insert(tx, name, labels or {}))
            try:
                self._make(name)
                self._metastore.transact(lambda tx: rows.set_ready(tx, name))
            except BaseException:
                self._abandon(name)
                raise
        return self.get(name)

    def remove(self, name: str) -> None:
        """Remove a volume with all that is in it.

        Raises:
            NotFound: "No such volume: x".
            FailedPrecondition: in Docker's words, naming the containers that use it.
        """
        with self._locked(name, "is removing it"):
            self._metastore.transact(lambda tx: self._condemn(tx, name))
            self._finish_removal(name)

    def _condemn(self, tx: sqlite3.Connection, name: str) -> None:
        if rows.find(tx, name) is None:
            raise NotFound("volume", name)
        if users := rows.users(tx, name):
            raise FailedPrecondition(
                f"remove {name}: volume is in use - [{', '.join(users)}]",
                resolution="remove those containers first",
            )
        rows.condemn(tx, name)

    def prune(self, accept: Callable[[Volume], bool] = lambda volume: True) -> Sequence[Pruned]:
        """Remove every volume that no container uses and that *accept* says yes to."""
        pruned = []
        for volume in self.list():
            if volume.users or not accept(volume):
                continue
            try:
                size_bytes = self.size_bytes(volume.name)
                self.remove(volume.name)
            except (NotFound, FailedPrecondition):  # removed or used meanwhile
                continue
            pruned.append(Pruned(volume.name, size_bytes))
        return pruned

    # --- the root as a whole -----------------------------------------------------------------

    def check(self) -> Sequence[CheckFinding]:
        """Return where rows and directories do not fit together; changes nothing."""
        from .checking import findings

        return list(findings(self._layout, self._metastore))

    def sweep(self) -> Sequence[str]:
        """Remove empty directories that nothing is recorded of; returns their names."""
        from .checking import has_content, strays

        swept = []
        for path in strays(self._layout, self._metastore):
            lease = self._locks.try_acquire(_lock_name(path.name), exclusive=True)
            if lease is None:
                continue
            with self._giving_up(lease, path.name):
                if self._find(path.name) is None and not has_content(path):
                    erase_path(path)
                    swept.append(path.name)
        return swept

    # --- for containers ----------------------------------------------------------------------

    def await_removals(self, names: Iterable[str]) -> None:
        """Finish, or wait for, the removal of volumes whose names are wanted again."""
        for name in names:
            row = self._find(name)
            if row is not None and row.state == "removing":
                with self._locked(name, "is removing it"):
                    self._finish_removal(name)

    def make(self, name: str) -> None:
        """Make the directory of a volume that a container has claimed. Idempotent."""
        row = self._find(name)
        if row is not None and row.state == "preparing":
            with self._locked(name, "is making it"):
                self._make(name)

    def fill(self, name: str, open_source: Callable[[], int | None]) -> None:
        """Give an empty volume the contents and attributes of a directory.

        *open_source* is called only if the volume is empty; the descriptor that it returns is
        closed. None: there is nothing to fill it with.

        Raises:
            StowageError, OSError: the volume is as empty as before.
        """
        with self._locked(name, "is filling it"):
            row = self._find(name)
            if row is None:
                raise NotFound("volume", name)
            self._settle_fill(row)
            if os.listdir(self.path(name)):
                return
            source = open_source()
            if source is None:
                return
            try:
                filling.fill(self._layout.volume(name), source, self._recorder(name))
            finally:
                os.close(source)

    def clear(self, names: Iterable[str]) -> None:
        """Remove what is left of condemned volumes; what cannot be removed now goes later."""
        for name in names:
            try:
                with self._locked(name, "is removing it"):
                    self._finish_removal(name)
            except (StowageError, OSError) as error:
                logger.warning("volume %s cannot be removed now: %s", name, error)

    # --- recovery ----------------------------------------------------------------------------

    def recover(self) -> None:
        """Finish or take back what killed processes left; goes on after a failure. Idempotent."""
        for seen in rows.unfinished(self._metastore.read()):
            lease = self._locks.try_acquire(_lock_name(seen.name), exclusive=True)
            if lease is None:
                continue  # somebody is at work on it
            with self._giving_up(lease, seen.name):
                try:
                    self._settle(seen.name)
                except (StowageError, OSError) as error:
                    logger.warning("recovery of volume %s: %s", seen.name, error)

    def _settle(self, name: str) -> None:
        row = self._find(name)
        if row is None:
            return
        if row.state == "removing":
            self._finish_removal(name)
        elif row.state in ("preparing", "made"):
            self._abandon(name)
        else:
            self._settle_fill(row)

    def _settle_fill(self, row: VolumeRow) -> None:
        volume, record = self._layout.volume(row.name), self._recorder(row.name)
        if row.filling == "copying":
            filling.undo(volume, record)
        elif row.filling == "moving":
            filling.finish(volume, record)

    # --- under the lock ----------------------------------------------------------------------

    def _make(self, name: str) -> None:
        row = self._find(name)
        if row is None or row.state != "preparing":
            return
        directory = self._layout.volume(name)
        if self._take_over(name, directory):
            return
        erase_path(directory)
        with effect("volume.make", path=directory):
            directory.mkdir(0o700)
        with effect("volume.make_data", path=directory):
            (directory / "_data").mkdir(0o755)
        make_base(directory / "_data")
        self._metastore.transact(lambda tx: rows.set_made(tx, name))

    def _take_over(self, name: str, directory: Path) -> bool:
        """Keep what a volume whose row was lost holds; it is one in its own right at once."""
        try:
            if not os.listdir(directory / "_data"):
                return False
        except OSError:  # nothing, or nothing of ours
            return False
        erase_path(directory / "_fill")
        logger.warning("volume %s: keeping what its directory holds", name)

        def write(tx: sqlite3.Connection) -> None:
            rows.set_made(tx, name)
            rows.set_ready(tx, name)

        self._metastore.transact(write)
        return True

    def _abandon(self, name: str) -> None:
        """Remove a volume that was never whole, unless a container is being made that wants it."""
        self._metastore.transact(lambda tx: rows.condemn_abandoned(tx, name))
        self._finish_removal(name)

    def _finish_removal(self, name: str) -> None:
        row = self._find(name)
        if row is not None and row.state == "removing":
            erase_path(self._layout.volume(name))
            self._metastore.transact(lambda tx: rows.delete(tx, name))

    def _recorder(self, name: str) -> filling.Record:
        return lambda value: self._metastore.transact(lambda tx: rows.set_filling(tx, name, value))

    def _find(self, name: str) -> VolumeRow | None:
        return rows.find(self._metastore.read(), name)

    @contextmanager
    def _locked(self, name: str, purpose: str) -> Iterator[None]:
        lease = self._locks.acquire(
            _lock_name(name),
            exclusive=True,
            subject=f"volume {name}",
            purpose=purpose,
            wait_seconds=_WAIT_SECONDS,
        )
        with self._giving_up(lease, name):
            yield

    @contextmanager
    def _giving_up(self, lease: Lease, name: str) -> Iterator[None]:
        with lease:
            try:
                yield
            finally:
                if self._find(name) is None:
                    lease.discard()


class Pruned(Struct, frozen=True):
    """A volume that ``prune`` has removed."""

    name: str
    size_bytes: int


def unknown_driver(driver: str, name: str) -> NotSupported:
    """Return Docker's answer to a volume driver that is not there."""
    return NotSupported(
        f'create {name}: error looking up volume plugin {driver}: plugin "{driver}" not found',
        resolution=f"this version has the volume driver '{DRIVER}'",
    )


def _lock_name(name: str) -> str:
    return f"volume-{hashlib.sha256(os.fsencode(name)).hexdigest()[:32]}"


__all__ = ["Pruned", "Volume", "VolumeRequest", "Volumes"]
