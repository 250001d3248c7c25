"""Numbers as Docker's users write them: ``64m``, ``1.5g``, ``0.5`` CPUs."""

from __future__ import annotations

import re

from ..options import parse_size


def parse_memory(text: str) -> int:
    """Return the bytes that ``64m``, ``1.5g``, ``512KiB`` or ``4096`` mean (1k = 1024).

    Raises:
        ValueError: "invalid size: 'x'".
    """
    try:
        return parse_size(text)
    except ValueError:
        raise ValueError(f"invalid size: '{text}'") from None


def parse_nano_cpus(text: str) -> int:
    """Return a number of CPUs (``1.5``) in billionths of one.

    Raises:
        ValueError: if it is no number, or finer than a billionth.
    """
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)", text):
        raise ValueError(f"failed to parse {text} as a rational number")
    from decimal import Decimal

    nano = Decimal(text) * 1_000_000_000
    if nano != nano.to_integral_value():
        raise ValueError("value is too precise")
    return int(nano)
