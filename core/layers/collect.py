"""Garbage collection and disk usage: what can go, and what is where.

Whoever adds layers and refers to them only afterwards (load, import, commit, the making of a
container) holds the lock ``gc`` shared meanwhile (:func:`keeping`); collecting holds it alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from ..effects import effect
from ..errors import Busy, FailedPrecondition, NotFound
from ..model import Kind, SnapshotInfo
from ..store.erase import erase_path
from . import rows
from .context import StoreContext
from .recovery import drop_abandoned, settle_strays, stray_containers, sweep_locks
from .removal import remove

_LOCK = "gc"
_KEEP_SECONDS = 60.0


class Collected(Struct, frozen=True):
    """What ``gc`` did; *size_bytes* counts the removed layers as recorded. *left* names what
    could not be deleted, and why."""

    removed: tuple[SnapshotInfo, ...]
    recipes: int
    locks: int
    size_bytes: int
    left: tuple[str, ...]


class DiskUsage(Struct, frozen=True):
    """What a root occupies, from records: O(1) per layer.

    *layers* are all snapshots; an active one has no recorded usage. *size_bytes* is the sum of
    what is recorded; a layer shared by many counts once.
    """

    layers: tuple[SnapshotInfo, ...]
    size_bytes: int
    recipes_bytes: int
    in_trash: int


@contextmanager
def keeping(context: StoreContext) -> Iterator[None]:
    """Let no layer be collected while the block runs."""
    with context.locks.acquire(
        _LOCK, exclusive=False, subject="the layer store", wait_seconds=_KEEP_SECONDS
    ):
        yield


def collect(context: StoreContext, is_referenced: Callable[[SnapshotInfo], bool]) -> Collected:
    """Remove committed snapshots without children that nothing refers to, then their parents in
    turn; also orphans, unused recipes and lock files, and what is no container's. Drains the trash.

    Raises:
        Busy: if layers are being added at this moment; names by whom.
    """
    with context.locks.acquire(
        _LOCK, exclusive=True, subject="the layer store", purpose="collecting garbage"
    ):
        settle_strays(context)
        drop_abandoned(context)
        removed = list(_remove_unreferenced(context, is_referenced))
    for path in stray_containers(context):
        _erase(path)
    left = context.reaper.drain()
    recipes = context.recipes.sweep()
    size_bytes = sum(info.usage.size_bytes for info in removed if info.usage)
    problems = context.reaper.problems
    texts = tuple(f"{entry.directory}: {problems[entry.directory]}" for entry in left)
    return Collected(tuple(removed), len(recipes), sweep_locks(context), size_bytes, texts)


def _erase(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        erase_path(path)
    else:
        with effect("file.delete", path=path):
            path.unlink(missing_ok=True)


def _remove_unreferenced(
    context: StoreContext, is_referenced: Callable[[SnapshotInfo], bool]
) -> Iterator[SnapshotInfo]:
    connection = context.metastore.read()
    for row in reversed(rows.every(connection)):  # children have higher numbers than parents
        if row.kind is not Kind.COMMITTED or rows.children(connection, row.id):
            continue
        info = row.info()
        if is_referenced(info):
            continue
        try:
            remove(context, row)
        except (Busy, NotFound, FailedPrecondition):  # read at this moment, or a child came
            continue
        yield info


def disk_usage(context: StoreContext) -> DiskUsage:
    """Return what the root occupies, without looking into any layer."""
    layers = tuple(row.info() for row in rows.every(context.metastore.read()))
    recipes_bytes = 0
    for path in context.recipes.paths():
        try:
            recipes_bytes += path.stat().st_size
        except FileNotFoundError:
            continue
    size_bytes = sum(info.usage.size_bytes for info in layers if info.usage)
    return DiskUsage(layers, size_bytes, recipes_bytes, len(context.trash.entries()))
