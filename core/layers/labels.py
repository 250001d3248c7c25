"""Labels of snapshots: what is allowed, and which part of them an update touches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import InvalidArgument

LIMIT_BYTES = 4096
"""Most bytes of a key and its value together (containerd, ``pkg/labels``)."""


def valid_labels(labels: Mapping[str, str] | None) -> dict[str, str]:
    """Return *labels* without those that are empty, which means absent.

    Raises:
        InvalidArgument: for one that is too long or has no key.
    """
    kept = {key: value for key, value in (labels or {}).items() if value}
    for key, value in kept.items():
        size = len(key.encode()) + len(value.encode())
        if size > LIMIT_BYTES:
            raise InvalidArgument(
                f"label {key[:64]!r} is too long",
                details=f"key and value have {size} bytes; at most {LIMIT_BYTES} are allowed",
            )
        if not key:
            raise InvalidArgument("a label needs a key")
    return kept


def updated_labels(
    old: Mapping[str, str], new: Mapping[str, str], field_paths: Sequence[str]
) -> dict[str, str]:
    """Return *old* with the parts that *field_paths* name taken from *new*.

    No path, or ``labels``, replaces all of them; ``labels.KEY`` that one, an absent value
    removing it.

    Raises:
        InvalidArgument: for a path of anything else (``name``, ``parent``, ``kind``, …).
    """
    labels = dict(old)
    for path in field_paths or ("labels",):
        if path == "labels":
            labels = dict(new)
        elif path.startswith("labels."):
            key = path.removeprefix("labels.")
            labels[key] = new.get(key, "")
        else:
            raise InvalidArgument(
                f"cannot update {path!r} of a snapshot",
                resolution="only labels can be changed: 'labels' or 'labels.KEY'",
            )
    return valid_labels(labels)
