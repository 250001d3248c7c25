"""Reading what a container wrote: conmon's log, in the form that Kubernetes calls CRI logging.

Each line is ``TIME STREAM TAG TEXT``: TIME in RFC 3339 with nanoseconds, STREAM ``stdout`` or
``stderr``, TAG ``F`` for a full line and ``P`` for a part of one that goes on in the next entry.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from .log_files import LogFiles

_POLL_SECONDS = 0.05
_ENTRY = re.compile(rb"(\S+) (stdout|stderr) ([FP])(?: |$)")
_FRACTION = re.compile(r"\.(\d+)")


@dataclass(frozen=True, slots=True)
class LogEntry:
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


def read_log(
    path: Path,
    *,
    tail: int | None = None,
    since_ns: int | None = None,
    until_ns: int | None = None,
    follow: Callable[[], bool] | None = None,
) -> Iterator[LogEntry]:
    """Yield the entries of a log, oldest first, those in rotated files as well.

    *tail* is how many of the last lines. *follow* is asked whether the container may write
    more; while it says so, new entries are yielded as they come.
    """
    files = LogFiles(path)
    reader = _Reader(files)
    with closing(files):
        entries: Iterator[LogEntry] = reader.entries()
        if tail is not None:
            entries = iter(_last_lines(entries, tail))
        while True:
            going_on = follow() if follow is not None else False  # asked before the last look
            for entry in entries:
                if until_ns is not None and entry.time_ns > until_ns:
                    return
                if since_ns is None or entry.time_ns >= since_ns:
                    yield entry
            if not going_on:
                return
            time.sleep(_POLL_SECONDS)
            entries = reader.entries()


class _Reader:
    """Splits a growing log into entries; one that is not written to its end waits."""

    def __init__(self, files: LogFiles) -> None:
        self._files = files
        self._rest = b""

    def entries(self) -> Iterator[LogEntry]:
        """Yield what is complete now."""
        for chunk in self._files.chunks():
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            for line in lines:
                entry = _parse(line)
                if entry is not None:
                    yield entry


def _parse(line: bytes) -> LogEntry | None:
    match = _ENTRY.match(line)
    if match is None:
        return None
    stream: Literal["stdout", "stderr"] = "stdout" if match[2] == b"stdout" else "stderr"
    end = b"\n" if match[3] == b"F" else b""
    return LogEntry(match[1].decode(errors="replace"), stream, line[match.end() :] + end)


def _last_lines(entries: Iterator[LogEntry], count: int) -> list[LogEntry]:
    """Keep the last *count* lines, each with all of its parts."""
    if count <= 0:
        for _ in entries:
            pass
        return []
    lines: deque[list[LogEntry]] = deque(maxlen=count)
    open_line: dict[str, list[LogEntry]] = {}
    for entry in entries:
        line = open_line.pop(entry.stream, None)
        if line is None:
            line = []
            lines.append(line)
        line.append(entry)
        if entry.partial:
            open_line[entry.stream] = line
    return [entry for line in lines for entry in line]
