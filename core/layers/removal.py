"""Removing a snapshot: one transaction, one rename; the reaper does the rest.

After the transaction the snapshot is gone for everybody and its name is free.
"""

from __future__ import annotations

from sqlite3 import Connection

from ..errors import NotFound
from ..model import Kind
from ..store.trash import TrashEntry
from . import rows
from .context import StoreContext
from .recovery import drop_abandoned
from .rows import Row


def remove(context: StoreContext, row: Row) -> None:
    """Remove a snapshot; its parent is never touched.

    Raises:
        FailedPrecondition: if it is the parent of others.
        Busy: if anybody uses it, who is named.
        NotFound: if it was removed meanwhile.
    """
    _refuse_parent(context, row)
    lease, row = context.lease_current(row, exclusive=True, settle=False)
    try:
        context.refuse_if_used(row)

        def forget(tx: Connection) -> TrashEntry:
            now = rows.by_id(tx, row.id)
            if now is None or now.name != row.name:
                raise NotFound("snapshot", row.name)
            rows.refuse_with_children(tx, now)
            context.record(tx, "remove", row)
            return context.trash.forget(tx, row.driver, row.id)

        entry = context.metastore.transact(forget)
        context.trash.bury(entry)
        lease.discard()
    finally:
        lease.close()
    context.reaper.nudge()


def _refuse_parent(context: StoreContext, row: Row) -> None:
    if row.kind is not Kind.COMMITTED:
        return
    below = rows.children(context.metastore.read(), row.id)
    if any(child.state != "ready" for child in below):
        drop_abandoned(context)
    rows.refuse_with_children(context.metastore.read(), row)
