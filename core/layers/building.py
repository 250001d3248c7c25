"""Making snapshots: prepare, and the commit that publishes a layer whole or not at all.

A snapshot is a *draft* until it is ready: its row says *preparing*, and its maker holds its lease
all the while, so a row in that state whose lease is free has lost its maker. A draft can also be
committed directly; nobody ever sees it half made.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from sqlite3 import Connection

from ..effects import effect
from ..errors import Busy, DataLoss, FailedPrecondition, InvalidArgument, NotSupported, Unavailable
from ..handle import StorageHandle
from ..linux.files import syncfs
from ..model import Kind
from ..options import Options
from ..store.locks import Lease
from . import contents, rows
from .attach import open_root
from .context import StoreContext, file_system_clock
from .digests import chain_id
from .recipe import reassemble
from .rows import Commitment, Row

_ATTEMPTS = 8

_log = logging.getLogger("stowage.layers.building")


@dataclass(slots=True)
class Draft:
    """A snapshot being made; *prepared_ns* is the file system's time when it was prepared."""

    row: Row
    lease: Lease
    prepared_ns: int = 0


def begin(
    context: StoreContext,
    driver: str,
    name: str,
    parent: str | None,
    kind: Kind,
    *,
    labels: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
    host_root: Path | None = None,
) -> Draft:
    """Record a snapshot and have its driver prepare it.

    Raises:
        NotFound, InvalidArgument: if the parent does not exist or is not committed.
        AlreadyExists: if the name is taken.
        InvalidConfig: for options that the driver does not take.
        NotSupported: if it would have more parents than the driver can stack.
    """
    if not name:
        raise InvalidArgument("a snapshot needs a key")
    handle = context.handle(driver)
    parsed = context.parse_options(driver, options)
    below = None if host_root is None else os.fspath(host_root)

    def insert(tx: Connection) -> Row:
        return rows.insert(tx, driver, name, parent, kind, labels or {}, options, below)

    row, lease = _claim(context, insert)
    draft = Draft(row, lease)
    with dropped_on_error(context, draft):
        _prepare(context, handle, row, parsed)
    draft.prepared_ns = file_system_clock()
    return draft


def _claim(context: StoreContext, insert: Callable[[Connection], Row]) -> tuple[Row, Lease]:
    """Insert the row and take its lease before anybody takes it for one without a maker."""
    for _ in range(_ATTEMPTS):
        row = context.metastore.transact(insert)
        try:
            lease = context.lease(row, exclusive=True, purpose="preparing it", wait_seconds=0.1)
        except Busy:
            continue  # a recovery was quicker, and drops the row
        except BaseException as error:
            with undoing(error, f"forget snapshot {row.name!r}"):
                context.metastore.transact(
                    lambda tx, number=row.id: tx.execute(  # type: ignore[misc]  # the loop's row
                        "DELETE FROM snapshots WHERE id = ?", (number,)
                    )
                )
            raise
        with ExitStack() as undo:
            undo.enter_context(lease)
            if rows.by_id(context.metastore.read(), row.id) is not None:
                undo.pop_all()
                return row, lease
            lease.discard()
    raise Unavailable("the snapshot's row was taken for a leftover again and again")


def _prepare(context: StoreContext, handle: StorageHandle, row: Row, options: Options) -> None:
    directory, parents = context.directory(row), context.parents(row)
    _refuse_depth(handle, row, len(parents))
    _make_directory(context, row, directory)
    handle.prepare(directory, parents, row.kind, options)
    _limit(handle, directory, options)


def _refuse_depth(handle: StorageHandle, row: Row, depth: int) -> None:
    most = handle.capabilities.max_depth if depth else 0
    if most and depth > most:
        raise NotSupported(
            f"snapshot {row.name!r} would have {depth} parents",
            details=f"storage driver {handle.name!r} can stack {most} here",
            resolution="flatten the image (export it and import it again), or use another driver",
        )


def _make_directory(context: StoreContext, row: Row, directory: Path) -> None:
    def make() -> None:
        with effect("snapshot.mkdir", path=directory):
            directory.mkdir(mode=0o700)

    try:
        context.metastore.ballast.relieve(make)
    except FileNotFoundError:
        with effect("root.create", path=directory.parent):
            directory.parent.mkdir(mode=0o700, exist_ok=True)
        make()
    except FileExistsError:
        # A loss of power took the row of a snapshot, and with it that its number was given out.
        context.trash.bury_orphan(row.driver, directory)
        make()


