"""``images``, ``rmi``, ``tag``, ``history``: what the image store holds, as Docker shows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import InvalidArgument
from ..images.reference import matches_pattern, parse_reference
from . import human
from .command import Command
from .context import Context
from .filters import pairs_of, parse_filter
from .flags import Flag, Parsed, many, switch
from .pull import images_named_in_full
from .table import Listing

if TYPE_CHECKING:
    from ..images.describe import HistoryLine
    from ..images.rows import Image

NONE = "<none>"
_CREATED_BY_LENGTH = 45

IMAGES = Listing(
    {
        "Repository": "REPOSITORY",
        "Tag": "TAG",
        "Digest": "DIGEST",
        "ID": "IMAGE ID",
        "CreatedSince": "CREATED",
        "CreatedAt": "CREATED AT",
        "Size": "SIZE",
        "VirtualSize": "SIZE",
        "SharedSize": "SHARED SIZE",
        "UniqueSize": "UNIQUE SIZE",
        "Containers": "CONTAINERS",
    },
    ("Repository", "Tag", "ID", "CreatedSince", "Size"),
    quiet="ID",
)

HISTORY = Listing(
    {
        "ID": "IMAGE",
        "CreatedSince": "CREATED",
        "CreatedAt": "CREATED AT",
        "CreatedBy": "CREATED BY",
        "Size": "SIZE",
        "Comment": "COMMENT",
    },
    ("ID", "CreatedSince", "CreatedBy", "Size", "Comment"),
    quiet="ID",
)


def image_rows(
    image: Image,
    size_bytes: int,
    *,
    full: bool,
    digests: bool = False,
    patterns: Sequence[str] = (),
) -> Iterator[Mapping[str, object]]:
    """Yield a row for each name of *image* (of those that one of *patterns* fits, if there are
    any), or one for an image without a name."""
    shared: dict[str, object] = {
        "ID": image.id if full else human.short_id(image.id),
        "CreatedSince": human.since(image.created_ns),
        "CreatedAt": human.local_time(image.created_ns),
        "Size": human.size(size_bytes, 3),
        "VirtualSize": human.size(size_bytes, 3),
        "SharedSize": "N/A",
        "UniqueSize": "N/A",
        "Containers": "N/A",
    }
    references = [
        one
        for one in image.references
        if not patterns or any(matches_pattern(one, pattern) for pattern in patterns)
    ]
    digest_by_name = {one.name: one.digest for one in references if one.digest}
    named = [one for one in references if one.tag is not None]
    for one in named:
        digest = digest_by_name.pop(one.name, None) or NONE
        yield {"Repository": one.name, "Tag": one.tag or NONE, "Digest": digest, **shared}
    for name, digest in digest_by_name.items():
        if digests or not named:
            yield {"Repository": name, "Tag": NONE, "Digest": digest, **shared}
    if not named and not digest_by_name:
        yield {"Repository": NONE, "Tag": NONE, "Digest": NONE, **shared}


def _list(context: Context, parsed: Parsed) -> None:
    filters = [f"{key}={value}" for key, value in pairs_of(parsed)]
    if parsed.arguments:
        filters.append(f"reference={parsed.arguments[0]}")
    patterns = [text.partition("=")[2] for text in filters if text.startswith("reference=")]
    images = context.engine.images
    rows = (
        row
        for image in images.list(filters, intermediate=parsed.on("all"))
        for row in image_rows(
            image,
            images.size_bytes(image),
            full=parsed.on("no-trunc"),
            digests=parsed.on("digests"),
            patterns=patterns,
        )
    )
    fields = list(IMAGES.default)
    if parsed.on("digests"):
        fields.insert(2, "Digest")
    context.print(
        IMAGES.show(rows, format=parsed.text("format"), quiet=parsed.on("quiet"), fields=fields)
    )


def _remove(context: Context, parsed: Parsed) -> int:
    images = context.engine.images

    def remove(name: str) -> str:
        done = images.remove(name, force=parsed.on("force"), prune=not parsed.on("no-prune"))
        return "\n".join(
            f"Untagged: {one.untagged}" if one.untagged else f"Deleted: {one.deleted}"
            for one in done
        )

    return context.each(parsed.arguments, remove)


def check_target(text: str) -> None:
    """Refuse what cannot name an image, before anything is read.

    Raises:
        InvalidArgument: in the words of Docker's client.
    """
    try:
        parse_reference(text)
    except InvalidArgument as error:
        error.brief = f'"{text}" is not a valid repository/tag: {error.brief}'
        raise


def _tag(context: Context, parsed: Parsed) -> None:
    source, target = parsed.arguments
    check_target(target)
    with images_named_in_full():
        context.engine.images.tag(source, target)


def _history(context: Context, parsed: Parsed) -> None:
    images = context.engine.images
    with images_named_in_full():
        lines = images.history(images.resolve(parsed.arguments[0]))
    rows = [
        _history_row(line, full=parsed.on("no-trunc"), human_form=parsed.on("human"))
        for line in lines
    ]
    text = HISTORY.show(rows, format=parsed.text("format"), quiet=parsed.on("quiet"))
    context.print(text)


def _history_row(line: HistoryLine, *, full: bool, human_form: bool) -> Mapping[str, object]:
    by = line.created_by.replace("\t", " ")
    created = human.rfc3339(line.created_ns)
    return {
        "ID": line.id if full or line.id.startswith("<") else human.short_id(line.id),
        "CreatedSince": human.since(line.created_ns) if human_form else created,
        "CreatedAt": created,
        "CreatedBy": by if full else human.ellipsis(by, _CREATED_BY_LENGTH),
        "Size": human.size(line.size_bytes, 3) if human_form else str(line.size_bytes),
        "Comment": line.comment,
    }


FORMAT = Flag("format", "Pretty-print using a Go template, 'table TEMPLATE' or 'json'")
QUIET = switch("quiet", "Only show IDs", "q")
NO_TRUNC = switch("no-trunc", "Don't truncate output")
FILTER = many(
    "filter", "Filter output based on conditions provided", "f", value="filter", parse=parse_filter
)

COMMANDS = {
    "image ls": Command(
        "[OPTIONS] [REPOSITORY[:TAG]]",
        _list,
        (
            switch("all", "Show all images (default hides intermediate images)", "a"),
            switch("digests", "Show digests"),
            FILTER,
            FORMAT,
            NO_TRUNC,
            QUIET,
        ),
    ),
    "image rm": Command(
        "[OPTIONS] IMAGE [IMAGE...]",
        _remove,
        (
            switch("force", "Force removal of the image", "f"),
            switch("no-prune", "Do not delete untagged parents"),
        ),
    ),
    "image tag": Command("SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", _tag),
    "image history": Command(
        "[OPTIONS] IMAGE",
        _history,
        (
            FORMAT,
            switch("human", "Print sizes and dates in human readable format", "H", default=True),
            NO_TRUNC,
            QUIET,
        ),
    ),
}
