"""The tables of ``metadata.db``, as migrations that only go forward.

``PRAGMA user_version`` counts the migrations that a file has had. Times are nanoseconds since
1970; columns called labels, options, config, runtime, owner, attributes and committing hold JSON.
"""

from __future__ import annotations

import sqlite3

from ..errors import DataLoss, FailedPrecondition

APPLICATION_ID = 0x53544F57  # "STOW", so that file(1) and we can tell the file from any other

_FOUNDATION = """
CREATE TABLE settings (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE snapshots (
    id INTEGER PRIMARY KEY AUTOINCREMENT,   -- never used twice: it names a directory
    driver TEXT NOT NULL,
    name TEXT NOT NULL,
    parent_id INTEGER REFERENCES snapshots(id),
    host_root TEXT,                         -- a directory of the host that lies below this base
    kind TEXT NOT NULL,                     -- active, view, committed
    state TEXT NOT NULL,                    -- preparing, ready
    content TEXT NOT NULL,                  -- pristine, applied, written
    created_ns INTEGER NOT NULL,
    updated_ns INTEGER NOT NULL,
    prepared_ns INTEGER,                    -- the file system's clock when it equalled its parent
    labels TEXT NOT NULL DEFAULT '{}',
    options TEXT NOT NULL DEFAULT '[]',     -- as given: ["size=1G"]
    size_bytes INTEGER,                     -- this and inodes: frozen at commit
    inodes INTEGER,
    diff_id TEXT,                           -- of an active one: of the archive applied to it
    chain_id TEXT,
    committing TEXT,                        -- what a commit that has begun to seal will publish
    UNIQUE (driver, name)
) STRICT;
CREATE INDEX snapshots_by_parent ON snapshots(parent_id);
CREATE INDEX snapshots_by_diff ON snapshots(diff_id);
CREATE INDEX snapshots_unfinished ON snapshots(id)
    WHERE state != 'ready' OR committing IS NOT NULL;

CREATE TABLE trash (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    driver TEXT NOT NULL,
    directory TEXT NOT NULL,                -- <id> in storage/<driver>, <driver>-<id> in trash
    diff_id TEXT,                           -- whose recipe may have lost its last layer
    created_ns INTEGER NOT NULL
) STRICT;

CREATE TABLE mounts (
    id INTEGER PRIMARY KEY,
    snapshot_id INTEGER NOT NULL REFERENCES snapshots(id),
    path TEXT NOT NULL,
    device INTEGER NOT NULL,                -- st_dev of its root, so that no other is taken for it
    owner TEXT                              -- the process it dies with; NULL: until unmounted
) STRICT;
CREATE INDEX mounts_by_snapshot ON mounts(snapshot_id);

CREATE TABLE images (
    id TEXT PRIMARY KEY,
    config BLOB NOT NULL,
    created_ns INTEGER NOT NULL,
    labels TEXT NOT NULL DEFAULT '{}'
) STRICT;

CREATE TABLE image_references (
    name TEXT PRIMARY KEY,
    image_id TEXT NOT NULL REFERENCES images(id)
) STRICT;
CREATE INDEX image_references_by_image ON image_references(image_id);

CREATE TABLE containers (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    image_id TEXT,
    image_name TEXT,
    driver TEXT,
    snapshot TEXT,                          -- its key on that driver
    config TEXT NOT NULL,
    runtime TEXT NOT NULL DEFAULT '{}',
    created_ns INTEGER NOT NULL
) STRICT;

CREATE TABLE networks (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    driver TEXT NOT NULL,
    state TEXT NOT NULL,
    config TEXT NOT NULL
) STRICT;

CREATE TABLE endpoints (
    id TEXT PRIMARY KEY,
    network_id TEXT NOT NULL,
    container_id TEXT NOT NULL,
    state TEXT NOT NULL,
    config TEXT NOT NULL
) STRICT;
CREATE INDEX endpoints_by_network ON endpoints(network_id);
CREATE INDEX endpoints_by_container ON endpoints(container_id);

CREATE TABLE journal (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    time_ns INTEGER NOT NULL,
    type TEXT NOT NULL,
    action TEXT NOT NULL,
    actor TEXT NOT NULL,
    attributes TEXT NOT NULL DEFAULT '{}'
) STRICT;
"""

_ADDRESSES = """
CREATE TABLE addresses (
    network_id TEXT NOT NULL,
    address BLOB NOT NULL,                  -- family (4 or 6) and bytes: sorts as addresses do
    endpoint_id TEXT NOT NULL REFERENCES endpoints(id) ON DELETE CASCADE,
    PRIMARY KEY (network_id, address)
) STRICT, WITHOUT ROWID;
CREATE INDEX addresses_by_endpoint ON addresses(endpoint_id);

CREATE TABLE address_hints (                -- below it, no address of the pool's range is free
    network_id TEXT NOT NULL,
    family INTEGER NOT NULL,
    lowest BLOB NOT NULL,
    PRIMARY KEY (network_id, family)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER addresses_freed AFTER DELETE ON addresses BEGIN
    UPDATE address_hints SET lowest = OLD.address
        WHERE network_id = OLD.network_id AND lowest > OLD.address
        AND substr(lowest, 1, 1) = substr(OLD.address, 1, 1);
END;
"""

_VOLUMES = """
CREATE TABLE volumes (
    name TEXT PRIMARY KEY,
    state TEXT NOT NULL,                    -- preparing, made, ready, removing
    filling TEXT,                           -- copying, moving: what an image has at its place
    labels TEXT NOT NULL DEFAULT '{}',
    created_ns INTEGER NOT NULL
) STRICT;
CREATE INDEX volumes_unfinished ON volumes(name) WHERE state != 'ready' OR filling IS NOT NULL;

CREATE TABLE volume_users (
    volume TEXT NOT NULL REFERENCES volumes(name),
    container_id TEXT NOT NULL REFERENCES containers(id) ON DELETE CASCADE,
    PRIMARY KEY (volume, container_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX volume_users_by_container ON volume_users(container_id);
"""

MIGRATIONS: tuple[str, ...] = (_FOUNDATION, _ADDRESSES, _VOLUMES)
"""Each brings a file from the version of its index to the next; published ones never change."""

VERSION = len(MIGRATIONS)


def version_of(connection: sqlite3.Connection) -> int:
    """Return how many migrations the file has had.

    Raises:
        FailedPrecondition: if a newer Stowage wrote it.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise FailedPrecondition(
            "this root was written by a newer Stowage",
            details=f"its metadata has version {version}; this Stowage knows up to {VERSION}",
            resolution="use that Stowage, or another root",
        )
    return int(version)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the file to :data:`VERSION`, in one transaction per step. Idempotent, and safe
    while other processes do the same.

    Raises:
        FailedPrecondition: if a newer Stowage wrote it.
        DataLoss: if it is a database of something else.
    """
    while version_of(connection) < VERSION:
        connection.execute("BEGIN IMMEDIATE")
        try:
            version = version_of(connection)  # again, now that nobody else writes
            if version == 0:
                _claim(connection)
            if version < VERSION:
                for statement in _statements(MIGRATIONS[version]):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {version + 1}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _claim(connection: sqlite3.Connection) -> None:
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if tables:
        raise DataLoss("metadata.db is a database of something else, not of Stowage")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def _statements(script: str) -> list[str]:
    """Split a script (``executescript`` would commit the transaction that is open)."""
    statements, rest = [], ""
    for line in script.splitlines():
        rest += line.split("--")[0] + "\n"
        if sqlite3.complete_statement(rest):
            statements.append(rest.strip())
            rest = ""
    return statements
