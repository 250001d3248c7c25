"""Where the last lines of a large log begin, found from its end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO

from .log_entries import LogEntry, parse_entry

_BLOCK_BYTES = 1 << 16


def find_tail(file: BinaryIO, count: int) -> tuple[int, frozenset[str]] | None:
    """Return the offset at which the last *count* lines of a log's file begin.

    With it come the streams of which a line that began earlier goes on there: it is not one of
    them. None if the file alone does not tell, for a line may have begun in an older one.

    An entry begins a line if the one before it on the same stream ends one, so every stream is
    looked at until that is known of all its entries from the offset on.
    """
    seen: dict[str, list[tuple[int, bool]]] = {"stdout": [], "stderr": []}
    starts: list[int] = []  # newest first
    for offset, entry in _backwards(file):
        later = seen[entry.stream]
        if later and not entry.partial:
            starts.append(later[-1][0])
            starts.sort(reverse=True)
            del starts[count:]
        later.append((offset, entry.partial))
        if len(starts) == count and all(one[-1][0] < starts[-1] for one in seen.values() if one):
            return starts[-1], _continued(seen, starts[-1])
    return None


def _continued(seen: dict[str, list[tuple[int, bool]]], first: int) -> frozenset[str]:
    """Return the streams whose last entry before *first* does not end a line."""
    last = {
        stream: next((partial for offset, partial in entries if offset < first), False)
        for stream, entries in seen.items()
    }
    return frozenset(stream for stream, partial in last.items() if partial)


def _backwards(file: BinaryIO) -> Iterator[tuple[int, LogEntry]]:
    """Yield the entries that are written to their end, last first, with their offsets."""
    for offset, line in _lines_backwards(file):
        entry = parse_entry(line)
        if entry is not None:
            yield offset, entry


def _lines_backwards(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    descriptor = file.fileno()
    end = os.fstat(descriptor).st_size
    rest = b""  # the beginning of what comes after *end*, up to its first newline
    while end:
        begin = max(0, end - _BLOCK_BYTES)
        block = os.pread(descriptor, end - begin, begin) + rest
        cut = block.find(b"\n") + 1 if begin else 0
        end = begin
        if begin and not cut:  # a line longer than a block
            rest = block
            continue
        rest, offset = block[:cut], begin + cut
        found: list[tuple[int, bytes]] = []
        for line in block[cut:].split(b"\n")[:-1]:
            found.append((offset, line))
            offset += len(line) + 1
        yield from reversed(found)
