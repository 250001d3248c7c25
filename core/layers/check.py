"""Check: what of a root is missing, orphaned or modified.

No false alarms: whatever a live process is doing, and whatever a kill can leave behind for
recovery, is no finding; each suspicion is looked at again before it is one. The kinds follow
containers/storage's checker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from pathlib import Path

from msgspec import Struct

from ..errors import Busy, DataLoss, NotFound, StowageError
from ..model import Kind, SnapshotInfo
from . import contents, rows
from .context import StoreContext
from .digests import chain_id
from .init import LABEL as INIT
from .recovery import orphans, removable, row_of_stray, stray_containers, stray_trash
from .rows import Row


class CheckKind(str, Enum):
    """What is wrong."""

    METADATA_DAMAGED = "metadata-damaged"
    DRIVER_UNAVAILABLE = "driver-unavailable"
    LAYER_MISSING = "layer-missing"
    """A snapshot is recorded, but its directory, or a part of it, is not there."""
    LAYER_UNACCOUNTED = "layer-unaccounted"
    """A directory or recipe is there that nothing is recorded of."""
    LAYER_DATA_MISSING = "layer-data-missing"
    """A layer's recipe is not there."""
    LAYER_INCORRECT_DIGEST = "layer-incorrect-content-digest"
    """A layer's recipe is damaged, or its chainID is not that of its chain."""
    LAYER_CONTENT_MODIFIED = "layer-content-modified"
    LAYER_UNREFERENCED = "layer-unreferenced"
    """No image and no snapshot uses the layer; ``gc`` would remove it."""
    TRASH_STUCK = "trash-stuck"
    VOLUME_MISSING = "volume-missing"
    """A volume is recorded, but its directory is not there."""
    VOLUME_UNACCOUNTED = "volume-unaccounted"
    """A directory is among the volumes that nothing is recorded of."""


class CheckFinding(Struct, frozen=True):
    """One thing that is wrong; *subject* is a snapshot's name, a path or a driver."""

    kind: CheckKind
    subject: str
    driver: str | None
    details: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.kind.value}: {self.subject}: {self.details}"


_ATTEMPTS = 5
_RELOAD = "remove what uses the layer, 'stowage gc', and load its image again"


_REMOVED_BY_GC = "'stowage gc' removes it"
_NO_DRIVER = "install its driver and run 'stowage gc', or remove it by hand if it is not ours"


def check(
    context: StoreContext,
    *,
    full: bool = False,
    is_referenced: Callable[[SnapshotInfo], bool] | None = None,
) -> Iterator[CheckFinding]:
    """Yield what is wrong; *full* holds every committed layer against its archive.

    With *is_referenced* also the layers that nothing refers to. Changes nothing.
    """
    yield from _metadata(context)
    reachable: dict[str, StowageError | None] = {}
    for row in rows.every(context.metastore.read()):
        if row.driver not in reachable:
            reachable[row.driver] = _unavailable(context, row.driver)
            yield from _driver(row.driver, reachable[row.driver])
        yield from _settled(context, row, usable=reachable[row.driver] is None, full=full)
    yield from _strangers(context)
    if is_referenced is not None:
        yield from _unreferenced(context, is_referenced)


def _metadata(context: StoreContext) -> Iterator[CheckFinding]:
    connection = context.metastore.read()
    try:
        said = [row[0] for row in connection.execute("PRAGMA quick_check").fetchall()]
        said += [
            f"a row of {row[0]} refers to none of {row[2]}"
            for row in connection.execute("PRAGMA foreign_key_check").fetchall()
        ]
    except DataLoss as error:
        said = [str(error)]
    for text in said:
        if text != "ok":
            yield CheckFinding(
                CheckKind.METADATA_DAMAGED,
                str(context.metastore.path),
                None,
                text,
                "restore the root from a backup",
            )


def _unavailable(context: StoreContext, driver: str) -> StowageError | None:
    try:
        probe = context.handle(driver).probe
    except StowageError as error:
        return error
    if probe.ok:
        return None
    return Busy("; ".join(finding.reason for finding in probe.findings))


def _driver(driver: str, error: StowageError | None) -> Iterator[CheckFinding]:
    if error is not None:
        yield CheckFinding(
            CheckKind.DRIVER_UNAVAILABLE,
            driver,
            driver,
            error.brief,
            f"'stowage driver explain {driver}' says what it lacks",
        )


def _settled(
    context: StoreContext, row: Row, *, usable: bool, full: bool
) -> Sequence[CheckFinding]:
    """Return the findings of a snapshot that nobody changed while it was looked at."""
    for _ in range(_ATTEMPTS):
        found = list(_snapshot(context, row, usable=usable, full=full))
        if not found:
            break
        now = rows.by_id(context.metastore.read(), row.id)
        if now == row:
            return found
        if now is None or now.state != "ready":  # removed meanwhile
            break
        row = now
    return ()