def _limit(handle: StorageHandle, directory: Path, options: Options) -> None:
    """Set the quota that Docker's option ``size`` (and ``inodes``) asks for."""
    size, inodes = options.get("size"), options.get("inodes")
    size_bytes = size if isinstance(size, int) and size else None
    count = inodes if isinstance(inodes, int) and inodes else None
    if size_bytes is not None or count is not None:
        handle.set_quota(directory, size_bytes, count)


def ready(context: StoreContext, draft: Draft) -> Row:
    """Let a draft exist for users as what it was prepared as."""
    row = draft.row

    def publish(tx: Connection) -> None:
        rows.set_ready(tx, row.id, draft.prepared_ns)
        context.record(tx, "prepare" if row.kind is Kind.ACTIVE else "view", row)

    with dropped_on_error(context, draft):
        context.metastore.transact(publish)
    draft.lease.close()
    return replace(row, state="ready", prepared_ns=draft.prepared_ns)


@contextmanager
def dropped_on_error(context: StoreContext, draft: Draft) -> Iterator[None]:
    """Take a draft back if the block fails: its name is free at once, its directory goes to the
    trash. The block's own error is raised whatever happens on the way."""
    try:
        yield
    except BaseException as error:
        with undoing(error, f"take snapshot {draft.row.name!r} back"):
            context.discard(draft.row, draft.lease)
        raise


@contextmanager
def undoing(error: BaseException, what: str) -> Iterator[None]:
    """Surround a step that is done because of *error*: its own failure is logged and noted on
    *error*, which is the one to raise. Recovery makes good what it left."""
    try:
        yield
    except Exception as second:  # noqa: BLE001  # whatever it is, the first error is told
        error.add_note(f"then it failed to {what}: {second}")
        _log.warning("cannot %s: %s", what, second)


def commit_draft(
    context: StoreContext, draft: Draft, name: str, labels: Mapping[str, str] | None = None
) -> Row:
    """Publish a draft as a committed snapshot; on any error it is gone.

    Raises:
        AlreadyExists: if the name is taken.
    """
    with dropped_on_error(context, draft):
        row = _current(context, draft.row)
        commitment = _commitment(context, row, name, labels or {})
        _seal(context, row)

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
            commitment = _commitment(context, row, name, labels or {}, begin=True)
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
    labels: Mapping[str, str],
    *,
    begin: bool = False,
) -> Commitment:
    """Work out what is published; with *begin* record it, or else at least the diffID.

    A layer that came as one archive has its recipe and diffID already; any other is packed once,
    to nowhere, for both.
    """
    usage = contents.usage(context, replace(row, usage=None), held=True)

    def record(diff_id: str) -> Commitment:
        chain = _chain(context, row, diff_id)
        commitment = Commitment(name or chain, dict(labels), diff_id, chain, usage)
        if begin:
            context.metastore.transact(lambda tx: rows.begin_commit(tx, row, commitment))
        elif row.diff_id is None:
            context.metastore.transact(lambda tx: rows.set_content(tx, row.id, "applied", diff_id))
        return commitment

    if row.content == "applied" and row.diff_id and context.recipes.path(row.diff_id).exists():
        return record(row.diff_id)
    with context.recipes.draft() as draft:
        packed = contents.pack(context, row, contents.null_sink(), recipe=draft.file, held=True)
        draft.publish(packed.diff_id)
        return record(packed.diff_id)


def _chain(context: StoreContext, row: Row, diff_id: str) -> str:
    above = None
    if row.parent_id is not None:
        above = rows.by_id(context.metastore.read(), row.parent_id)
    return chain_id(above.chain_id if above else None, diff_id)


def _seal(context: StoreContext, row: Row) -> None:
    directory = context.directory(row)
    context.handle(row.driver).seal(directory, context.parents(row))
    if context.sync:
        for path in _apart(directory, context.layout.recipes):
            _sync(path)


def _apart(first: Path, second: Path) -> list[Path]:
    """Return the paths, only one of them if both lie on one file system."""
    return [first] if first.stat().st_dev == second.stat().st_dev else [first, second]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syncfs(descriptor)
    finally:
        os.close(descriptor)
