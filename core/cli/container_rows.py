"""Containers as rows of ``ps`` and ``df``."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

from ..containers.model import ContainerRecord, ContainerState
from . import human
from .table import Listing
from .template_functions import quoted

_COMMAND_LENGTH = 20
_MOUNT_LENGTH = 15

CONTAINERS = Listing(
    {
        "ID": "CONTAINER ID",
        "Image": "IMAGE",
        "Command": "COMMAND",
        "CreatedAt": "CREATED AT",
        "RunningFor": "CREATED",
        "Status": "STATUS",
        "State": "STATE",
        "Ports": "PORTS",
        "Names": "NAMES",
        "Size": "SIZE",
        "Labels": "LABELS",
        "Mounts": "MOUNTS",
        "LocalVolumes": "LOCAL VOLUMES",
        "Networks": "NETWORKS",
        "StorageDriver": "STORAGE DRIVER",
    },
    ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"),
    quiet="ID",
)


def container_row(
    record: ContainerRecord,
    *,
    image: str,
    size: str = "",
    ports: str = "",
    network: str = "",
    full: bool = False,
) -> Mapping[str, object]:
    """Return the row of *record*; *image* is how its image is called now, *size* and *ports* as
    shown, *network* the name of its network."""
    spec = record.spec
    command = " ".join(_shown_arguments(spec.arguments))
    volumes = spec.volumes.names
    mounts = [*(bind.source for bind in spec.binds), *volumes]
    labels = spec.labels

    def label(name: str) -> str:
        return labels.get(name, "")

    return {
        "Command": quoted(command if full else human.ellipsis(command, _COMMAND_LENGTH)),
        "CreatedAt": human.local_time(record.created_ns),
        "ID": record.id if full else record.short_id,
        "Image": image,
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(labels.items())),
        "Label": label,
        "LocalVolumes": str(len(volumes)),
        "Mounts": ",".join(
            mount if full else human.ellipsis(mount, _MOUNT_LENGTH) for mount in mounts
        ),
        "Names": record.name,
        "Networks": network,
        "Ports": ports,
        "RunningFor": human.since(record.created_ns),
        "Size": size,
        "State": record.state.value,
        "Status": status(record),
        "StorageDriver": record.driver,
    }


def _shown_arguments(arguments: Sequence[str]) -> Iterator[str]:
    """Docker's rule: what follows the first word is quoted where it holds a space."""
    yield from arguments[:1]
    for argument in arguments[1:]:
        yield f"'{argument}'" if " " in argument else argument


def status(record: ContainerRecord, now_ns: int | None = None) -> str:
    """Return Docker's sentence about a container's state (``Exited (0) 2 seconds ago``)."""
    now = time.time_ns() if now_ns is None else now_ns
    facts = record.runtime
    up = human.duration((now - facts.started_ns) / human.NS)
    state = record.state
    if state is ContainerState.RUNNING:
        return f"Up {up}"
    if state is ContainerState.PAUSED:
        return f"Up {up} (Paused)"
    if state is ContainerState.RESTARTING:
        return f"Restarting ({facts.exit_code}) {human.since(facts.finished_ns, now)}"
    if state is ContainerState.EXITED:
        return f"Exited ({facts.exit_code}) {human.since(facts.finished_ns, now)}"
    if state is ContainerState.REMOVING:
        return "Removal In Progress"
    return state.capitalize()
