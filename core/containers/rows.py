"""Containers as the metastore records them: the one place that knows their table.

State changes and the event that tells of them are one transaction.
"""

from __future__ import annotations

import json
import signal
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from ..errors import InvalidArgument, NotFound
from ..linux.process import ProcessIdentity
from ..store.metastore import Metastore, record_event
from ..volumes import rows as volume_rows
from .model import ContainerRecord, ContainerSpec, ContainerState, RuntimeFacts
from .names import check_name, is_id, name_in_use, random_name

_NAME_ATTEMPTS = 20


class ContainerRows:
    """The table ``containers`` of one root."""

    def __init__(self, metastore: Metastore) -> None:
        self._metastore = metastore

    # --- reading -----------------------------------------------------------------------------

    def find(self, container_id: str) -> ContainerRecord | None:
        """Return the container with that whole id, or None."""
        row = self._read("SELECT * FROM containers WHERE id = ?", container_id).fetchone()
        return None if row is None else _record(row)

    def get(self, reference: str) -> ContainerRecord:
        """Return the container that a user means: whole id, name, or an id's beginning.

        Raises:
            NotFound: "No such container: x".
            InvalidArgument: if several ids begin like that.
        """
        bare = reference.removeprefix("/")
        if is_id(bare):
            found = self.find(bare)
            if found is not None:
                return found
        row = self._read("SELECT * FROM containers WHERE name = ?", bare).fetchone()
        if row is not None:
            return _record(row)
        if bare and all(digit in "0123456789abcdef" for digit in bare):
            rows = self._read(
                "SELECT * FROM containers WHERE id >= ? AND id < ? LIMIT 2", bare, bare + "g"
            ).fetchall()
            if len(rows) > 1:
                raise InvalidArgument(f"Multiple IDs found with provided prefix: {reference}")
            if rows:
                return _record(rows[0])
        raise NotFound("container", reference)

    def all(self) -> Sequence[ContainerRecord]:
        """Return every container, newest first."""
        rows = self._read("SELECT * FROM containers ORDER BY created_ns DESC, id")
        return [_record(row) for row in rows]

    def unsettled(self) -> Sequence[ContainerRecord]:
        """Return those that recovery must look at: live, half made, starting or half removed."""
        rows = self._read(
            "SELECT * FROM containers WHERE state IN ('running','paused','restarting','removing')"
            " OR json_extract(runtime, '$.prepared') IS NOT 1"
            " OR json_extract(runtime, '$.starting') IS 1"
            " OR json_extract(runtime, '$.restarts.kept_by') IS NOT NULL"
        )
        return [_record(row) for row in rows]

    def using_snapshot(self, driver: str, key: str) -> ContainerRecord | None:
        """Return the container whose snapshot that is, or None."""
        row = self._read(
            "SELECT * FROM containers WHERE driver = ? AND snapshot = ?", driver, key
        ).fetchone()
        return None if row is None else _record(row)

    def sharing_network_of(self, container_id: str) -> Sequence[ContainerRecord]:
        """Return the live containers that run in the network namespace of another one."""
        rows = self._read(
            "SELECT * FROM containers WHERE json_extract(config, '$.network') = ?"
            " AND state IN ('running','paused','restarting')",
            f"container:{container_id}",
        )
        return [_record(row) for row in rows]

    def states(self) -> Mapping[str, ContainerState]:
        """Return the state of every container by id."""
        rows = self._read("SELECT id, state FROM containers")
        return {row["id"]: ContainerState(row["state"]) for row in rows}

    def endpoint_without_container(self) -> bool:
        """Whether an endpoint belongs to a container that has no row."""
        query = "SELECT 1 FROM endpoints WHERE container_id NOT IN (SELECT id FROM containers)"
        return self._read(f"{query} LIMIT 1").fetchone() is not None

    def last_exit_code(self, container_id: str) -> int | None:
        """Return what the journal says of a container's last end, or None; it may be gone."""
        row = self._read(
            "SELECT attributes FROM journal WHERE actor = ? AND type = 'container'"
            " AND action = 'die' ORDER BY seq DESC LIMIT 1",
            container_id,
        ).fetchone()
        return None if row is None else int(json.loads(row[0])["exitCode"])

    def _read(self, query: str, *values: object) -> sqlite3.Cursor:
        return self._metastore.read().execute(query, values)

    # --- writing -----------------------------------------------------------------------------

    def insert(
        self,
        record: ContainerRecord,
        *,
        name: str | None,
        also: Callable[[sqlite3.Connection], None] | None = None,
    ) -> ContainerRecord:
        """Record a new container under *name*, or under a random free one.

        *also* is done in the same transaction, once the row is there.

        Raises:
            InvalidArgument: if the name cannot be one.
            NotFound: if its image was removed meanwhile.
            AlreadyExists: in Docker's words, if the name is another container's.
        """
        wanted = None if name is None else check_name(name)

        def write(tx: sqlite3.Connection) -> ContainerRecord:
            _require_image(tx, record)
            named = replace(record, name=wanted or _free_name(tx))
            taken = tx.execute("SELECT id FROM containers WHERE name = ?", (named.name,))
            other = taken.fetchone()
            if other is not None:
                raise name_in_use(named.name, other["id"])
            tx.execute(
                "INSERT INTO containers (id, name, state, image_id, image_name, driver, snapshot,"
                " config, runtime, created_ns) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    named.id, named.name, named.state.value, named.image_id, named.image_name,
                    named.driver, named.snapshot, json.dumps(named.spec.to_json()),
                    json.dumps(named.runtime.to_json()), named.created_ns,
                ),
            )  # fmt: skip
            if also is not None:
                also(tx)
            return named

        return self._metastore.transact(write)

    def update(
        self,
        record: ContainerRecord,
        *,
        state: ContainerState | None = None,
        events: Sequence[str] = (),
        also: Callable[[sqlite3.Connection], None] | None = None,
        **facts: Any,
    ) -> ContainerRecord:
        """Record a new state and new facts together with their events; returns the record.

        The caller holds the container's lock, so *record* is what the row says.
        """
        changed = replace(
            record, state=state or record.state, runtime=replace(record.runtime, **facts)
        )

        def write(tx: sqlite3.Connection) -> None:
            tx.execute(
                "UPDATE containers SET state = ?, runtime = ? WHERE id = ?",
                (changed.state.value, json.dumps(changed.runtime.to_json()), changed.id),
            )
            if facts.get("prepared") and changed.spec.volumes.mounts:
                volume_rows.settle(tx, changed.id)
            for action in events:
                self.event(tx, changed, action)
            if also is not None:
                also(tx)

        self._metastore.transact(write)
        return changed

    def respecify(self, record: ContainerRecord, spec: ContainerSpec) -> ContainerRecord:
        """Record another specification of a container; the caller holds its lock."""

        def write(tx: sqlite3.Connection) -> None:
            tx.execute(
                "UPDATE containers SET config = ? WHERE id = ?",
                (json.dumps(spec.to_json()), record.id),
            )

        self._metastore.transact(write)
        return replace(record, spec=spec)

    def disown(self, container_id: str, process: ProcessIdentity | None) -> None:
        """Make *process* no longer the one that is to record a container's end.

        For who cannot get the container's lock: it changes nothing else of the row.
        """

        def write(tx: sqlite3.Connection) -> None:
            row = tx.execute("SELECT * FROM containers WHERE id = ?", (container_id,)).fetchone()
            if row is None:
                return
            facts = _record(row).runtime
            if facts.monitor_process == process:
                text = json.dumps(replace(facts, monitor_process=None).to_json())
                tx.execute("UPDATE containers SET runtime = ? WHERE id = ?", (text, container_id))

        self._metastore.transact(write)

    def delete(self, record: ContainerRecord) -> Sequence[str]:
        """Forget a container, of which nothing else is left but volumes.

        Returns the names of those that are condemned with it: anonymous ones, if they are to go,
        and ones that were made for it when it never became whole.
        """
        wishes = record.spec.volumes
        anonymous = wishes.anonymous if record.runtime.remove_volumes else ()

        def write(tx: sqlite3.Connection) -> Sequence[str]:
            if tx.execute("DELETE FROM containers WHERE id = ?", (record.id,)).rowcount:
                self.event(tx, record, "destroy")
                return volume_rows.release(tx, wishes.names, anonymous)
            return ()

        return self._metastore.transact(write)

    def rename(self, record: ContainerRecord, name: str) -> None:
        """Give a container another name; raises as :meth:`insert`."""
        wanted = check_name(name)

        def write(tx: sqlite3.Connection) -> None:
            other = tx.execute("SELECT id FROM containers WHERE name = ?", (wanted,)).fetchone()
            if other is not None:
                raise name_in_use(wanted, other["id"])
            tx.execute("UPDATE containers SET name = ? WHERE id = ?", (wanted, record.id))
            self.event(tx, replace(record, name=wanted), "rename", oldName=f"/{record.name}")

        self._metastore.transact(write)

    def event(
        self, tx: sqlite3.Connection, record: ContainerRecord, action: str, **more: str
    ) -> None:
        """Append what happened to a container to the journal, with Docker's attributes."""
        attributes = {**record.spec.labels, "image": record.image_name, "name": record.name}
        if action == "die":
            attributes["exitCode"] = str(record.runtime.exit_code)
        elif action == "kill":
            attributes["signal"] = str(int(signal.SIGKILL))  # unless it is said
        elif action == "start":
            _record_volumes(tx, record, "mount")
        record_event(tx, "container", action, record.id, {**attributes, **more})
        if action == "die":
            _record_volumes(tx, record, "unmount")

    def record_event(self, record: ContainerRecord, action: str, **more: str) -> None:
        """Append an event that changes no state ("kill", "exec_start")."""
        self._metastore.transact(lambda tx: self.event(tx, record, action, **more))


