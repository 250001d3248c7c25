"""``ps``, ``logs``, ``diff``, ``commit``, ``export``: looking at containers."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

from ..errors import InvalidArgument, NotFound
from . import human
from .archive import write_archive
from .command import Command
from .container_rows import CONTAINERS, container_row
from .context import Context
from .filters import (
    accept,
    id_matches,
    label_matches,
    name_matches,
    pairs_of,
    ports_of_filter,
)
from .flags import Flag, Parsed, integer, many, switch
from .image import FILTER, FORMAT, NO_TRUNC, QUIET
from .ports import displayed_ports

if TYPE_CHECKING:
    from ..containers.model import ContainerRecord
    from ..engine import Engine
    from ..model import PortMapping


# --- ps -----------------------------------------------------------------------------------------


def _list(context: Context, parsed: Parsed) -> None:
    engine = context.engine
    records = _chosen(engine, parsed)
    image_name = _image_names(engine, full=parsed.on("no-trunc"))
    sized = parsed.on("size") or ".Size" in (parsed.text("format") or "")
    networks = engine.networks
    published = networks.ports_by_container()
    network_names = {network.id: network.name for network in networks.list()}
    rows = (
        container_row(
            record,
            image=image_name(record.image_id, record.image_name),
            size=_size(engine, record) if sized else "",
            ports=_ports(record, published),
            network=network_names.get(record.runtime.network_id, ""),
            full=parsed.on("no-trunc"),
        )
        for record in records
    )
    fields = [*CONTAINERS.default, *(["Size"] if parsed.on("size") else [])]
    context.print(
        CONTAINERS.show(rows, format=parsed.text("format"), quiet=parsed.on("quiet"), fields=fields)
    )


def _ports(record: ContainerRecord, published: Mapping[str, Sequence[PortMapping]]) -> str:
    """What is exposed and published, while it runs and has a network of its own."""
    if not record.state.lives or not record.runtime.network_id:
        return ""
    if record.spec.network in ("host", "none"):
        return ""
    ports = published.get(record.id, ())
    return displayed_ports(ports, record.spec.networking.exposed_ports)


def _chosen(engine: Engine, parsed: Parsed) -> Sequence[ContainerRecord]:
    """Apply ``-a``, ``-n``, ``-l`` and the filters as Docker does: those that name a state, and
    the last created ones, show containers that do not run."""
    pairs = pairs_of(parsed, _FILTERS)
    for key, value in pairs:
        _check_filter(engine, key, value)
    last = 1 if parsed.on("latest") else parsed.number("last") or -1
    asked = {key for key, _ in pairs}
    every = parsed.on("all") or last > 0 or bool(asked & {"status", "exited"})
    shown = (record for record in engine.containers.list() if every or record.state.lives)
    published = engine.networks.ports_by_container() if "publish" in asked else {}
    kept = [record for record in shown if accept(pairs, _tests(engine, record, published))]
    return kept[:last] if last > 0 else kept


_FILTERS = (
    "id", "name", "label", "status", "exited", "ancestor", "before", "since", "network",
    "volume", "driver", "expose", "publish", "health", "is-task", "isolation",
)  # fmt: skip


def _tests(
    engine: Engine, record: ContainerRecord, published: Mapping[str, Sequence[PortMapping]]
) -> Mapping[str, Callable[[str], bool]]:
    def created_of(reference: str) -> int:
        return engine.containers.get(reference).created_ns

    def image_is(reference: str) -> bool:
        try:
            image = engine.images.resolve(reference)
        except NotFound:
            return False
        if record.image_id == image.id:
            return True
        chain = engine.images.resolve(record.image_id).chain if record.image_id else ()
        return image.top is not None and image.top in chain

    return {
        "id": lambda pattern: id_matches(record.id, pattern),
        "name": lambda pattern: name_matches(record.name, pattern),
        "label": lambda wanted: label_matches(record.spec.labels, wanted),
        "status": lambda state: record.state.value == state,
        "exited": lambda code: (
            record.state.value in ("exited", "dead") and record.runtime.exit_code == int(code)
        ),
        "ancestor": image_is,
        "before": lambda other: record.created_ns < created_of(other),
        "since": lambda other: record.created_ns > created_of(other),
        "network": lambda network: _on_network(engine, record, network),
        "volume": lambda wanted: _mounts(record, wanted),
        "driver": lambda driver: record.driver == driver,
        "expose": lambda ports: bool(ports_of_filter("expose", ports) & _exposed(record)),
        "publish": lambda ports: bool(
            ports_of_filter("publish", ports)
            & {(port.host_port, str(port.protocol)) for port in published.get(record.id, ())}
        ),
        "health": lambda health: health == "none",  # nothing has a health check
        "is-task": lambda wanted: wanted in ("false", "0", "False"),
        "isolation": lambda wanted: wanted in ("", "default"),
    }


def _mounts(record: ContainerRecord, wanted: str) -> bool:
    """Whether a container mounts the volume or the host's path *wanted*, or something there."""
    sources = [(bind.source, bind.target) for bind in record.spec.binds]
    volumes = [(mount.name, mount.target) for mount in record.spec.volumes.mounts]
    return any(wanted in pair for pair in (*sources, *volumes))


