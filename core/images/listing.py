"""Which images ``images`` lists: Docker's filters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from ..errors import InvalidArgument
from ..options import BooleanType, nearest
from .reference import matches_pattern
from .rows import Image

_KEYS = ("before", "dangling", "label", "reference", "since")


class ImageFilter(Struct, frozen=True):
    """What a listed image must be: all kinds must hold, of several of one kind any reference
    and every label. *before* and *since* are what was typed for an image."""

    dangling: bool | None = None
    references: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    before: str | None = None
    since: str | None = None


def parse_filters(texts: Iterable[str]) -> ImageFilter:
    """Parse ``key=value`` strings as ``--filter`` takes them.

    Raises:
        InvalidArgument: in Docker's words, if a key or a value is wrong.
    """
    values: dict[str, list[str]] = {key: [] for key in _KEYS}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise InvalidArgument("bad format of filter (expected name=value)", details=text)
        if key not in values:
            raise InvalidArgument(f"Invalid filter '{key}'{nearest(key, _KEYS)}")
        values[key].append(value)
    return ImageFilter(
        dangling=_boolean(values["dangling"]),
        references=tuple(values["reference"]),
        labels=tuple(values["label"]),
        before=values["before"][-1] if values["before"] else None,
        since=values["since"][-1] if values["since"] else None,
    )


def _boolean(given: Sequence[str]) -> bool | None:
    if not given:
        return None
    try:
        return BooleanType().parse(given[-1])
    except ValueError:
        raise InvalidArgument(f"Invalid filter 'dangling=[{given[-1]}]'") from None


def select(
    images: Sequence[Image],
    wanted: ImageFilter,
    find: Callable[[str], Image],
    *,
    intermediate: bool,
) -> list[Image]:
    """Return those of *images* (all that there are) that *wanted* lets through, in their order.

    Without *intermediate*, nameless images that others were made from are left out.
    """
    parents = {image.parent_id for image in images}
    before = find(wanted.before).created_ns if wanted.before is not None else None
    since = find(wanted.since).created_ns if wanted.since is not None else None
    found = []
    for image in images:
        dangling = not image.references and image.id not in parents
        if not (intermediate or image.references or dangling):
            continue
        if wanted.dangling is not None and dangling != wanted.dangling:
            continue
        if before is not None and image.created_ns >= before:
            continue
        if since is not None and image.created_ns <= since:
            continue
        if not all(_labelled(image, label) for label in wanted.labels):
            continue
        if wanted.references and not _named(image, wanted.references):
            continue
        found.append(image)
    return found


def _labelled(image: Image, label: str) -> bool:
    key, equals, value = label.partition("=")
    labels = image.config.config.labels
    return key in labels and (not equals or labels[key] == value)


def _named(image: Image, patterns: Sequence[str]) -> bool:
    return any(
        matches_pattern(reference, pattern)
        for reference in image.references
        for pattern in patterns
    )
