"""What a snapshot holds: its changes, archive and size, by the shortest way its driver allows.

A driver with a diff tree is read without mounting anything; any other by comparing the snapshot's
root with its parent's. The codec does the reading and writing; here it is only decided on what.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, BinaryIO, cast

from ..errors import DataLoss, FailedPrecondition, NotFound, StowageError
from ..model import Change, ChangeKind, Kind, LayerTree, Usage
from . import rows
from .attach import attach, mark_written, open_root, parent_root
from .context import StoreContext
from .diff import Packed, compare_changes, pack_comparison, pack_tree, tree_changes, tree_usage
from .recipe import reassemble, verify
from .rows import Row
from .tree import Tree, shown
from .unpack import Unpacked, UnpackLimits, unpack

_BLOCK_BYTES = 512  # the unit of st_blocks (stat(2))


class _Nowhere(io.RawIOBase):
    def writable(self) -> bool:
        return True

    def write(self, chunk: Any) -> int:  # any buffer; its type has a name only from 3.12 on
        return memoryview(chunk).nbytes


def null_sink() -> BinaryIO:
    """Return a file that forgets what is written to it."""
    return cast(BinaryIO, _Nowhere())


def changes(context: StoreContext, row: Row, root: int | None = None) -> list[Change]:
    """Return what a snapshot changed relative to its parent, sorted by path.

    *root* is a descriptor of its merged tree where it is attached already.
    """
    if row.kind is Kind.VIEW:
        return []
    with _reading(context, row), _change_tree(context, row) as tree:
        if tree is not None:
            return sorted(tree_changes(tree))
    with _roots(context, row, root) as (parent, child):
        return sorted(
            compare_changes(
                parent,
                child,
                sealed_ns=row.prepared_ns,
                candidates=_candidates(context, row),
            )
        )


def pack(
    context: StoreContext,
    row: Row,
    out: BinaryIO,
    *,
    root: int | None = None,
    recipe: BinaryIO | None = None,
    held: bool = False,
) -> Packed:
    """Write the archive of what a snapshot changed relative to its parent; deterministic.

    With *held* the caller holds the snapshot's exclusive lease.
    """
    with _reading(context, row), _change_tree(context, row) as tree:
        if tree is not None:
            return pack_tree(tree, out, recipe=recipe)
    with _roots(context, row, root, held=held) as (parent, child):
        return pack_comparison(
            parent,
            child,
            out,
            sealed_ns=row.prepared_ns,
            candidates=_candidates(context, row),
            recipe=recipe,
        )


def pack_against(
    context: StoreContext, row: Row, other: Row | None, out: BinaryIO, *, root: int | None = None
) -> Packed:
    """Write the archive that turns *other* (None: nothing) into the snapshot."""
    with ExitStack() as stack:
        parent = None
        if other is not None:
            parent = stack.enter_context(attach(context, other, read_only=True)).root
        child = stack.enter_context(_child_root(context, row, root))
        return pack_comparison(parent, child, out, sealed_ns=None)


def apply(
    context: StoreContext, row: Row, stream: BinaryIO, limits: UnpackLimits | None = None
) -> Unpacked:
    """Unpack an archive into an active snapshot whose exclusive lease the caller holds.

    On a pristine one the archive's recipe is kept and the row gets its diffID. After an error
    the contents are undefined: the snapshot is to be removed.
    """
    limits = limits or UnpackLimits()
    if row.kind is not Kind.ACTIVE:
        raise FailedPrecondition(f"snapshot {row.name!r} is not active")
    if row.content != "pristine":
        with _apply_tree(context, row, native=False) as tree:
            return unpack(stream, tree, limits=limits)
    if row.state == "ready":  # while it is being prepared a kill drops it altogether
        mark_written(context, row)
    with context.recipes.draft() as draft:
        with _apply_tree(context, row, native=True) as tree:
            unpacked = unpack(stream, tree, recipe=draft.file, limits=limits)
        draft.publish(unpacked.diff_id)
        context.metastore.transact(
            lambda tx: rows.set_content(tx, row.id, "applied", unpacked.diff_id)
        )
    return unpacked


def usage(context: StoreContext, row: Row, *, held: bool = False) -> Usage:
    """Return what a snapshot occupies without its parents: as recorded, or counted now."""
    if row.usage is not None:
        return row.usage
    handle = context.handle(row.driver)
    counted = handle.usage(context.directory(row), context.parents(row))
    if counted is not None:
        return counted
    if row.kind is Kind.VIEW:
        return Usage(0, 0)
    with _reading(context, row), _change_tree(context, row) as tree:
        if tree is not None:
            return tree_usage(tree)
    with _roots(context, row, None, held=held) as (parent, child):
        return _usage_of(child, compare_changes(parent, child, sealed_ns=row.prepared_ns))


def export(context: StoreContext, row: Row, out: BinaryIO) -> str:
    """Write a committed layer's archive as it came, byte for byte; returns its diffID.

    Raises:
        DataLoss: naming the file that is not what it was.
    """
    if row.kind is not Kind.COMMITTED or row.diff_id is None:
        raise FailedPrecondition(f"snapshot {row.name!r} is not committed")
    with context.recipes.open(row.diff_id) as recipe, attach(context, row) as attached:
        diff_id = reassemble(recipe, attached.root, out)
    if diff_id != row.diff_id:
        raise DataLoss(
            f"layer {row.name!r} is not what was stored",
            details=f"its archive has {diff_id} instead of {row.diff_id}",
        )
    return diff_id


def differing(context: StoreContext, row: Row) -> dict[str, str]:
    """Return the paths of a committed layer that are not what its recipe says, and how.

    Raises:
        DataLoss: if the recipe is damaged.
    """
    from .described import describe
    from .holding import differences

    assert row.diff_id is not None  # committed
    with context.recipes.open(row.diff_id) as recipe, attach(context, row) as attached:
        found = dict.fromkeys(verify(recipe, attached.root), "is gone or has changed")
        with parent_root(context, row) as lower:
            parent = None if lower is None else lower()
            try:
                description = describe(recipe, attached.root, parent)
                changed = changes(context, row, attached.root)
                for place, how in differences(description, attached.root, parent, changed):
                    path = shown(place)
                    found[path] = f"{found[path]}, {how}" if path in found else how
            finally:
                if parent is not None:
                    os.close(parent)
    return found


# --- what the codec works on -----------------------------------------------------------------


@contextmanager
def _reading(context: StoreContext, row: Row) -> Iterator[None]:
    """Keep a snapshot from being removed while its tree is walked.

    A running one has its lease taken: its holder keeps it then, and what is read is a moment of
    it. Raises NotFound if it went all the same.
    """
    lease = context.locks.try_acquire(context.lease_name(row), exclusive=False)

    def gone() -> bool:
        return rows.by_id(context.metastore.read(), row.id) is None

    try:
        if lease is not None and gone():
            context.discard_remade(row, lease)
            raise NotFound("snapshot", row.name)
        try:
            yield
        except (OSError, StowageError) as error:
            if lease is None and gone():
                raise NotFound("snapshot", row.name) from error
            raise
        if lease is None and gone():
            raise NotFound("snapshot", row.name)
    finally:
        if lease is not None:
            lease.close()


@contextmanager
def _change_tree(context: StoreContext, row: Row) -> Iterator[Tree | None]:
    handle = context.handle(row.driver)
    native = handle.diff_tree(context.directory(row), context.parents(row))
    if native is None:
        yield None
        return
    with _opened(context, row, native) as tree:
        yield tree


@contextmanager
def _apply_tree(context: StoreContext, row: Row, *, native: bool) -> Iterator[Tree]:
    handle = context.handle(row.driver)
    own = handle.apply_tree(context.directory(row), context.parents(row)) if native else None
    if own is not None:
        with _opened(context, row, own) as tree:
            # a base hides nothing, and overlayfs shows the marks of directories that it does not
            # merge with any
            yield tree if tree.lower else Tree(tree.root, xattr_prefix=tree.xattr_prefix)
        return
    root = open_root(context, row, read_only=False)
    try:
        yield Tree(root)
    finally:
        os.close(root)


@contextmanager
def _opened(context: StoreContext, row: Row, native: LayerTree) -> Iterator[Tree]:
    with parent_root(context, row) as lower:
        root = os.open(native.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield Tree(root, native.form, native.xattr_prefix, native.whiteout_xattr, lower)
        finally:
            os.close(root)


@contextmanager
def _roots(
    context: StoreContext, row: Row, root: int | None, *, held: bool = False
) -> Iterator[tuple[int | None, int]]:
    """Give the merged trees of the parent (None for a base) and of the snapshot itself."""
    with parent_root(context, row) as lower, _child_root(context, row, root, held) as child:
        parent = lower() if lower is not None else None
        try:
            yield parent, child
        finally:
            if parent is not None:
                os.close(parent)


@contextmanager
def _child_root(
    context: StoreContext, row: Row, root: int | None, held: bool = False
) -> Iterator[int]:
    if root is not None:
        yield root
        return
    if held:
        descriptor = open_root(context, row, read_only=True)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
        return
    with attach(context, row, read_only=True, purpose="reading it") as attached:
        yield attached.root


def _candidates(context: StoreContext, row: Row) -> Iterable[Change] | None:
    return context.handle(row.driver).changes(context.directory(row), context.parents(row))


def _usage_of(root: int, found: Iterable[Change]) -> Usage:
    size_bytes, inodes = 0, set()
    for change in found:
        if change.kind is ChangeKind.DELETED:
            continue
        try:
            facts = os.stat(change.path.lstrip(b"/") or b".", dir_fd=root, follow_symlinks=False)
        except FileNotFoundError:
            continue  # live: gone meanwhile
        if (facts.st_dev, facts.st_ino) not in inodes:
            inodes.add((facts.st_dev, facts.st_ino))
            size_bytes += facts.st_blocks * _BLOCK_BYTES
    return Usage(size_bytes, len(inodes))
