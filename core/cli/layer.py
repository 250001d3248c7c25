"""``layers``, ``mount``, ``unmount``: the layer store seen from outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InvalidArgument, NotFound
from . import human
from .command import Command
from .context import Context
from .filters import accept, label_matches, name_matches, pairs_of
from .flags import Flag, Parsed
from .image import FILTER, FORMAT, NO_TRUNC, QUIET
from .table import Listing

if TYPE_CHECKING:
    from ..engine import Engine
    from ..model import SnapshotInfo

_NAME_LENGTH = 26

LAYERS = Listing(
    {
        "ID": "ID",
        "Name": "NAME",
        "Driver": "DRIVER",
        "Kind": "KIND",
        "Parent": "PARENT",
        "Size": "SIZE",
        "Inodes": "INODES",
        "CreatedSince": "CREATED",
        "CreatedAt": "CREATED AT",
        "Labels": "LABELS",
    },
    ("ID", "Name", "Driver", "Kind", "Parent", "Size", "CreatedSince"),
    quiet="Name",
)


def layer_row(info: SnapshotInfo, *, full: bool) -> Mapping[str, object]:
    """Return the row of a snapshot; the size of an active one is not known without walking it."""
    labels = info.labels
    return {
        "ID": str(info.id),
        "Name": _name(info.name, full=full),
        "Driver": info.driver,
        "Kind": info.kind.value,
        "Parent": _name(info.parent or "", full=full),
        "Size": human.size(info.usage.size_bytes, 3) if info.usage else "",
        "Inodes": str(info.usage.inodes) if info.usage else "",
        "CreatedSince": human.since(info.created_ns),
        "CreatedAt": human.local_time(info.created_ns),
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(labels.items())),
        "Label": lambda key: labels.get(key, ""),
    }


def _name(name: str, *, full: bool) -> str:
    if full:
        return name
    return (
        human.short_id(name) if name.startswith("sha256:") else human.ellipsis(name, _NAME_LENGTH)
    )


def _list(context: Context, parsed: Parsed) -> None:
    pairs = pairs_of(parsed, _FILTERS)
    rows = [
        layer_row(info, full=parsed.on("no-trunc") or parsed.on("quiet"))
        for info in context.engine.layers.walk()
        if accept(pairs, _tests(info))
    ]
    context.print(LAYERS.show(rows, format=parsed.text("format"), quiet=parsed.on("quiet")))


_FILTERS = ("driver", "kind", "name", "parent", "label")


def _tests(info: SnapshotInfo) -> Mapping[str, Callable[[str], bool]]:
    return {
        "driver": lambda driver: info.driver == driver,
        "kind": lambda kind: info.kind.value == kind,
        "name": lambda pattern: name_matches(info.name, pattern),
        "parent": lambda name: name in (info.parent, human.short_id(info.parent or "")),
        "label": lambda wanted: label_matches(info.labels, wanted),
    }


def find_snapshot(engine: Engine, reference: str, driver: str | None) -> SnapshotInfo:
    """Return the snapshot that a user means: a container's, or one by its name.

    Raises:
        NotFound: if there is none.
        InvalidArgument: if several drivers have one of that name.
    """
    try:
        record = engine.containers.get(reference)
    except (NotFound, InvalidArgument):
        pass
    else:
        return engine.layers.stat(record.snapshot, driver=record.driver)
    found = [
        info
        for info in engine.layers.walk()
        if reference in (info.name, human.short_id(info.name)) and driver in (None, info.driver)
    ]
    if not found:
        raise NotFound("container or snapshot", reference, resolution="'stowage layers' lists them")
    if len(found) > 1:
        drivers = ", ".join(info.driver for info in found)
        raise InvalidArgument(
            f"several drivers have a snapshot {reference}: {drivers}",
            resolution="name one with --driver",
        )
    return found[0]


def _mount(context: Context, parsed: Parsed) -> None:
    context.require_root()
    engine = context.engine
    info = find_snapshot(engine, parsed.arguments[0], parsed.text("driver"))
    path = Path(parsed.arguments[1]).absolute() if len(parsed.arguments) > 1 else None
    with engine.containers.live_mount(info.driver, info.name) as clone:
        place = engine.layers.mount(info.name, path, driver=info.driver, clone=clone)
    context.print(str(place))


def _unmount(context: Context, parsed: Parsed) -> int:
    context.require_root()
    driver = parsed.text("driver")
    return context.each(parsed.arguments, lambda name: _unmount_one(context.engine, name, driver))


def _unmount_one(engine: Engine, name: str, driver: str | None) -> None:
    """Unmount what is mounted at the path *name*, or else the snapshot of that name."""
    try:
        engine.layers.unmount(Path(name).absolute())
        return
    except NotFound as nothing_there:
        try:
            info = find_snapshot(engine, name, driver)
        except NotFound:
            raise nothing_there from None
    place = engine.layers.mounted_at(info.name, driver=info.driver)
    if place is None:
        raise NotFound("mount", name, brief=f"{name} is not mounted by this root")
    engine.layers.unmount(place)


COMMANDS = {
    "layer ls": Command("[OPTIONS]", _list, (FILTER, FORMAT, NO_TRUNC, QUIET)),
    "layer mount": Command(
        "[OPTIONS] CONTAINER|SNAPSHOT [DIRECTORY]",
        _mount,
        (Flag("driver", "Storage driver that has the snapshot"),),
    ),
    "layer unmount": Command(
        "[OPTIONS] DIRECTORY|CONTAINER|SNAPSHOT [DIRECTORY|CONTAINER|SNAPSHOT...]",
        _unmount,
        (Flag("driver", "Storage driver that has the snapshot"),),
    ),
}
