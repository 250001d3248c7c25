"""The entries of conmon's log, in the form that Kubernetes calls CRI logging.

Each line is ``TIME STREAM TAG TEXT``: TIME in RFC 3339 with nanoseconds, STREAM ``stdout`` or
``stderr``, TAG ``F`` for a full line and ``P`` for a part of one that goes on in the next entry.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Literal

from msgspec import Struct

_ENTRY = re.compile(rb"(\S+) (stdout|stderr) ([FP])(?: |$)")
_FRACTION = re.compile(r"\.(\d+)")


class LogEntry(Struct, frozen=True):
    """One entry: *text* ends with a newline unless the line goes on (or was never ended)."""

    time: str
    """RFC 3339, as written, with nanoseconds."""
    stream: Literal["stdout", "stderr"]
    text: bytes

    @property
    def time_ns(self) -> int:
        return parse_time_ns(self.time)

    @property
    def partial(self) -> bool:
        return not self.text.endswith(b"\n")


def parse_time_ns(text: str) -> int:
    """Return nanoseconds since 1970 of an RFC 3339 time with up to nine decimals.

    Raises:
        ValueError: if it is no such time.
    """
    fraction = _FRACTION.search(text)
    whole = _FRACTION.sub("", text).replace("Z", "+00:00")
    moment = datetime.fromisoformat(whole)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    nanoseconds = int(fraction[1][:9].ljust(9, "0")) if fraction else 0
    return int(moment.timestamp()) * 1_000_000_000 + nanoseconds


def parse_entry(line: bytes) -> LogEntry | None:
    """Return the entry of a line of the log, without its newline; None if it is none."""
    match = _ENTRY.match(line)
    if match is None:
        return None
    stream: Literal["stdout", "stderr"] = "stdout" if match[2] == b"stdout" else "stderr"
    end = b"\n" if match[3] == b"F" else b""
    return LogEntry(match[1].decode(errors="replace"), stream, line[match.end() :] + end)