def _snapshot(
    context: StoreContext, row: Row, *, usable: bool, full: bool
) -> Iterator[CheckFinding]:
    directory = context.directory(row)
    lost = [directory] if not directory.is_dir() else []
    if usable and not lost and row.committing is None:  # else the driver may be sealing it
        lost = list(_missing_parts(context, row, directory))
    for path in lost:
        yield CheckFinding(
            CheckKind.LAYER_MISSING, row.name, row.driver, f"{path} is not there", _RELOAD
        )
    if row.kind is not Kind.COMMITTED:
        return
    yield from _chain(context, row)
    if row.diff_id is not None and not context.recipes.path(row.diff_id).is_file():
        yield CheckFinding(
            CheckKind.LAYER_DATA_MISSING,
            row.name,
            row.driver,
            f"the recipe of {row.diff_id} is not there",
            _RELOAD,
        )
    elif full and usable and not lost:
        yield from _contents(context, row)


def _missing_parts(context: StoreContext, row: Row, directory: Path) -> Iterator[Path]:
    """What its driver says of it ("UpperDir") and is not there."""
    said = context.handle(row.driver).metadata(directory, context.parents(row), row.kind)
    for value in said.values():
        if value.startswith(f"{directory}/") and not Path(value).exists():
            yield Path(value)


def _chain(context: StoreContext, row: Row) -> Iterator[CheckFinding]:
    above = rows.by_id(context.metastore.read(), row.parent_id) if row.parent_id else None
    expected = chain_id(above.chain_id if above else None, row.diff_id or "")
    if row.chain_id != expected:
        yield CheckFinding(
            CheckKind.LAYER_INCORRECT_DIGEST,
            row.name,
            row.driver,
            f"its chainID is recorded as {row.chain_id}, but its chain has {expected}",
            _RELOAD,
        )


def _contents(context: StoreContext, row: Row) -> Iterator[CheckFinding]:
    try:
        for path, how in contents.differing(context, row).items():
            yield CheckFinding(
                CheckKind.LAYER_CONTENT_MODIFIED,
                row.name,
                row.driver,
                f"{path} {how}",
                _RELOAD,
            )
    except DataLoss as error:
        yield CheckFinding(
            CheckKind.LAYER_INCORRECT_DIGEST, row.name, row.driver, str(error), _RELOAD
        )
    except (NotFound, Busy):  # removed meanwhile, or being removed
        return


def _strangers(context: StoreContext) -> Iterator[CheckFinding]:
    for driver, directory in orphans(context):
        yield _stranger(directory, driver, removable=removable(context, driver))
    for directory in stray_trash(context):
        row = row_of_stray(context, directory)
        driver = directory.name.rpartition("-")[0]
        if row is None:
            yield _stranger(directory, None, removable=removable(context, driver))
        else:
            yield CheckFinding(
                CheckKind.LAYER_UNACCOUNTED,
                str(directory),
                row.driver,
                f"it belongs to {row.name!r}",
                "'stowage gc' brings it back",
            )
    for path in (*stray_containers(context), *context.recipes.strangers()):
        yield _stranger(path, None, removable=True)
    waiting = {entry.directory for entry in context.trash.entries()}
    for name, error in sorted(context.reaper.problems.items()):
        if name not in waiting:  # deleted by another reaper meanwhile
            continue
        yield CheckFinding(
            CheckKind.TRASH_STUCK, name, None, str(error), "remove the cause, then 'stowage gc'"
        )


def _stranger(path: Path, driver: str | None, *, removable: bool) -> CheckFinding:
    return CheckFinding(
        CheckKind.LAYER_UNACCOUNTED,
        str(path),
        driver,
        "nothing is recorded of it",
        _REMOVED_BY_GC if removable else _NO_DRIVER,
    )


def _unreferenced(
    context: StoreContext, is_referenced: Callable[[SnapshotInfo], bool]
) -> Iterator[CheckFinding]:
    connection = context.metastore.read()
    for row in rows.every(connection):
        if row.kind is not Kind.COMMITTED or rows.children(connection, row.id):
            continue
        info = row.info()  # an init snapshot waits for the next container of its image
        if INIT not in info.labels and not is_referenced(info):
            yield CheckFinding(
                CheckKind.LAYER_UNREFERENCED,
                row.name,
                row.driver,
                "no image and no snapshot uses it",
                _REMOVED_BY_GC,
            )
