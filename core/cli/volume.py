"""``volume create``, ``ls``, ``rm``: volumes, as Docker shows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ..errors import InvalidArgument, NotFound, NotSupported
from . import human
from .command import Command
from .context import Context
from .environment import read_labels
from .filters import accept, label_matches, name_matches, pairs_of
from .flags import Flag, Parsed, many, switch
from .image import FILTER, FORMAT, QUIET
from .table import Listing

if TYPE_CHECKING:
    from ..volumes.service import Volume, Volumes

VOLUMES = Listing(
    {
        "Driver": "DRIVER",
        "Name": "VOLUME NAME",
        "Scope": "SCOPE",
        "Mountpoint": "MOUNTPOINT",
        "Labels": "LABELS",
        "Links": "LINKS",
        "Size": "SIZE",
    },
    ("Driver", "Name"),
    quiet="Name",
)
_FILTERS = ("dangling", "driver", "label", "name")


def volume_row(volume: Volume, *, size_bytes: int | None = None) -> Mapping[str, object]:
    """Return the row of *volume*; its size and users only with *size_bytes*."""
    labels = volume.labels

    def label(name: str) -> str:
        return labels.get(name, "")

    measured = size_bytes is not None
    return {
        "Driver": volume.driver,
        "Label": label,
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(labels.items())),
        "Links": str(volume.users) if measured else "N/A",
        "Mountpoint": str(volume.path),
        "Name": volume.name,
        "Scope": "local",
        "Size": human.size(size_bytes) if size_bytes is not None else "N/A",
    }


def _list(context: Context, parsed: Parsed) -> None:
    pairs = pairs_of(parsed, _FILTERS)
    rows = [
        volume_row(volume) for volume in _volumes(context).list() if accept(pairs, _tests(volume))
    ]
    context.print(VOLUMES.show(rows, format=parsed.text("format"), quiet=parsed.on("quiet")))


def _tests(volume: Volume) -> Mapping[str, Callable[[str], bool]]:
    return {
        "dangling": lambda wanted: _boolean(wanted) is (volume.users == 0),
        "driver": lambda driver: volume.driver == driver,
        "label": lambda wanted: label_matches(volume.labels, wanted),
        "name": lambda pattern: name_matches(volume.name, pattern),
    }


def _boolean(text: str) -> bool:
    if text not in ("1", "true", "0", "false"):
        raise InvalidArgument(f"Invalid filter 'dangling={text}'")
    return text in ("1", "true")


def _create(context: Context, parsed: Parsed) -> None:
    name = parsed.text("name")
    if parsed.arguments:
        if name:
            raise InvalidArgument(
                "Conflicting options: either specify --name or provide positional arg, not both"
            )
        (name,) = parsed.arguments
    if options := parsed.texts("opt"):
        raise NotSupported(
            f"create {name or ''}: the volume driver 'local' has no options here: {options[0]}",
            resolution="mount the file system on the host and bind it: --mount type=bind,…",
        )
    volume = _volumes(context).create(
        name,
        driver=parsed.text("driver") or "local",
        labels=read_labels(parsed.texts("label")),
    )
    context.print(volume.name)


def _remove(context: Context, parsed: Parsed) -> int:
    volumes = _volumes(context)

    def remove(name: str) -> str:
        try:
            volumes.remove(name)
        except NotFound:
            if not parsed.on("force"):
                raise
        return name

    return context.each(parsed.arguments, remove)


def _volumes(context: Context) -> Volumes:
    """The volumes, once containers that were being made when somebody was killed are settled."""
    _ = context.engine.containers
    return context.engine.volumes


COMMANDS = {
    "volume ls": Command("[OPTIONS]", _list, (FILTER, FORMAT, QUIET)),
    "volume create": Command(
        "[OPTIONS] [VOLUME]",
        _create,
        (
            Flag("driver", "Specify volume driver name", "d", default="local"),
            many("label", "Set metadata for a volume"),
            Flag("name", ""),
            many("opt", "Set driver specific options", "o"),
        ),
    ),
    "volume rm": Command(
        "[OPTIONS] VOLUME [VOLUME...]",
        _remove,
        (switch("force", "Force the removal of one or more volumes", "f"),),
    ),
}
