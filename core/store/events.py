"""Reading the journal: what happened in a root, and what happens, in whatever process.

Every change of state appends to the journal in its own transaction, so an event is there when,
and only when, what it tells of is recorded. Waiting costs nothing: a commit writes to SQLite's
write-ahead log, which inotify(7) tells.
"""

from __future__ import annotations

import json
import select
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

from msgspec import Struct

from ..linux.inotify import IN_MODIFY, Inotify
from .metastore import Metastore

_NS = 1_000_000_000
#: Looked at even if nothing is told: the log is another file once all others have closed it.
_LONGEST_WAIT_SECONDS = 5.0
_POLL_SECONDS = 0.2


class Event(Struct, frozen=True):
    """One entry of the journal; *actor* is the id or name of what it happened to."""

    time_ns: int
    type: str
    action: str
    actor: str
    attributes: Mapping[str, str]


def read_events(
    metastore: Metastore,
    *,
    since_ns: int | None = None,
    until_ns: int | None = None,
) -> Iterator[Event]:
    """Yield events in the order in which they happened, and wait for more until *until_ns*.

    Without *since_ns* only those from now on; without *until_ns* it never ends. The journal
    keeps some thousands. To be used by one thread.
    """
    with ExitStack() as stack:
        changes = stack.enter_context(_Changes(metastore.path))
        last = 0
        if since_ns is None:
            newest = metastore.read().execute("SELECT ifnull(max(seq), 0) FROM journal")
            last = newest.fetchone()[0]
        while True:
            over = until_ns is not None and time.time_ns() >= until_ns
            rows = (
                metastore.read()
                .execute(
                    "SELECT * FROM journal WHERE seq > ? AND time_ns BETWEEN ? AND ? ORDER BY seq",
                    (last, since_ns or 0, (1 << 63) - 1 if until_ns is None else until_ns),
                )
                .fetchall()
            )
            for row in rows:
                last = row["seq"]
                attributes = json.loads(row["attributes"])
                yield Event(row["time_ns"], row["type"], row["action"], row["actor"], attributes)
            if over:
                return
            metastore.rest()
            changes.wait(None if until_ns is None else (until_ns - time.time_ns()) / _NS)


class _Changes:
    """Waits until something may have been recorded."""

    def __init__(self, database: Path) -> None:
        self._log = database.with_name(f"{database.name}-wal")
        self._inotify: Inotify | None = None

    def __enter__(self) -> _Changes:
        try:
            self._inotify = Inotify()
            self._inotify.add(self._log, IN_MODIFY)
        except OSError:  # none left for this user, or no such file yet: it is polled
            self.__exit__()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None

    def wait(self, seconds: float | None) -> None:
        """Wait for a change, but no longer than *seconds*."""
        longest = _LONGEST_WAIT_SECONDS if self._inotify is not None else _POLL_SECONDS
        seconds = max(0.0, min(longest, longest if seconds is None else seconds))
        if self._inotify is None:
            time.sleep(seconds)
            return
        poller = select.poll()
        poller.register(self._inotify.descriptor, select.POLLIN)
        if poller.poll(seconds * 1000):
            self._inotify.read()
