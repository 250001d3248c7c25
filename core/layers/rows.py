"""The rows of snapshots, and containerd's rules about them; knows no file system.

Every function takes the connection of a transaction, or of a single read. What exists for users
are rows in state *ready*; a row being prepared only holds its name.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import Struct

from ..errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from ..model import Kind, SnapshotInfo, Usage

Content = Literal["pristine", "applied", "written"]
"""Of an active snapshot: equal to its parent; holding just the archive that was applied (its
diffID is known); or anything."""

_SELECT = """
SELECT s.*, p.name AS parent FROM snapshots s LEFT JOIN snapshots p ON p.id = s.parent_id
"""
_CHAIN = """
WITH RECURSIVE chain(id, depth) AS (
    SELECT parent_id, 1 FROM snapshots WHERE id = ?1
    UNION ALL
    SELECT s.parent_id, depth + 1 FROM snapshots s JOIN chain c ON s.id = c.id
)
"""


class Row(Struct, frozen=True):
    """A snapshot as the metastore has it."""

    id: int
    driver: str
    name: str
    parent_id: int | None
    parent: str | None
    host_root: str | None
    kind: Kind
    state: str
    content: Content
    created_ns: int
    updated_ns: int
    prepared_ns: int | None
    labels: Mapping[str, str]
    options: tuple[str, ...]
    usage: Usage | None
    diff_id: str | None
    chain_id: str | None
    committing: Commitment | None

    def info(self) -> SnapshotInfo:
        committed = self.kind is Kind.COMMITTED
        return SnapshotInfo(
            self.id,
            self.driver,
            self.name,
            self.parent,
            self.kind,
            self.created_ns,
            self.updated_ns,
            self.labels,
            self.usage,
            self.diff_id if committed else None,
            self.chain_id,
        )


class Commitment(Struct, frozen=True):
    """What a commit publishes; recorded before the driver seals, so that a kill in between
    only delays it."""

    name: str
    labels: Mapping[str, str]
    diff_id: str
    chain_id: str
    usage: Usage

    def to_json(self) -> str:
        return json.dumps(
            {
                "name": self.name,
                "labels": dict(self.labels),
                "diff_id": self.diff_id,
                "chain_id": self.chain_id,
                "usage": [self.usage.size_bytes, self.usage.inodes],
            },
            sort_keys=True,
        )

    @classmethod
    def from_json(cls, text: str) -> Commitment:
        read = json.loads(text)
        return cls(
            read["name"], read["labels"], read["diff_id"], read["chain_id"], Usage(*read["usage"])
        )


def _parse(raw: sqlite3.Row) -> Row:
    size_bytes, inodes, committing = raw["size_bytes"], raw["inodes"], raw["committing"]
    return Row(
        raw["id"],
        raw["driver"],
        raw["name"],
        raw["parent_id"],
        raw["parent"],
        raw["host_root"],
        Kind(raw["kind"]),
        raw["state"],
        raw["content"],
        raw["created_ns"],
        raw["updated_ns"],
        raw["prepared_ns"],
        json.loads(raw["labels"]),
        tuple(json.loads(raw["options"])),
        None if size_bytes is None else Usage(size_bytes, inodes),
        raw["diff_id"],
        raw["chain_id"],
        None if committing is None else Commitment.from_json(committing),
    )


def find(connection: sqlite3.Connection, driver: str, name: str) -> Row | None:
    """Return the row of that name in whatever state, or None."""
    raw = connection.execute(_SELECT + "WHERE s.driver = ? AND s.name = ?", (driver, name))
    found = raw.fetchone()
    return None if found is None else _parse(found)


def get(connection: sqlite3.Connection, driver: str, name: str) -> Row:
    """Return the row of a snapshot that exists for users.

    Raises:
        NotFound: if there is none.
    """
    row = find(connection, driver, name)
    if row is None or row.state != "ready":
        raise NotFound("snapshot", name)
    return row


def by_id(connection: sqlite3.Connection, number: int) -> Row | None:
    """Return the row with that number in whatever state, or None."""
    found = connection.execute(_SELECT + "WHERE s.id = ?", (number,)).fetchone()
    return None if found is None else _parse(found)


def every(
    connection: sqlite3.Connection, driver: str | None = None, *, state: str | None = "ready"
) -> list[Row]:
    """Return the rows of one driver or all, in the order they were made (parents first)."""
    raw = connection.execute(
        _SELECT + "WHERE (?1 IS NULL OR s.driver = ?1) AND (?2 IS NULL OR s.state = ?2) "
        "ORDER BY s.id",
        (driver, state),
    )
    return [_parse(row) for row in raw.fetchall()]


def unfinished(connection: sqlite3.Connection) -> list[Row]:
    """Return rows that a kill left halfway, or that a live process is working on."""
    raw = connection.execute(_SELECT + "WHERE s.state != 'ready' OR s.committing IS NOT NULL")
    return [_parse(row) for row in raw.fetchall()]


def stack(connection: sqlite3.Connection, number: int) -> tuple[list[int], str | None]:
    """Return the numbers of the parents, nearest first, and the host's directory below all."""
    raw = connection.execute(
        _CHAIN + "SELECT s.id, s.host_root FROM chain c JOIN snapshots s ON s.id = c.id "
        "UNION ALL SELECT id, host_root FROM snapshots WHERE id = ?1 AND parent_id IS NULL",
        (number,),
    )
    found = raw.fetchall()
    host_root = next((row[1] for row in found if row[1] is not None), None)
    return sorted((row[0] for row in found if row[0] != number), reverse=True), host_root


