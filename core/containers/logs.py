"""Reading what a container wrote."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from .log_entries import LogEntry, parse_entry
from .log_files import LogFiles
from .log_tail import find_tail

_POLL_SECONDS = 0.05


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
        continued = _seek_tail(files, tail) if tail else frozenset()
        entries: Iterator[LogEntry] = reader.entries()
        if tail is not None:
            whole = _from_beginnings(entries, continued)
            entries = iter(_last_lines(whole, tail))
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


def _seek_tail(files: LogFiles, tail: int) -> frozenset[str]:
    """Pass over what is certainly before the last lines; returns the streams of which a line
    goes on there that began before."""
    newest = files.newest()
    found = find_tail(newest, tail) if newest is not None else None
    if found is None:
        return frozenset()
    files.start_at(found[0])
    return found[1]


def _from_beginnings(entries: Iterator[LogEntry], continued: frozenset[str]) -> Iterator[LogEntry]:
    """Leave out the rest of lines of the *continued* streams."""
    waiting = set(continued)
    for entry in entries:
        if entry.stream not in waiting:
            yield entry
        elif not entry.partial:
            waiting.discard(entry.stream)


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
                entry = parse_entry(line)
                if entry is not None:
                    yield entry


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
