"""RFC 3339 times with nanoseconds, as image configs and Docker's documents write them."""

from __future__ import annotations

import calendar
import re
import time

_SECOND = 1_000_000_000
_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)"
)


def format_time(time_ns: int) -> str:
    """Return nanoseconds since 1970 as ``2026-11-24T04:16:43.972860518Z`` (UTC).

    Trailing zeros of the fraction are left out, as Go's RFC3339Nano does.
    """
    seconds, fraction = divmod(time_ns, _SECOND)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    digits = f"{fraction:09d}".rstrip("0")
    return f"{text}.{digits}Z" if digits else f"{text}Z"


def parse_time(text: str) -> int:
    """Return the nanoseconds since 1970 of an RFC 3339 time.

    Raises:
        ValueError: if it is not one.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f"not an RFC 3339 time: {text!r}")
    year, month, day, hour, minute, second = (int(match[n]) for n in range(1, 7))
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second <= 60):
        raise ValueError(f"not an RFC 3339 time: {text!r}")
    whole = calendar.timegm((year, month, day, hour, minute, second, 0, 0, 0))
    return (whole - _offset_seconds(match[8])) * _SECOND + int((match[7] or "0").ljust(9, "0"))


def _offset_seconds(zone: str) -> int:
    if zone in "Zz":
        return 0
    sign = -1 if zone[0] == "-" else 1
    return sign * (int(zone[1:3]) * 3600 + int(zone[4:6]) * 60)
