"""Volumes as the metastore records them: the one place that knows their tables.

A volume's life, by its state: *preparing* (named, nothing on disk that is its own), *made* (its
directory is there, for a container that is not whole yet), *ready*, *removing*. Who uses a
volume is recorded in the transaction that records the container, and forgotten with it.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct, field

from ..errors import Busy, NotFound
from ..store.metastore import record_event

DRIVER = "local"

_UNFINISHED = "state != 'ready' OR filling IS NOT NULL"
_UNUSED = "NOT EXISTS (SELECT 1 FROM volume_users WHERE volume = volumes.name)"


class VolumeRow(Struct, frozen=True):
    """One volume as recorded; *filling* is ``copying`` or ``moving`` while a fill goes on."""

    name: str
    state: str
    filling: str | None
    labels: Mapping[str, str]
    created_ns: int


class VolumeRequest(Struct, frozen=True):
    """A volume that a container wants; it is made unless it *must_exist*."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    must_exist: bool = False


# --- reading ----------------------------------------------------------------------------------


def find(connection: sqlite3.Connection, name: str) -> VolumeRow | None:
    """Return the volume called *name*, whatever its state, or None."""
    row = connection.execute("SELECT * FROM volumes WHERE name = ?", (name,)).fetchone()
    return None if row is None else _parse(row)


def ready(connection: sqlite3.Connection) -> list[VolumeRow]:
    """Return every volume that is there, by name."""
    rows = connection.execute("SELECT * FROM volumes WHERE state = 'ready' ORDER BY name")
    return [_parse(row) for row in rows.fetchall()]


def names(connection: sqlite3.Connection) -> set[str]:
    """Return the names of all volumes, whatever their state."""
    return {row[0] for row in connection.execute("SELECT name FROM volumes").fetchall()}


def unfinished(connection: sqlite3.Connection) -> list[VolumeRow]:
    """Return those that are being made, filled or removed, or were when somebody was killed."""
    rows = connection.execute(f"SELECT * FROM volumes WHERE {_UNFINISHED}")
    return [_parse(row) for row in rows.fetchall()]


def users(connection: sqlite3.Connection, name: str) -> list[str]:
    """Return the ids of the containers that use a volume, running or not."""
    rows = connection.execute(
        "SELECT container_id FROM volume_users WHERE volume = ? ORDER BY container_id", (name,)
    )
    return [row[0] for row in rows.fetchall()]


def user_counts(connection: sqlite3.Connection) -> dict[str, int]:
    """Return how many containers use each volume that is used."""
    rows = connection.execute("SELECT volume, count(*) FROM volume_users GROUP BY volume")
    return dict(rows.fetchall())


# --- writing, inside a transaction ------------------------------------------------------------


def insert(tx: sqlite3.Connection, name: str, labels: Mapping[str, str]) -> None:
    """Record the intent to make a volume."""
    tx.execute(
        "INSERT INTO volumes (name, state, labels, created_ns) VALUES (?, 'preparing', ?, ?)",
        (name, json.dumps(dict(labels)), time.time_ns()),
    )


def claim(tx: sqlite3.Connection, container_id: str, wanted: Iterable[VolumeRequest]) -> None:
    """Record that a container, whose row is there, uses volumes; unknown ones become intents.

    Raises:
        NotFound: if one that must exist does not.
        Busy: if one is being removed at this moment.
    """
    for request in wanted:
        row = find(tx, request.name)
        if row is None and request.must_exist:
            raise NotFound("volume", request.name)
        if row is None:
            insert(tx, request.name, request.labels)
        elif row.state == "removing":
            raise Busy(f"volume {request.name} is being removed", resolution="try again")
        tx.execute(
            "INSERT OR IGNORE INTO volume_users (volume, container_id) VALUES (?, ?)",
            (request.name, container_id),
        )


def settle(tx: sqlite3.Connection, container_id: str) -> None:
    """Make the volumes of a container that is whole now volumes in their own right."""
    rows = tx.execute(
        "SELECT name FROM volumes JOIN volume_users ON volume = name"
        " WHERE container_id = ? AND state = 'made'",
        (container_id,),
    )
    for (name,) in rows.fetchall():
        set_ready(tx, name)


def set_ready(tx: sqlite3.Connection, name: str) -> None:
    """Let a volume that is made be seen."""
    changed = tx.execute(
        "UPDATE volumes SET state = 'ready' WHERE name = ? AND state = 'made'", (name,)
    )
    if changed.rowcount:
        record_event(tx, "volume", "create", name, {"driver": DRIVER})


def set_made(tx: sqlite3.Connection, name: str) -> None:
    """Record that the directory of a volume is its own."""
    tx.execute("UPDATE volumes SET state = 'made' WHERE name = ? AND state = 'preparing'", (name,))


def set_filling(tx: sqlite3.Connection, name: str, filling: str | None) -> None:
    tx.execute("UPDATE volumes SET filling = ? WHERE name = ?", (filling, name))


def release(tx: sqlite3.Connection, used: Sequence[str], anonymous: Sequence[str]) -> list[str]:
    """After a container's row is gone: condemn what only it has *used* and that must go with it.

    These are the ones that were never whole, and the *anonymous* ones. Returns their names.
    """
    gone = [name for name in used if _condemn(tx, name, "state IN ('preparing', 'made')")]
    for name in anonymous:
        if _condemn(tx, name, "state = 'ready'"):
            record_event(tx, "volume", "destroy", name, {"driver": DRIVER})
            gone.append(name)
    return gone


def condemn(tx: sqlite3.Connection, name: str) -> None:
    """Record the intent to remove a volume that nobody uses."""
    if _condemn(tx, name, "state != 'removing'"):
        record_event(tx, "volume", "destroy", name, {"driver": DRIVER})


def condemn_abandoned(tx: sqlite3.Connection, name: str) -> None:
    """Record the intent to remove one that was never whole, if nobody wants it."""
    _condemn(tx, name, "state IN ('preparing', 'made')")


def delete(tx: sqlite3.Connection, name: str) -> None:
    """Forget a volume of which nothing else is left."""
    tx.execute("DELETE FROM volumes WHERE name = ?", (name,))


def _condemn(tx: sqlite3.Connection, name: str, condition: str) -> bool:
    changed = tx.execute(
        f"UPDATE volumes SET state = 'removing', filling = NULL"
        f" WHERE name = ? AND {condition} AND {_UNUSED}",
        (name,),
    )
    return changed.rowcount > 0


def _parse(row: sqlite3.Row) -> VolumeRow:
    return VolumeRow(
        row["name"], row["state"], row["filling"], json.loads(row["labels"]), row["created_ns"]
    )
