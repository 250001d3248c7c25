"""Recovery: making good what a killed process or a loss of power left behind.

A look at the metastore says in well under a millisecond whether there is anything to do. What is
unfinished is told from what somebody is working on by its lease, so recovery is safe beside live
processes. A look at every directory is only needed after a boot: within one the row always comes
before the directory.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import NotFound, StowageError
from ..linux.process import boot_id
from ..store.locks import Lease
from . import rows
from .context import StoreContext
from .mounted import MountPoints
from .rows import Row

_PRESENCE = "users"
_BOOT = "boot-id"
_WAIT_SECONDS = 60.0
_PROBE_SECONDS = 60.0
"""A scratch directory older than this has lost its probe."""

_CONTAINER = re.compile(r"[0-9a-f]{64}")

_log = logging.getLogger("stowage.layers.recovery")


def open_root(context: StoreContext, mounts: MountPoints) -> Lease:
    """Recover what needs it, and return a lease that tells others that the root is in use."""
    alone = context.locks.try_acquire(_PRESENCE, exclusive=True)
    if alone is None:
        presence = _be_present(context)
        if _unfinished(context):
            recover(context, mounts)
        return presence
    with alone:
        rebooted = context.metastore.setting(_BOOT) != boot_id()
        if rebooted:
            settle_strays(context)  # first: what comes next looks into directories
        if rebooted or _unfinished(context):
            touched = recover(context, mounts)
            if rebooted:
                touched |= _recover_everything(context)
            _recover_drivers(context, touched)
            if touched:
                sweep_locks(context)
                context.recipes.sweep()
        if context.recipes.staged():
            context.recipes.sweep()
        _remove_scratch(context.layout.storage)
    return _be_present(context)


def recover(context: StoreContext, mounts: MountPoints) -> set[str]:
    """Finish or take back what is unfinished; safe at any time. Returns the drivers concerned."""
    touched = drop_abandoned(context)
    mounts.recover()
    if context.trash.entries():
        context.reaper.nudge()
    return touched


def drop_abandoned(context: StoreContext) -> set[str]:
    """Take back snapshots whose maker is gone, and settle the commits of such.

    Returns the drivers concerned.
    """
    touched = set()
    for row in rows.unfinished(context.metastore.read()):
        with _abandoned(context, row) as found:
            if found is not None:
                touched.add(row.driver)
    return touched


@contextmanager
def _abandoned(context: StoreContext, row: Row) -> Iterator[Row | None]:
    lease = context.locks.try_acquire(context.lease_name(row), exclusive=True)
    if lease is None:
        yield None
        return
    with lease:
        now = rows.by_id(context.metastore.read(), row.id)
        if now is None:
            lease.discard()
        elif now.state != "ready":
            context.discard(now, lease)
        elif now.committing is not None:
            _settle(context, now)
        yield now


def _settle(context: StoreContext, row: Row) -> None:
    from .committing import settle

    try:
        settle(context, row)
    except (StowageError, OSError) as error:  # it stays as it is; the next who wants it tries again
        _log.warning("the commit of snapshot %r cannot be finished: %s", row.name, error)


def sweep_locks(context: StoreContext) -> int:
    """Delete the lock files of snapshots that are gone; returns how many."""
    names = [path.name for path in context.layout.locks.iterdir()]
    alive = {row.id for row in rows.every(context.metastore.read(), state=None)}
    swept = 0
    for name in names:
        tail = name.removesuffix(".mount").rpartition("-")[2]
        if tail.isdigit() and int(tail) not in alive and context.locks.discard(name):
            swept += 1
    return swept


def orphans(context: StoreContext) -> Iterator[tuple[str, Path]]:
    """Yield (driver, directory) of every snapshot's directory that no row knows.

    Directories are listed before rows are read: one whose row is gone by then is gone itself, or
    is in the trash, or on its way there.
    """
    listed = [
        (driver.name, directory)
        for driver in _directories(context.layout.storage)
        for directory in _directories(driver)
        if directory.name.isdigit() and not driver.name.startswith(".")  # a probe's scratch
    ]
    known = {(row.driver, str(row.id)) for row in rows.every(context.metastore.read(), state=None)}
    known |= {(entry.driver, str(entry.number)) for entry in context.trash.entries()}
    for driver, directory in listed:
        if (driver, directory.name) not in known and directory.exists():
            yield driver, directory


def removable(context: StoreContext, driver: str) -> bool:
    """Whether a driver of that name is there: without it nothing of its own can be deleted."""
    try:
        context.handle(driver)
    except StowageError:
        return False
    return True


def stray_trash(context: StoreContext) -> Iterator[Path]:
    """Yield directories in the trash that no row knows."""
    listed = _directories(context.layout.trash)
    known = {entry.directory for entry in context.trash.entries()}
    for directory in listed:
        if directory.name not in known and directory.exists():
            yield directory


def settle_strays(context: StoreContext) -> None:
    """Have rows and directories agree again, after a loss of power took the last transactions.

    A directory in the trash whose snapshot has its row goes back to it: the removal is undone
    whole. Any other that no row knows is left to the reaper, but stays if its driver is not there.
    Safe at any time.
    """
    for driver, directory in orphans(context):
        if removable(context, driver):
            context.trash.bury_orphan(driver, directory)
    for directory in stray_trash(context):
        row = row_of_stray(context, directory)
        driver = directory.name.rpartition("-")[0]
        restored = row is not None and context.trash.restore(row.driver, row.id)
        if not restored and removable(context, driver):
            context.trash.bury_orphan(driver, directory)


def row_of_stray(context: StoreContext, directory: Path) -> Row | None:
    """Return the row whose directory lies in the trash although nobody removed it.

    For a directory of :func:`stray_trash`: a removal that did happen took the row before it moved
    the directory.
    """
    driver, _, number = directory.name.rpartition("-")
    row = rows.by_id(context.metastore.read(), int(number)) if number.isdigit() else None
    return row if row is not None and row.driver == driver else None


def stray_containers(context: StoreContext) -> Iterator[Path]:
    """Yield what lies among the containers' directories and is none by its name.

    One that is named by an id and has no row is what a kill left; the recovery of containers,
    which knows their locks, removes it.
    """
    try:
        listed = sorted(context.layout.containers.iterdir())
    except FileNotFoundError:
        return
    for path in listed:
        if not _CONTAINER.fullmatch(path.name):
            yield path


def _directories(path: Path) -> list[Path]:
    try:
        return sorted(entry for entry in path.iterdir() if entry.is_dir())
    except FileNotFoundError:
        return []


def _be_present(context: StoreContext) -> Lease:
    return context.locks.acquire(
        _PRESENCE, exclusive=False, subject="the root", wait_seconds=_WAIT_SECONDS
    )


def _remove_scratch(storage: Path) -> None:
    """Remove what killed probes left beside the drivers' directories (``.probe-…``)."""
    with os.scandir(storage) as entries:
        stale = [
            entry.name
            for entry in entries
            if entry.name.startswith(".")
            and time.time() - entry.stat(follow_symlinks=False).st_mtime > _PROBE_SECONDS
        ]
    if stale:
        from ..store.erase import erase_path

        for name in stale:
            erase_path(storage / name)


def _unfinished(context: StoreContext) -> bool:
    (found,) = (
        context.metastore.read()
        .execute(
            "SELECT EXISTS (SELECT 1 FROM snapshots "
            "WHERE state != 'ready' OR committing IS NOT NULL) "
            "OR EXISTS (SELECT 1 FROM trash) OR EXISTS (SELECT 1 FROM mounts)"
        )
        .fetchone()
    )
    return bool(found)


def _recover_everything(context: StoreContext) -> set[str]:
    """After a boot: a loss of power may have lost rows whose recipes and locks are there."""
    context.recipes.sweep()
    sweep_locks(context)
    context.reaper.nudge()
    context.metastore.change(_BOOT, boot_id())
    return {row.driver for row in rows.every(context.metastore.read())}


def _recover_drivers(context: StoreContext, drivers: Iterable[str]) -> None:
    for driver in sorted(drivers):
        alive = rows.every(context.metastore.read(), driver)
        try:
            context.handle(driver).recover([context.directory(row) for row in alive])
        except NotFound as error:  # its distribution is not installed any more; ``check`` says so
            _log.warning("driver %r cannot be recovered: %s", driver, error)
        except StowageError as error:
            _log.warning("driver %r could not put its things in order: %s", driver, error)
