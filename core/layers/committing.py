"""Committing: a snapshot is sealed, synced and published whole, or stays what it was."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from sqlite3 import Connection
from typing import TypeVar

from msgspec.structs import replace

from ..errors import DataLoss, FailedPrecondition, InvalidArgument
from ..linux.files import syncfs
from ..model import Kind, Usage
from . import contents, rows
from .attach import open_root
from .building import Draft, dropped_on_error, undoing
from .context import StoreContext
from .digests import chain_id
from .recipe import reassemble
from .rows import Commitment, Row

T = TypeVar("T")

_log = logging.getLogger("stowage.layers.committing")


def commit_draft(
    context: StoreContext, draft: Draft, name: str, labels: Mapping[str, str] | None = None
) -> Row:
    """Publish a draft as a committed snapshot; on any error it is gone.

    Raises:
        AlreadyExists: if the name is taken.
    """
    with dropped_on_error(context, draft):
        row = _current(context, draft.row)
        diff_id = _with_recipe(context, row, lambda found: _applied(context, row, found))
        with _sealing(context, row):
            usage = _usage(context, row)
        commitment = _commitment(context, row, name, labels, diff_id, usage)

        def publish(tx: Connection) -> None:
            rows.refuse_taken(tx, row.driver, name)
            rows.publish(tx, row.id, commitment, draft.prepared_ns)
            context.record(tx, "commit", row, name)

        context.metastore.transact(publish)
    with draft.lease:
        return _current(context, row)


def commit(
    context: StoreContext, row: Row, name: str | None, labels: Mapping[str, str] | None = None
) -> Row:
    """Turn an active snapshot into the committed one *name* (None: named by its chainID); on
    any error it stays active.

    The order makes a kill harmless: the recipe, then the intent (which reserves the name), then
    the driver's seal, the sync, and the publication in one transaction. A kill after the intent,
    or an error after which not even the intent can be taken back, is made good by :func:`settle`
    before anybody uses the snapshot again.
    """
    if name == "":
        raise InvalidArgument("a committed snapshot needs a name")
    if name is not None:
        rows.refuse_taken(context.metastore.read(), row.driver, name)
    _refuse_not_active(row)
    lease, row = context.lease_current(row, exclusive=True, purpose="committing it")
    with lease:
        _refuse_not_active(row)
        context.refuse_if_used(row)
        try:
            usage = _usage(context, row)

            def begin_commit(diff_id: str) -> Commitment:
                commitment = _commitment(context, row, name, labels, diff_id, usage)
                context.metastore.transact(lambda tx: rows.begin_commit(tx, row, commitment))
                return commitment

            commitment = _with_recipe(context, row, begin_commit)
            _seal(context, row)
            _publish(context, row, commitment)
        except BaseException as error:
            with undoing(error, f"take the commit of snapshot {row.name!r} back"):
                context.metastore.transact(lambda tx: rows.cancel_commit(tx, row.id))
            raise
        return _current(context, row)


def settle(context: StoreContext, row: Row) -> Row:
    """Finish a commit that lost its process, or take it back if the snapshot no longer holds what
    was to be published (lost with the power, or written since). Returns the row as it is then.

    The caller holds the exclusive lease.

    Raises:
        Busy: if a mount or a container uses the snapshot.
        StowageError, OSError: what keeps it from being sealed. Nothing is changed in either case.
    """
    commitment = row.committing
    assert commitment is not None
    context.refuse_if_used(row)
    if row.content == "applied" and row.diff_id == commitment.diff_id:
        _seal(context, row)
        if _holds(context, row, commitment.diff_id):
            _publish(context, row, commitment)
            return _current(context, row)
    _log.warning("the commit of snapshot %r is taken back: it has changed since", row.name)

    def take_back(tx: Connection) -> None:
        rows.cancel_commit(tx, row.id)
        rows.set_content(tx, row.id, "written")

    context.metastore.transact(take_back)
    context.recipes.release(commitment.diff_id)
    return _current(context, row)


def _holds(context: StoreContext, row: Row, diff_id: str) -> bool:
    """Whether a sealed snapshot gives the archive with that diffID; reads every file."""
    sealed = replace(row, kind=Kind.COMMITTED)
    try:
        with context.recipes.open(diff_id) as recipe:
            root = open_root(context, sealed, read_only=True)
            try:
                return reassemble(recipe, root, contents.null_sink()) == diff_id
            finally:
                os.close(root)
    except DataLoss:
        return False


def _refuse_not_active(row: Row) -> None:
    if row.kind is not Kind.ACTIVE:
        raise FailedPrecondition(f"snapshot {row.name!r} is not active")


def _current(context: StoreContext, row: Row) -> Row:
    now = rows.by_id(context.metastore.read(), row.id)
    assert now is not None  # its lease is ours
    return now


def _publish(context: StoreContext, row: Row, commitment: Commitment) -> None:
    def publish(tx: Connection) -> None:
        rows.publish(tx, row.id, commitment)
        context.record(tx, "commit", row, commitment.name)

    context.metastore.transact(publish)


def _commitment(
    context: StoreContext,
    row: Row,
    name: str | None,
    labels: Mapping[str, str] | None,
    diff_id: str,
    usage: Usage,
) -> Commitment:
    chain = _chain(context, row, diff_id)
    return Commitment(name or chain, dict(labels or {}), diff_id, chain, usage)


def _with_recipe(context: StoreContext, row: Row, record: Callable[[str], T]) -> T:
    """Call *record* with the diffID of a snapshot whose recipe is there; it makes a row refer to
    it, and nobody collects the recipe until then.

    A layer that came as one archive has its recipe already; any other is packed once, to nowhere.
    """
    if row.content == "applied" and row.diff_id and context.recipes.path(row.diff_id).exists():
        return record(row.diff_id)
    with context.recipes.draft() as draft:
        packed = contents.pack(context, row, contents.null_sink(), recipe=draft.file, held=True)
        draft.publish(packed.diff_id)
        return record(packed.diff_id)


def _applied(context: StoreContext, row: Row, diff_id: str) -> str:
    if row.diff_id is None:
        context.metastore.transact(lambda tx: rows.set_content(tx, row.id, "applied", diff_id))
    return diff_id


def _usage(context: StoreContext, row: Row) -> Usage:
    return contents.usage(context, replace(row, usage=None), held=True)


def _chain(context: StoreContext, row: Row, diff_id: str) -> str:
    above = None
    if row.parent_id is not None:
        above = rows.by_id(context.metastore.read(), row.parent_id)
    return chain_id(above.chain_id if above else None, diff_id)


def _seal(context: StoreContext, row: Row) -> None:
    with _sealing(context, row):
        pass


@contextmanager
def _sealing(context: StoreContext, row: Row) -> Iterator[None]:
    """Seal a snapshot, and write back what it holds while the block reads in it."""
    directory = context.directory(row)
    context.handle(row.driver).seal(directory, context.parents(row))
    if not context.sync:
        yield
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1, "stowage-sync") as beside:
        synced = beside.submit(_sync, _apart(directory, context.layout.recipes))
        yield
        synced.result()


def _apart(first: Path, second: Path) -> list[Path]:
    """Return the paths, only one of them if both lie on one file system."""
    return [first] if first.stat().st_dev == second.stat().st_dev else [first, second]


def _sync(paths: Iterable[Path]) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syncfs(descriptor)
        finally:
            os.close(descriptor)
