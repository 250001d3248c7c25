"""Media in memory that record what is written, and what a power cut may leave of it.

What was not synced when the power went may be there, or not, or in part, each write for itself.
The order of writes and syncs of both media is kept in one journal.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from random import Random
from typing import NamedTuple

PAGE = 4096
SECTOR = 512
ZEROS = bytes(PAGE)

Pages = dict[int, bytes]


def put(pages: Pages, offset: int, contents: bytes) -> None:
    """Write into sparse pages."""
    done = 0
    while done < len(contents):
        page, start = divmod(offset + done, PAGE)
        part = contents[done : done + PAGE - start]
        if len(part) < PAGE:
            old = pages.get(page, ZEROS)
            part = old[:start] + part + old[start + len(part) :]
            done += PAGE - start
        else:
            done += PAGE
        pages[page] = part


def get(pages: Pages, offset: int, length: int) -> bytes:
    if offset % PAGE == 0 and length == PAGE:
        return pages.get(offset // PAGE, ZEROS)
    first, last = offset // PAGE, -(-(offset + length) // PAGE)
    joined = b"".join(pages.get(page, ZEROS) for page in range(first, last))
    start = offset - first * PAGE
    return joined[start : start + length]


class Event(NamedTuple):
    """A write, or the sync of all writes before it where *contents* is None."""

    medium: int
    offset: int
    contents: bytes | None


class Machine:
    """A computer with a metadata disk (0) and a data disk (1) that can lose its power."""

    def __init__(self, metadata_bytes: int, data_bytes: int) -> None:
        self.sizes = [metadata_bytes, data_bytes]
        self.pages: list[Pages] = [{}, {}]  # as seen by who reads now
        self.durable: list[Pages] = [{}, {}]
        self.events: list[Event] = []
        self.fail_after: int | None = None
        """How many writes and syncs still succeed; then each answers EIO."""

    def media(self) -> tuple[Disk, Disk]:
        return Disk(self, 0), Disk(self, 1)

    def note(self, event: Event) -> None:
        if self.fail_after is not None:
            if self.fail_after == 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            self.fail_after -= 1
        self.events.append(event)
        if event.contents is not None:
            put(self.pages[event.medium], event.offset, event.contents)

    def cuts(self, random: Random) -> Iterator[Machine]:
        """Yield, for each event so far, a machine that lost its power right after it; and settle
        what is durable."""
        durable = [dict(pages) for pages in self.durable]
        pending: list[Event] = []
        for event in self.events:
            if event.contents is None:
                for write in pending:
                    if write.medium == event.medium:
                        put(durable[write.medium], write.offset, write.contents or b"")
                pending = [write for write in pending if write.medium != event.medium]
            else:
                pending.append(event)
            yield self._cut(durable, pending, random)
        self.durable, self.events = durable, pending

    def settle(self) -> None:
        """Apply the syncs so far."""
        for _ in self.cuts(Random(0)):
            pass

    def cut(self, random: Random) -> Machine:
        """Lose the power now."""
        self.settle()
        return self._cut(self.durable, self.events, random)

    def _cut(self, durable: list[Pages], pending: list[Event], random: Random) -> Machine:
        left = Machine(*self.sizes)
        left.durable = [dict(pages) for pages in durable]
        keep = random.choice((0.0, 0.5, 0.5, 1.0))
        for write in pending:
            assert write.contents is not None
            if random.random() < keep:
                put(left.durable[write.medium], write.offset, write.contents)
            elif keep and random.random() < 0.5:
                for offset, part in torn(write, random):
                    put(left.durable[write.medium], offset, part)
        left.pages = [dict(pages) for pages in left.durable]
        return left


def torn(write: Event, random: Random) -> Iterator[tuple[int, bytes]]:
    """Some of a write: the metadata may break off at any byte, of data whole sectors are lost."""
    contents = write.contents or b""
    if write.medium == 0:
        # what differs of a superblock is at its beginning
        yield write.offset, contents[: random.randrange(random.choice((160, len(contents))))]
        return
    done = 0
    while done < len(contents):
        size = min(SECTOR - (write.offset + done) % SECTOR, len(contents) - done)
        size += SECTOR * random.choice((0, 1, 16))
        if random.random() < 0.5:
            yield write.offset + done, contents[done : done + size]
        done += size


class Disk:
    """One medium of a machine; see ``stowage_drivers.storage.devicemapper.media.Medium``."""

    def __init__(self, machine: Machine, number: int) -> None:
        self._machine = machine
        self._number = number
        self.closed = False

    @property
    def size_bytes(self) -> int:
        return self._machine.sizes[self._number]

    def read(self, offset: int, length: int) -> bytes:
        return get(self._machine.pages[self._number], offset, length)

    def write(self, offset: int, contents: bytes) -> None:
        assert offset + len(contents) <= self.size_bytes
        self._machine.note(Event(self._number, offset, contents))

    def discard(self, offset: int, length: int) -> None:
        self._machine.note(Event(self._number, offset, bytes(length)))

    def sync(self) -> None:
        self._machine.note(Event(self._number, 0, None))

    def grow(self, size_bytes: int) -> None:
        self._machine.sizes[self._number] = size_bytes

    def close(self) -> None:
        self.closed = True