def _on_network(engine: Engine, record: ContainerRecord, reference: str) -> bool:
    network = engine.networks.by_id(record.runtime.network_id)
    if network is None:
        return False
    return network.name == reference or network.id.startswith(reference)


def _exposed(record: ContainerRecord) -> set[tuple[int, str]]:
    """The ports that a running container's image or user named."""
    if not record.state.lives:
        return set()
    pairs = (text.split("/") for text in record.spec.networking.exposed_ports)
    return {(int(port), protocol) for port, protocol in pairs}


def _check_filter(engine: Engine, key: str, value: str) -> None:
    """Refuse what is wrong in itself, whether or not a container is there to be tested."""
    from ..containers.model import ContainerState

    if key == "status" and value not in [state.value for state in ContainerState]:
        raise InvalidArgument(f"Invalid filter 'status={value}'")
    if key == "health" and value not in ("starting", "healthy", "unhealthy", "none"):
        raise InvalidArgument(f"Unrecognised filter value for health: {value}")
    if key == "exited" and not value.lstrip("-").isdigit():
        raise InvalidArgument(f'strconv.Atoi: parsing "{value}": invalid syntax')
    if key in ("before", "since"):
        engine.containers.get(value)
    if key in ("expose", "publish"):
        ports_of_filter(key, value)


def _image_names(engine: Engine, *, full: bool) -> Callable[[str, str], str]:
    """Return the function that says how an image is called now: as it was asked for, or its id
    if that name has come to mean another one."""

    # not by engine.images, which opens the layer store and the drivers
    from ..images.rows import resolve

    @cache
    def name(image_id: str, asked: str) -> str:
        if not image_id:
            return asked
        try:
            if resolve(engine.metastore.read(), asked).id == image_id:
                return asked
        except (NotFound, InvalidArgument):
            pass
        return image_id if full else human.short_id(image_id)

    return name


def _size(engine: Engine, record: ContainerRecord) -> str:
    used = engine.layers.usage(record.snapshot, driver=record.driver).size_bytes
    below = 0
    if record.image_id:
        below = engine.images.size_bytes(engine.images.resolve(record.image_id))
    return f"{human.size(used, 3)} (virtual {human.size(used + below, 3)})"


# --- what a container did --------------------------------------------------------------------


def _diff(context: Context, parsed: Parsed) -> None:
    for change in context.engine.containers.diff(parsed.arguments[0]):
        sys.stdout.write(f"{change.kind.letter} {os.fsdecode(change.path)}\n")


def _commit(context: Context, parsed: Parsed) -> None:
    reference = parsed.arguments[1] if len(parsed.arguments) > 1 else None
    image = context.engine.containers.commit(
        parsed.arguments[0],
        reference,
        changes=parsed.texts("change"),
        author=parsed.text("author") or "",
        message=parsed.text("message") or "",
        pause=parsed.on("pause"),
    )
    context.print(image.id)


def _export(context: Context, parsed: Parsed) -> None:
    containers = context.engine.containers
    write_archive(
        parsed.text("output"),
        lambda out: containers.export(parsed.arguments[0], out),
        "failed to export container",
    )


COMMANDS = {
    "container ls": Command(
        "[OPTIONS]",
        _list,
        (
            switch("all", "Show all containers (default shows just running)", "a"),
            FILTER,
            FORMAT,
            Flag(
                "last",
                "Show n last created containers (includes all states)",
                "n",
                value="int",
                default=-1,
                parse=integer,
            ),
            switch("latest", "Show the latest created container (includes all states)", "l"),
            NO_TRUNC,
            QUIET,
            switch("size", "Display total file sizes", "s"),
        ),
    ),
    "container diff": Command("CONTAINER", _diff),
    "container commit": Command(
        "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
        _commit,
        (
            Flag("author", 'Author (e.g., "Ann Example <ann@example.org>")', "a"),
            many("change", "Apply Dockerfile instruction to the created image", "c"),
            Flag("message", "Commit message", "m"),
            switch("pause", "Pause container during commit", "p", default=True),
        ),
    ),
    "container export": Command(
        "[OPTIONS] CONTAINER",
        _export,
        (Flag("output", "Write to a file, instead of STDOUT", "o"),),
    ),
}