def parents(connection: sqlite3.Connection, number: int) -> list[Row]:
    """Return the rows of the parents, nearest first."""
    raw = connection.execute(
        _CHAIN + _SELECT + "JOIN chain c ON c.id = s.id ORDER BY c.depth", (number,)
    )
    return [_parse(row) for row in raw.fetchall()]


def children(connection: sqlite3.Connection, number: int) -> list[Row]:
    """Return the rows whose parent it is, whatever their state."""
    raw = connection.execute(_SELECT + "WHERE s.parent_id = ?", (number,))
    return [_parse(row) for row in raw.fetchall()]


def parent_for(connection: sqlite3.Connection, driver: str, parent: str | None) -> Row | None:
    """Return the row of what is to be a parent; None stands for a base.

    Raises:
        NotFound: if it does not exist.
        InvalidArgument: if it is not committed.
    """
    if not parent:
        return None
    row = find(connection, driver, parent)
    if row is None or row.state != "ready":
        raise NotFound("snapshot", parent, brief=f"No such parent snapshot: {parent}")
    if row.kind is not Kind.COMMITTED:
        raise InvalidArgument(f"parent {parent!r} is not a committed snapshot")
    return row


def refuse_taken(connection: sqlite3.Connection, driver: str, name: str) -> None:
    """Raise AlreadyExists if a snapshot has the name, or a commit under way will give it."""
    taken = connection.execute(
        "SELECT 1 FROM snapshots WHERE driver = ?1 AND name = ?2 UNION ALL "
        "SELECT 1 FROM snapshots WHERE committing IS NOT NULL AND driver = ?1 "
        "AND json_extract(committing, '$.name') = ?2 LIMIT 1",
        (driver, name),
    )
    if taken.fetchone() is not None:
        raise AlreadyExists("snapshot", name)


