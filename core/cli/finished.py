"""A look at the records before conmon's exit command starts for good: mostly there is nothing left
to do, for who waited for the container's end has recorded it."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from contextlib import closing, suppress
from urllib.parse import quote

from ..effects import effect

_LIVES = ("running", "paused", "restarting")


def is_finished(arguments: list[str]) -> bool:
    """Tell whether the end of a container's run is recorded already, by who holds its lock now or
    held it before. *arguments*: ``--data-root D --exec-root E container finish ID RUN``.

    Reads only; with any doubt the answer is no.
    """
    if arguments[:4:2] != ["--data-root", "--exec-root"] or len(arguments) != 8:
        return False
    root, container, run = arguments[1], arguments[6], arguments[7]
    with suppress(OSError):  # no lock: nobody changes it, or it is gone
        lock = os.open(os.path.join(root, "locks", f"container-{container}"), os.O_RDONLY)
        try:
            with effect("lock.wait", container=container):
                fcntl.flock(lock, fcntl.LOCK_SH)
        finally:
            os.close(lock)
    try:
        return _recorded(root, container, run)
    except sqlite3.Error:
        return False


def _recorded(root: str, container: str, run: str) -> bool:
    path = quote(os.path.join(root, "metadata.db"))
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as database:
        row = database.execute(
            "SELECT state, json_extract(runtime, '$.run') FROM containers WHERE id = ?",
            (container,),
        ).fetchone()
    return row is None or row[0] not in _LIVES or row[1] != run
