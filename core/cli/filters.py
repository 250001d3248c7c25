"""``--filter key=value`` of the list commands."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence

from ..errors import InvalidArgument
from ..options import nearest
from .flags import Parsed

Pair = tuple[str, str]


def parse_filter(text: str) -> Pair:
    """Split a filter.

    Raises:
        ValueError: if it has no ``=``.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError("bad format of filter (expected name=value)")
    return key.strip().lower(), value.strip()


def pairs_of(parsed: Parsed, known: Collection[str] | None = None) -> list[Pair]:
    """Return what was given for ``--filter``, each key of it one of *known* (None: any).

    Raises:
        InvalidArgument: if a key is unknown.
    """
    pairs: list[Pair] = list(parsed.typed("filter", tuple))
    for key, _ in pairs:
        if known is not None and key not in known:
            raise InvalidArgument(
                f"Invalid filter '{key}'{nearest(key, known)}",
                resolution=f"filters are {', '.join(sorted(known))}",
            )
    return pairs


def accept(pairs: Sequence[Pair], tests: Mapping[str, Callable[[str], bool]]) -> bool:
    """Tell whether an object passes: for each key one of its values must (Docker's rule), but
    all labels must. *tests* say for each key whether a value fits the object; it has all of them.
    """
    by_key: dict[str, list[str]] = {}
    for key, value in pairs:
        by_key.setdefault(key, []).append(value)
    return all(
        (all if key == "label" else any)(tests[key](value) for value in values)
        for key, values in by_key.items()
    )


def label_matches(labels: Mapping[str, str], wanted: str) -> bool:
    """Tell whether *labels* have ``key`` or ``key=value``."""
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


def name_matches(name: str, pattern: str) -> bool:
    """Tell whether *name* contains *pattern*, a regular expression as in Docker.

    Raises:
        InvalidArgument: if it is none.
    """
    try:
        return re.search(pattern, name) is not None or re.search(pattern, f"/{name}") is not None
    except re.error as error:
        raise InvalidArgument(f"invalid filter 'name={pattern}': {error}") from None


def id_matches(identity: str, pattern: str) -> bool:
    """Tell whether *identity* contains *pattern*, a regular expression as in Docker.

    Raises:
        InvalidArgument: if it is none.
    """
    try:
        return re.search(pattern, identity) is not None
    except re.error as error:
        raise InvalidArgument(f"invalid filter 'id={pattern}': {error}") from None


def ports_of_filter(key: str, text: str) -> set[tuple[int, str]]:
    """Return the ports that ``--filter expose=`` or ``publish=`` means: ``80``, ``80/udp`` or
    ``8000-8080/tcp``.

    Raises:
        InvalidArgument: in Docker's words.
    """
    if ":" in text:
        raise InvalidArgument(f"filter for '{key}' should not contain ':': {text}")
    ports, _, protocol = text.partition("/")
    first, _, last = ports.partition("-")
    try:
        start, end = int(first), int(last or first)
        if not 0 <= start <= end <= 65535:
            raise ValueError("the range is not valid")
    except ValueError as error:
        raise InvalidArgument(f"error while looking up for {key} {text}: {error}") from None
    return {(port, protocol or "tcp") for port in range(start, end + 1)}
