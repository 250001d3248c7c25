"""Whole layers in and out: adding one from an archive, and bringing a chain to another driver."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from typing import BinaryIO, Literal, cast

from msgspec import Struct

from ..effects import effect
from ..errors import AlreadyExists, DataLoss, InvalidArgument, NotFound
from ..model import Kind
from . import contents, rows
from .attach import attach
from .building import Draft, begin, dropped_on_error
from .committing import commit_draft
from .context import StoreContext
from .diff import differing_contents
from .digests import chain_id
from .rows import Row
from .tree import shown
from .unpack import UnpackLimits

_IN_MEMORY_BYTES = 4 << 20


def add_layer(
    context: StoreContext,
    driver: str,
    stream: BinaryIO,
    parent_chain: str | None,
    *,
    labels: Mapping[str, str] | None = None,
    diff_id: str | None = None,
    limits: UnpackLimits | None = None,
) -> Row:
    """Unpack an archive as a committed layer named by its chainID, and return it.

    With *diff_id* the archive must have that one, and where the layer is there already nothing is
    read. Two processes that add the same layer end with one.

    Raises:
        NotFound: if the parent is not there.
        InvalidArchive: for an archive that cannot be unpacked safely; nothing of it is left.
        DataLoss: if it has another diffID than *diff_id*.
    """
    if diff_id is not None:
        there = rows.find(context.metastore.read(), driver, chain_id(parent_chain, diff_id))
        if there is not None and there.state == "ready":
            return there
    key = f"adding-{os.urandom(8).hex()}"
    draft = begin(context, driver, key, parent_chain, Kind.ACTIVE)
    name = _unpack(context, draft, stream, parent_chain, diff_id, limits)
    try:
        return commit_draft(context, draft, name, labels)
    except AlreadyExists:
        return context.get(driver, name)


def _unpack(
    context: StoreContext,
    draft: Draft,
    stream: BinaryIO,
    parent_chain: str | None,
    diff_id: str | None,
    limits: UnpackLimits | None,
) -> str:
    with dropped_on_error(context, draft):
        unpacked = contents.apply(context, draft.row, stream, limits)
        if diff_id is not None and unpacked.diff_id != diff_id:
            raise DataLoss(
                "the layer's archive is not the one that was meant",
                details=f"expected diffID {diff_id}, got {unpacked.diff_id}",
            )
        return chain_id(parent_chain, unpacked.diff_id)


class Step(Struct, frozen=True):
    """How far a chain has come: what is done now to its layer *number* of *total*, base first."""

    doing: Literal["copying", "verifying"]
    layer: str
    number: int
    total: int


def _tell_nobody(step: Step) -> None:
    """Show no progress."""


def bring(
    context: StoreContext,
    name: str,
    source: str,
    target: str,
    *,
    verify: bool = False,
    told: Callable[[Step], object] = _tell_nobody,
) -> list[str]:
    """Have the chain of the committed layer *name* on the driver *target* too.

    Each layer is taken out by its recipe and unpacked there; what is there already is kept.
    In the end both drivers' trees are compared: a recipe does not tell of what it leaves out.
    With *verify*, *target* must then give every layer's archive back byte for byte, also those
    it had before. Returns the names of the layers that were copied, base first.

    Raises:
        NotFound: if *source* does not have it.
        AlreadyExists: if *target* has another layer of the same name.
        DataLoss: if a layer is not what was stored. Where only the trees differ, the one on
            *target* is what was stored, and stays.
    """
    top = context.get(source, name)
    if top.kind is not Kind.COMMITTED:
        raise InvalidArgument(f"snapshot {name!r} is not committed")
    chain = [*reversed(rows.parents(context.metastore.read(), top.id)), top]
    if not verify and _has(context, target, top):
        return []
    brought = []
    for number, row in enumerate(chain, 1):
        if not _has(context, target, row):
            told(Step("copying", row.name, number, len(chain)))
            _bring_one(context, row, target)
            brought.append(row.name)
    for number, row in enumerate(chain if verify else (), 1):
        told(Step("verifying", row.name, number, len(chain)))
        _require_archive(context, context.get(target, row.name), row)
    _require_same(context, top, context.get(target, name))
    return brought


def _require_archive(context: StoreContext, brought: Row, row: Row) -> None:
    """Raises DataLoss unless *brought* gives back the archive that *row* is known for."""
    with effect("layer.verify"):
        nowhere = open(os.devnull, "wb")  # noqa: SIM115  # closed just below
    with nowhere:
        diff_id = contents.export(context, brought, nowhere)
    if diff_id != row.diff_id:
        raise DataLoss(f"layer {row.name!r} on {brought.driver!r} is not the one on {row.driver!r}")


def _require_same(context: StoreContext, row: Row, brought: Row) -> None:
    with (
        attach(context, row, read_only=True) as one,
        attach(context, brought, read_only=True) as other,
    ):
        path = next(differing_contents(one.root, other.root), None)
    if path is not None:
        raise DataLoss(
            f"layer {row.name!r} is not what was stored",
            details=f"{shown(path)} on {row.driver!r} is not what the archives of its chain give",
            resolution=f"use it on {brought.driver!r}, or remove it and load its image again",
        )


def _bring_one(context: StoreContext, row: Row, target: str) -> None:
    if row.host_root is not None:
        raise InvalidArgument(f"layer {row.name!r} lies on a directory of the host")
    draft = begin(context, target, f"bringing-{os.urandom(8).hex()}", row.parent, Kind.ACTIVE)
    with dropped_on_error(context, draft):
        with _spool(context) as archive:
            contents.export(context, row, archive)
            archive.seek(0)
            unpacked = contents.apply(context, draft.row, archive)
        if unpacked.diff_id != row.diff_id:
            raise DataLoss(f"layer {row.name!r} changed on its way to {target!r}")
    try:
        commit_draft(context, draft, row.name, row.labels)
    except AlreadyExists:
        pass  # another process was quicker


def _has(context: StoreContext, driver: str, row: Row) -> bool:
    """Tell whether *driver* has the layer *row* too; AlreadyExists if that name is another's."""
    try:
        there = context.get(driver, row.name)
    except NotFound:
        return False
    if (there.kind, there.chain_id) != (row.kind, row.chain_id):
        raise AlreadyExists(
            "snapshot",
            row.name,
            brief=f"{driver!r} has another snapshot called {row.name!r}",
            resolution="remove that one, or commit this one under another name",
        )
    return True


def _spool(context: StoreContext) -> BinaryIO:
    """A file that is in memory while it is small, and has no name on disk when it is not."""
    with effect("layer.spool"):
        place = os.fspath(context.layout.data_root)
        file = tempfile.SpooledTemporaryFile(  # noqa: SIM115  # the caller closes it
            max_size=_IN_MEMORY_BYTES, dir=place
        )
    return cast(BinaryIO, file)