def _record_volumes(tx: sqlite3.Connection, record: ContainerRecord, action: str) -> None:
    for mount in record.spec.volumes.mounts:
        attributes = {"container": record.id, "driver": "local"}
        if action == "mount":
            attributes |= {
                "destination": mount.target,
                "propagation": "",
                "read/write": str(not mount.read_only).lower(),
            }
        record_event(tx, "volume", action, mount.name, attributes)


def _require_image(tx: sqlite3.Connection, record: ContainerRecord) -> None:
    """From now on the image's removal sees that it is used."""
    known = tx.execute("SELECT 1 FROM images WHERE id = ?", (record.image_id,)).fetchone()
    if record.image_id and known is None:
        raise NotFound("image", record.image_name)


def _free_name(tx: sqlite3.Connection) -> str:
    for attempt in range(_NAME_ATTEMPTS):
        name = random_name(attempt)
        if not tx.execute("SELECT 1 FROM containers WHERE name = ?", (name,)).fetchone():
            return name
    return random_name(_NAME_ATTEMPTS)


def new_record(
    container_id: str, spec: ContainerSpec, *, image_id: str, driver: str, runtime: RuntimeFacts
) -> ContainerRecord:
    """Return the record of a container that is about to be made; its name comes with the row."""
    return ContainerRecord(
        id=container_id,
        name="",
        state=ContainerState.CREATED,
        image_id=image_id,
        image_name=spec.image,
        driver=driver,
        snapshot=container_id,
        created_ns=time.time_ns(),
        spec=spec,
        runtime=runtime,
    )


def _record(row: sqlite3.Row) -> ContainerRecord:
    return ContainerRecord(
        id=row["id"],
        name=row["name"],
        state=ContainerState(row["state"]),
        image_id=row["image_id"] or "",
        image_name=row["image_name"] or "",
        driver=row["driver"] or "",
        snapshot=row["snapshot"] or "",
        created_ns=row["created_ns"],
        spec=ContainerSpec.from_json(json.loads(row["config"])),
        runtime=RuntimeFacts.from_json(json.loads(row["runtime"])),
    )
