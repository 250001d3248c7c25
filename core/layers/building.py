"""Making snapshots, whole or not at all.

A snapshot is a *draft* until it is ready: its row says *preparing*, and its maker holds its lease
all the while, so a row in that state whose lease is free has lost its maker. A draft can also be
committed directly; nobody ever sees it half made.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from sqlite3 import Connection

from msgspec import Struct
from msgspec.structs import replace

from ..effects import effect
from ..errors import InvalidArgument, NotSupported, Unavailable
from ..handle import StorageHandle
from ..model import Kind
from ..options import Options
from ..store.locks import Lease
from . import rows
from .context import StoreContext, file_system_clock
from .rows import Row

_ATTEMPTS = 8
_CLAIM_SECONDS = 30.0
"""How long a recovery that took a new row for a leftover may need to drop it; it may have to wait
for the metastore."""

_log = logging.getLogger("stowage.layers.building")


class Draft(Struct):
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
    """Insert the row and take its lease.

    A recovery that comes between the two takes the row for one without a maker. Its lease is
    waited for: until the row is dropped, its name is taken.
    """
    for _ in range(_ATTEMPTS):
        row = context.metastore.transact(insert)
        try:
            lease = context.lease(
                row, exclusive=True, purpose="preparing it", wait_seconds=_CLAIM_SECONDS
            )
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
