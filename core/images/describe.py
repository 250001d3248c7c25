"""What users are shown of an image: Docker's ``inspect`` document and ``history``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from .config import RunConfig, layers_of_history
from .rows import CONTAINER, TAGGED, Image
from .times import format_time, parse_time

MISSING = "<missing>"
"""The id of a step whose image is not here."""

_CONTAINER_FIELDS: Mapping[str, object] = {
    "Hostname": "", "Domainname": "", "User": "", "AttachStdin": False, "AttachStdout": False,
    "AttachStderr": False, "Tty": False, "OpenStdin": False, "StdinOnce": False, "Env": None,
    "Cmd": None, "Image": "", "Volumes": None, "WorkingDir": "", "Entrypoint": None,
    "OnBuild": None, "Labels": None,
}  # fmt: skip
"""What Docker shows of a container's config even when it is not set."""


class HistoryLine(Struct, frozen=True):
    """One line of ``history``: a step, the image that ended with it, the bytes of its layer."""

    id: str
    created_ns: int
    created_by: str
    size_bytes: int
    comment: str
    tags: tuple[str, ...] = ()


def inspect_document(
    image: Image, size_bytes: int, driver: str | None, metadata: Mapping[str, str]
) -> dict[str, object]:
    """Return what ``docker image inspect`` shows of an image.

    *driver* holds its layers, *metadata* is what that driver says of the top one.
    """
    config, extra = image.config, image.config.extra
    container_config = extra.get("container_config")
    tagged = image.labels.get(TAGGED)
    document: dict[str, object] = {
        "Id": image.id,
        "RepoTags": list(image.tags),
        "RepoDigests": list(image.digests),
        "Parent": image.parent_id or "",
        "Comment": config.comment,
        "Created": config.created,
        "Container": image.labels.get(CONTAINER) or extra.get("container", ""),
        "ContainerConfig": {
            **_CONTAINER_FIELDS,
            **(container_config if isinstance(container_config, dict) else {}),
        },
        "DockerVersion": extra.get("docker_version", ""),
        "Author": config.author,
        "Config": config_document(config.config),
        "Architecture": config.platform.architecture,
        "Os": config.platform.os,
        "Size": size_bytes,
        "VirtualSize": size_bytes,
        "GraphDriver": {"Data": dict(metadata) or None, "Name": driver or ""},
        "RootFS": {"Type": "layers", "Layers": list(config.diff_ids)},
        "Metadata": {"LastTagTime": format_time(int(tagged)) if tagged else "0001-01-01T00:00:00Z"},
    }
    if config.platform.variant:
        document["Variant"] = config.platform.variant
    return document


def config_document(config: RunConfig) -> dict[str, object]:
    """Return a run config as Docker shows it, with the fields that are not set."""
    document = {**_CONTAINER_FIELDS, **config.to_json()}
    for name in ("Labels", "ExposedPorts", "Volumes"):  # Go writes maps in order
        if isinstance(found := document.get(name), dict):
            document[name] = dict(sorted(found.items()))
    return document


def history_lines(
    image: Image, sizes: Sequence[int], find: Callable[[str], Image | None]
) -> list[HistoryLine]:
    """Return the steps of an image, the newest first.

    *sizes* are those of its layers, base first; *find* returns the image with an id. Each step
    carries the id of the image that ended with it, as far as those are here.
    """
    lines = []
    current: Image | None = image
    for entry, layer in reversed(layers_of_history(image.config.history, len(sizes))):
        lines.append(
            HistoryLine(
                id=current.id if current else MISSING,
                created_ns=_created_ns(entry.created),
                created_by=entry.created_by,
                size_bytes=0 if layer is None else sizes[layer],
                comment=entry.comment,
                tags=current.tags if current else (),
            )
        )
        current = find(current.parent_id) if current and current.parent_id else None
    return lines


def _created_ns(text: str) -> int:
    try:
        return parse_time(text) if text else 0
    except ValueError:  # of a foreign image; shown, never relied upon
        return 0
