"""Whole numbers as users write them: ASCII digits, within what 64 bits hold."""

from __future__ import annotations

import re

INT64_MAX = (1 << 63) - 1
_WHOLE = re.compile(r"[+-]?[0-9]+")


def parse_whole(text: str, *, least: int = -INT64_MAX - 1, most: int = INT64_MAX) -> int:
    """Return the whole number that *text* is.

    Raises:
        ValueError: "expected a whole number", or "value out of range".
    """
    if _WHOLE.fullmatch(text) is None:
        raise ValueError("expected a whole number")
    if len(text) > 40:
        raise ValueError("value out of range")
    value = int(text)
    if not least <= value <= most:
        raise ValueError("value out of range")
    return value
