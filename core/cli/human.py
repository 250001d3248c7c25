"""Sizes, durations and times as Docker shows them (go-units), and as its users write them."""

from __future__ import annotations

import re
import time
from datetime import datetime

from ..errors import InvalidArgument
from ..images.times import format_time
from ..numbers import INT64_MAX

NS = 1_000_000_000
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}


def size(size_bytes: int, digits: int = 4) -> str:
    """Return *size_bytes* with at most *digits* significant digits (``1.986MB``, 1 kB = 1000)."""
    value, unit = float(size_bytes), 0
    while float(f"{value:.{digits}g}") >= 1000 and unit < len(_UNITS) - 1:
        value /= 1000
        unit += 1
    return f"{float(f'{value:.{digits}g}'):g}{_UNITS[unit]}"


def binary_size(size_bytes: int) -> str:
    """Return *size_bytes* in powers of 1024 (``23.54GiB``)."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return f"{value:.4g}{unit}"
        value /= 1024
    raise AssertionError("unreachable")


def duration(seconds: float) -> str:
    """Return *seconds* in words (``About a minute``), as Docker's HumanDuration."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole < 60:
        return "1 second" if whole == 1 else f"{whole} seconds"
    minutes = whole // 60
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    for limit_days, length_days, unit in ((14, 1, "days"), (60, 7, "weeks"), (730, 30, "months")):
        if hours < 24 * limit_days:
            return f"{hours // 24 // length_days} {unit}"
    return f"{hours // 24 // 365} years"


def since(time_ns: int, now_ns: int | None = None) -> str:
    """Return how long ago *time_ns* was (``2 seconds ago``); ``N/A`` for none."""
    if not time_ns:
        return "N/A"
    now = time.time_ns() if now_ns is None else now_ns
    return f"{duration((now - time_ns) / NS)} ago"


def rfc3339(time_ns: int) -> str:
    """Return *time_ns* as Go's RFC3339Nano in UTC; Go's zero time for none."""
    if not time_ns:
        return "0001-01-01T00:00:00Z"
    return format_time(time_ns)


def local_time(time_ns: int) -> str:
    """Return *time_ns* as Docker's CreatedAt shows it (``2026-11-24 04:16:43 +0000 UTC``)."""
    moment = datetime.fromtimestamp(time_ns // NS).astimezone()
    return f"{moment:%Y-%m-%d %H:%M:%S %z %Z}"


def parse_duration(text: str) -> float:
    """Return the seconds of a Go duration (``1h30m``, ``10s``).

    Raises:
        ValueError: if it is none.
    """
    parts = list(_DURATION.finditer(text))
    if not parts or "".join(part[0] for part in parts) != text:
        raise ValueError("expected a duration such as 90s or 1h30m")
    return sum(float(part[1]) * _SECONDS[part[2]] for part in parts)


def parse_when(text: str, now_ns: int | None = None, *, flag: str = "") -> int:
    """Return the nanoseconds since 1970 that *text* means: a time (RFC 3339, with or without
    zone or time of day; local where none is said), a duration ago, or seconds since 1970.

    Raises:
        InvalidArgument: if it is none of these, naming the *flag* that it was given for.
    """
    now = time.time_ns() if now_ns is None else now_ns
    try:
        when = _seconds_since_1970(text)
        if when is None:
            when = _ago(text, now)
        if when is None:
            when = _moment(text)
        if abs(when) > INT64_MAX:
            raise ValueError
        return when
    except (ValueError, OverflowError):
        wrong = f'failed to parse value as time or duration: "{text}"'
        raise InvalidArgument(
            f'invalid value for "{flag}": {wrong}' if flag else wrong,
            resolution="write it as 2026-11-24T04:16:43Z, as 10m (ago) or in seconds since 1970",
        ) from None


def _seconds_since_1970(text: str) -> int | None:
    match = re.fullmatch(r"([0-9]{1,19})(?:\.([0-9]{1,9}))?", text)
    if match is None:
        return None
    return int(match[1]) * NS + int((match[2] or "").ljust(9, "0"))


def _ago(text: str, now_ns: int) -> int | None:
    try:
        seconds = parse_duration(text)
    except ValueError:
        return None
    return now_ns - round(seconds * NS)


def _moment(text: str) -> int:
    match = re.fullmatch(r"(.+?)(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:?[0-9]{2})?", text)
    if match is None:
        raise ValueError
    moment = datetime.fromisoformat(match[1] + (match[3] or ""))
    fraction_ns = int((match[2] or ".0")[1:].ljust(9, "0"))
    return int(moment.astimezone().timestamp()) * NS + fraction_ns


def ellipsis(text: str, length: int) -> str:
    """Return *text* cut to *length* characters, the last of them an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "…"


def short_id(identity: str) -> str:
    """Return the 12 digits that Docker shows of an id, without its algorithm."""
    return identity.partition(":")[2][:12] if ":" in identity else identity[:12]