def insert(
    tx: sqlite3.Connection,
    driver: str,
    name: str,
    parent: str | None,
    kind: Kind,
    labels: Mapping[str, str],
    options: Sequence[str],
    host_root: str | None = None,
) -> Row:
    """Add a row in state *preparing*: the intent that precedes every effect.

    Raises:
        NotFound, InvalidArgument: as ``parent_for``.
        AlreadyExists: if the name is taken.
    """
    above = parent_for(tx, driver, parent)
    refuse_taken(tx, driver, name)
    now = time.time_ns()
    cursor = tx.execute(
        "INSERT INTO snapshots (driver, name, parent_id, host_root, kind, state, content, "
        "created_ns, updated_ns, labels, options) "
        "VALUES (?, ?, ?, ?, ?, 'preparing', 'pristine', ?, ?, ?, ?)",
        (
            driver,
            name,
            above.id if above else None,
            host_root,
            kind.value,
            now,
            now,
            json.dumps(dict(labels), sort_keys=True),
            json.dumps(list(options)),
        ),
    )
    row = by_id(tx, cursor.lastrowid or 0)
    assert row is not None
    return row


def set_ready(tx: sqlite3.Connection, number: int, prepared_ns: int) -> None:
    """Let a prepared snapshot exist for users."""
    tx.execute(
        "UPDATE snapshots SET state = 'ready', prepared_ns = ? WHERE id = ?",
        (prepared_ns, number),
    )


def set_content(
    tx: sqlite3.Connection, number: int, content: Content, diff_id: str | None = None
) -> None:
    """Record what an active snapshot holds."""
    tx.execute(
        "UPDATE snapshots SET content = ?, diff_id = ? WHERE id = ?", (content, diff_id, number)
    )


def set_labels(tx: sqlite3.Connection, row: Row, labels: Mapping[str, str]) -> None:
    """Replace the labels; the time of the update always moves on."""
    tx.execute(
        "UPDATE snapshots SET labels = ?, updated_ns = ? WHERE id = ?",
        (
            json.dumps(dict(labels), sort_keys=True),
            max(time.time_ns(), row.updated_ns + 1),
            row.id,
        ),
    )


def set_options(tx: sqlite3.Connection, number: int, options: Sequence[str]) -> None:
    """Replace the snapshot's own options."""
    tx.execute("UPDATE snapshots SET options = ? WHERE id = ?", (json.dumps(list(options)), number))


def begin_commit(tx: sqlite3.Connection, row: Row, commitment: Commitment) -> None:
    """Record what is about to be published and reserve its name.

    Raises:
        AlreadyExists: if the name is taken; nothing is changed then.
    """
    refuse_taken(tx, row.driver, commitment.name)
    tx.execute(
        "UPDATE snapshots SET committing = ?, content = 'applied', diff_id = ? WHERE id = ?",
        (commitment.to_json(), commitment.diff_id, row.id),
    )


def cancel_commit(tx: sqlite3.Connection, number: int) -> None:
    """Take back ``begin_commit``: the snapshot is active as before."""
    tx.execute("UPDATE snapshots SET committing = NULL WHERE id = ?", (number,))


def publish(
    tx: sqlite3.Connection, number: int, commitment: Commitment, prepared_ns: int | None = None
) -> None:
    """Turn an active snapshot into a committed one: its key goes, its name is there."""
    now = time.time_ns()
    tx.execute(
        "UPDATE snapshots SET name = ?, kind = 'committed', state = 'ready', committing = NULL, "
        "content = 'applied', labels = ?, diff_id = ?, chain_id = ?, size_bytes = ?, inodes = ?, "
        "created_ns = ?, updated_ns = ?, prepared_ns = coalesce(?, prepared_ns) WHERE id = ?",
        (
            commitment.name,
            json.dumps(dict(commitment.labels), sort_keys=True),
            commitment.diff_id,
            commitment.chain_id,
            commitment.usage.size_bytes,
            commitment.usage.inodes,
            now,
            now,
            prepared_ns,
            number,
        ),
    )


def refuse_with_children(connection: sqlite3.Connection, row: Row) -> None:
    """Raise FailedPrecondition if the snapshot is somebody's parent."""
    names = [child.name for child in children(connection, row.id)]
    if names:
        raise FailedPrecondition(
            f"snapshot {row.name!r} is the parent of others",
            details=f"its children: {', '.join(sorted(names)[:5])}"
            + (f" and {len(names) - 5} more" if len(names) > 5 else ""),
            resolution="remove them first",
        )
