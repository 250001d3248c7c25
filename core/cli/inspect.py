"""``inspect``: Docker's documents of containers, images and volumes, and of snapshots."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from ..containers.describe import inspect_document
from ..containers.describe_network import Attached
from ..errors import InvalidArgument, NotFound
from ..images.times import format_time
from ..records import as_dict
from . import human
from .command import Command
from .context import Context
from .errors import FAILED, describe
from .flags import Flag, Parsed, switch
from .table import pretty_json
from .template import Template

Document = Mapping[str, object]
Find = Callable[[Context, str], Document]


def container(context: Context, reference: str) -> Document:
    """Return the document of the container *reference*.

    Raises:
        NotFound: if there is none.
    """
    engine = context.engine
    record = engine.containers.get(reference)
    return inspect_document(
        record,
        engine.containers.files(record.id),
        engine.layers.metadata(record.snapshot, driver=record.driver),
        record.spec.network or "default",
        engine.layout.volume_data,
        Attached(
            engine.networks.by_id(record.runtime.network_id),
            next(iter(engine.networks.endpoints(record.id)), None),
        ),
    )


def image(context: Context, reference: str) -> Document:
    """Return the document of the image *reference*.

    Raises:
        NotFound: if there is none.
    """
    images = context.engine.images
    return images.inspect(images.resolve(reference))


def network(context: Context, reference: str) -> Document:
    """Return the document of the network *reference*.

    Raises:
        NotFound: if there is none.
    """
    from ..images.times import format_time
    from ..net.describe import network_document

    networks = context.engine.networks
    found = networks.find(reference)
    names = {record.id: record.name for record in context.engine.containers.list()}
    return network_document(
        found,
        format_time(networks.created_ns(found)),
        networks.endpoints_on(found.id),
        names,
    )


def layer(context: Context, name: str) -> Document:
    """Return the document of the snapshot called *name*, on the first driver that has it.

    Raises:
        NotFound: if there is none.
    """
    for info in context.engine.layers.walk():
        if info.name == name:
            return {
                "Id": info.id,
                "Driver": info.driver,
                "Name": info.name,
                "Parent": info.parent or "",
                "Kind": info.kind.value,
                "Created": info.created_ns,
                "Updated": info.updated_ns,
                "Labels": dict(info.labels),
                "Usage": as_dict(info.usage) if info.usage else None,
            }
    raise NotFound("layer", name)


def volume(context: Context, name: str) -> Document:
    """Return the document of the volume called *name*.

    Raises:
        NotFound: if there is none.
    """
    found = context.engine.volumes.get(name)
    return {
        "CreatedAt": format_time(found.created_ns // human.NS * human.NS),
        "Driver": found.driver,
        "Labels": dict(found.labels),
        "Mountpoint": str(found.path),
        "Name": found.name,
        "Options": {},
        "Scope": "local",
    }


_FINDERS: Mapping[str, Find] = {
    "container": container,
    "image": image,
    "network": network,
    "volume": volume,
    "layer": layer,
}


def _any(context: Context, reference: str) -> Document:
    """Find a container, else an image, a network or a snapshot of that name."""
    for find in _FINDERS.values():
        try:
            return find(context, reference)
        except (NotFound, InvalidArgument):
            continue
    raise NotFound("object", reference)


def _sizes(context: Context, document: Document) -> Document:
    """Return what ``--size`` adds to the document of a container."""
    if "HostConfig" not in document:
        return {}
    engine = context.engine
    record = engine.containers.get(str(document["Id"]))
    written = engine.layers.usage(record.snapshot, driver=record.driver).size_bytes
    below = 0
    if record.image_id:
        below = engine.images.size_bytes(engine.images.resolve(record.image_id))
    return {"SizeRw": written, "SizeRootFs": written + below}


def shown(find: Find) -> Callable[[Context, Parsed], int]:
    """Return the action of a command that inspects what *find* finds."""

    def action(context: Context, parsed: Parsed) -> int:
        return _inspect(context, parsed, find)

    return action


def _typed(context: Context, parsed: Parsed) -> int:
    kind = parsed.text("type")
    if not kind:
        return _inspect(context, parsed, _any)
    if kind not in _FINDERS:
        raise InvalidArgument(
            f'"{kind}" is not a valid value for --type',
            resolution=f"types are {', '.join(_FINDERS)}",
        )
    return _inspect(context, parsed, _FINDERS[kind])


def _inspect(context: Context, parsed: Parsed, find: Find) -> int:
    """Print what was found as one list, or each through the template, then what was not."""
    form = parsed.text("format")
    template = None if form in (None, "json") else Template(form or "")
    sized = "size" in parsed.given and parsed.on("size")
    found: list[Document] = []
    missing: list[str] = []
    for reference in parsed.arguments:
        try:
            document = find(context, reference)
            found.append({**document, **_sizes(context, document)} if sized else document)
        except (NotFound, InvalidArgument) as error:
            missing.append(describe(error))
    if template is not None:
        for document in found:
            sys.stdout.write(template.render(document) + "\n")
        if not found:
            sys.stdout.write("\n")
    else:
        context.print(pretty_json(found))
    sys.stdout.flush()
    print("\n".join(missing), end="\n" if missing else "", file=sys.stderr)
    return FAILED if missing else 0


FORMAT = Flag("format", "Format the output using the given Go template", "f")
_SIZE = switch("size", "Display total file sizes if the type is container", "s")

COMMANDS = {
    "inspect": Command(
        "[OPTIONS] NAME|ID [NAME|ID...]",
        _typed,
        (
            FORMAT,
            _SIZE,
            Flag("type", "Return JSON for specified type"),
        ),
    ),
    "container inspect": Command(
        "[OPTIONS] CONTAINER [CONTAINER...]", shown(container), (FORMAT, _SIZE)
    ),
    "volume inspect": Command("[OPTIONS] VOLUME [VOLUME...]", shown(volume), (FORMAT,)),
    "image inspect": Command("[OPTIONS] IMAGE [IMAGE...]", shown(image), (FORMAT,)),
}
