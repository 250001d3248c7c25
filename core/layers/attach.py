"""Attaching a snapshot: a detached mount by descriptor, with the lease that makes it safe.

Nothing of it is in any mount table; both die with the process. An active snapshot is attached once
at a time (a second mount of the same upper directory would corrupt it); views and committed ones
by any number of readers.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from msgspec import Struct

from ..closing import Closing
from ..errors import StowageError
from ..model import Kind, SnapshotInfo
from ..store.locks import Lease
from . import rows
from .context import StoreContext
from .rows import Row


class Attachment(Struct, Closing):
    """An attached snapshot: *root* is a descriptor of its detached mount's root, for reading.

    Work only by ``*at`` calls beneath it, or attach it in a mount namespace with
    :func:`stowage.linux.mount.move`, which works until :meth:`close` gives up mount and lease.
    """

    info: SnapshotInfo
    root: int
    lease: Lease
    _mount: int = -1

    def close(self) -> None:
        """Give up the mount, then the lease. Idempotent."""
        root, self.root = self.root, -1
        mount, self._mount = self._mount, -1
        for descriptor in (root, mount):
            if descriptor >= 0:
                os.close(descriptor)
        self.lease.close()


def attach(
    context: StoreContext, row: Row, *, read_only: bool = False, purpose: str = ""
) -> Attachment:
    """Attach a snapshot; views and committed ones are always read-only.

    Raises:
        Busy: if it is active and attached, mounted or run by anybody, who is named.
        NotFound: if it was removed meanwhile.
    """
    active = row.kind is Kind.ACTIVE
    if active and not purpose:
        purpose = "has it attached"
    lease, row = context.lease_current(row, exclusive=active, purpose=purpose)
    try:
        if active:
            context.refuse_if_used(row)
            if not read_only:
                mark_written(context, row)
        mount = _open_mount(context, row, read_only=read_only)
        root = _readable(mount)
    except BaseException:
        lease.close()
        raise
    return Attachment(row.info(), root, lease, mount)


def mark_written(context: StoreContext, row: Row) -> None:
    """Record that an active snapshot may hold anything from now on."""
    if row.content != "written":
        context.metastore.transact(lambda tx: rows.set_content(tx, row.id, "written"))
        if row.diff_id is not None:
            context.recipes.release(row.diff_id)


def open_root(context: StoreContext, row: Row, *, read_only: bool) -> int:
    """Return a descriptor, for reading, of the root of a new detached mount.

    The caller holds the lease that this needs. The mount can be used, but not attached anywhere,
    and is gone with the descriptor.
    """
    mount = _open_mount(context, row, read_only=read_only)
    root = _readable(mount)
    os.close(mount)
    return root


def _readable(mount: int) -> int:
    """Open the root of the mount behind an O_PATH descriptor; closes that on failure."""
    try:
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount)
    except BaseException:
        os.close(mount)
        raise


def _open_mount(context: StoreContext, row: Row, *, read_only: bool) -> int:
    """Mount a snapshot, detached, as its driver says.

    A mount that fails with ESTALE tells that the root was copied or restored: the snapshot then
    gets the options that its driver names for that case, and keeps them.
    """
    handle = context.handle(row.driver)
    directory, parents = context.directory(row), context.parents(row)

    def mount(options: tuple[str, ...]) -> int:
        parsed = context.parse_options(row.driver, options)
        return handle.attach(directory, parents, row.kind, parsed, read_only=read_only)

    try:
        return mount(row.options)
    except (StowageError, OSError) as error:
        stale = handle.capabilities.stale_options
        if not stale or not _is_stale(error) or set(stale) <= set(row.options):
            raise
    options = (*row.options, *stale)
    root = mount(options)
    try:
        context.metastore.transact(lambda tx: rows.set_options(tx, row.id, options))
    except BaseException:
        os.close(root)
        raise
    return root


def _is_stale(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno == errno.ESTALE:
            return True
        cause = cause.__cause__
    return False


@contextmanager
def parent_root(context: StoreContext, row: Row) -> Iterator[Callable[[], int] | None]:
    """Give a function that opens the parents' merged tree, read-only; None for a base.

    It is attached at the first call and gone when the block ends; each call returns a descriptor
    that is the caller's to close.
    """
    if row.parent_id is None and row.host_root is None:
        yield None
        return
    attached: list[int] = []

    def lower() -> int:
        if not attached:
            attached.append(_open_parent(context, row))
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=attached[0])

    try:
        yield lower
    finally:
        for descriptor in attached:
            os.close(descriptor)


def _open_parent(context: StoreContext, row: Row) -> int:
    if row.parent_id is None:
        return os.open(row.host_root or "/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    above = rows.by_id(context.metastore.read(), row.parent_id)
    assert above is not None  # a parent lives as long as its child
    return open_root(context, above, read_only=True)
