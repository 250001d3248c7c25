"""Images as the metastore records them: the one place that knows their tables.

An image is its config's bytes under their digest; its layers are named by chainID and may live
on one driver or several. What Docker keeps beside the config (the parent image, when it was
tagged) is in the row's labels.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct, field

from ..errors import InvalidArgument, NotFound
from ..layers.digests import chain_id
from .config import ImageConfig, image_id, parse_config
from .reference import Reference, id_prefix, parse_reference, short_id

PARENT, TAGGED, CONTAINER = "parent", "last-tagged-ns", "container"
_LIVE = ("running", "paused", "restarting")


class Image(Struct, frozen=True):
    """An image as recorded; *references* are sorted, *raw_config* is what *id* is the digest of."""

    id: str
    raw_config: bytes
    config: ImageConfig
    references: tuple[Reference, ...]
    recorded_ns: int
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def short_id(self) -> str:
        return short_id(self.id)

    @property
    def chain(self) -> tuple[str, ...]:
        """The chainIDs of its layers, base first; the names of their snapshots."""
        return chain_of(self.config.diff_ids)

    @property
    def top(self) -> str | None:
        """The chainID of its top layer: the parent of a container's snapshot. None if it has
        no layers."""
        chain = self.chain
        return chain[-1] if chain else None

    @property
    def tags(self) -> tuple[str, ...]:
        """Docker's RepoTags."""
        return tuple(str(one) for one in self.references if one.digest is None)

    @property
    def digests(self) -> tuple[str, ...]:
        """Docker's RepoDigests."""
        return tuple(str(one) for one in self.references if one.digest is not None)

    @property
    def parent_id(self) -> str | None:
        """The image it was made from here; None if it came from elsewhere."""
        return self.labels.get(PARENT)

    @property
    def created_ns(self) -> int:
        return self.config.created_ns


def chain_of(diff_ids: Iterable[str]) -> tuple[str, ...]:
    """Return the chainID of each layer, base first (OCI image-spec, ``config.md``)."""
    chain: list[str] = []
    for diff_id in diff_ids:
        chain.append(chain_id(chain[-1] if chain else None, diff_id))
    return tuple(chain)


class ImageUser(Struct, frozen=True):
    """A container that was made from an image."""

    container_id: str
    live: bool


def users_of(connection: sqlite3.Connection, identifier: str) -> Sequence[ImageUser]:
    """Return the containers of an image, the live ones first."""
    rows = connection.execute("SELECT id, state FROM containers WHERE image_id = ?", (identifier,))
    users = [ImageUser(row["id"], row["state"] in _LIVE) for row in rows]
    return sorted(users, key=lambda user: (not user.live, user.container_id))


# --- reading -----------------------------------------------------------------------------------


def find_by_id(connection: sqlite3.Connection, identifier: str) -> Image | None:
    """Return the image with this full id."""
    row = connection.execute("SELECT * FROM images WHERE id = ?", (identifier,)).fetchone()
    return None if row is None else _image(connection, row)


def all_images(connection: sqlite3.Connection) -> list[Image]:
    """Return every image, newest first, as ``images`` lists them."""
    names: dict[str, list[str]] = {}
    for row in connection.execute("SELECT name, image_id FROM image_references"):
        names.setdefault(row["image_id"], []).append(row["name"])
    images = [
        _with_names(row, names.get(row["id"], ()))
        for row in connection.execute("SELECT * FROM images")
    ]
    return sorted(images, key=lambda image: (-image.created_ns, image.id))


def resolve(connection: sqlite3.Connection, text: str) -> Image:
    """Return the image that a user means: a name, a full id, or an id's unambiguous beginning.

    A name wins over an id that begins like it.

    Raises:
        NotFound: in Docker's words.
        InvalidArgument: if it is neither a reference nor an id, or the id is ambiguous.
    """
    prefix = id_prefix(text)
    if prefix is None or not (len(prefix) == 64 or text.startswith("sha256:")):
        named = _by_name(connection, parse_reference(text))
        if named is not None:
            return named
    if prefix is not None:
        found = _by_prefix(connection, text, prefix)
        if found is not None:
            return found
    raise NotFound("image", text)


def _by_name(connection: sqlite3.Connection, reference: Reference) -> Image | None:
    row = connection.execute(
        "SELECT images.* FROM images JOIN image_references ON image_id = images.id WHERE name = ?",
        (str(reference.recorded),),
    ).fetchone()
    return None if row is None else _image(connection, row)


def _by_prefix(connection: sqlite3.Connection, text: str, prefix: str) -> Image | None:
    first = f"sha256:{prefix}"
    rows = connection.execute(
        "SELECT * FROM images WHERE id >= ? AND id < ? LIMIT 3", (first, first + "g")
    ).fetchall()
    if len(rows) > 1:
        raise InvalidArgument(
            f"image id {text!r} is ambiguous",
            details="it begins those of " + ", ".join(short_id(row["id"]) for row in rows),
            resolution="give more of its digits",
        )
    return _image(connection, rows[0]) if rows else None


def children_of(connection: sqlite3.Connection, identifier: str) -> bool:
    """Tell whether an image was made from this one."""
    rows = connection.execute("SELECT labels FROM images WHERE labels LIKE ?", (f"%{identifier}%",))
    return any(json.loads(row["labels"]).get(PARENT) == identifier for row in rows)


def chains_in_use(connection: sqlite3.Connection) -> set[str]:
    """Return the chainIDs of all layers of all images."""
    rows = connection.execute("SELECT config FROM images")
    return {name for row in rows for name in chain_of(parse_config(row["config"]).diff_ids)}


def drivers_of(connection: sqlite3.Connection, chain: str) -> list[str]:
    """Return the drivers on which the layer with this chainID is committed."""
    rows = connection.execute(
        "SELECT driver FROM snapshots WHERE name = ? AND kind = 'committed' AND state = 'ready'"
        " ORDER BY id",
        (chain,),
    )
    return [row["driver"] for row in rows]


def init_snapshots_on(connection: sqlite3.Connection, chain: str, driver: str) -> list[str]:
    """Return the init snapshots of containers (see :mod:`stowage.layers.init`) on a layer."""
    from ..layers.init import LABEL  # brings most of the layer store along

    rows = connection.execute(
        "SELECT child.name, child.labels FROM snapshots AS child"
        " JOIN snapshots AS parent ON parent.id = child.parent_id"
        " WHERE parent.name = ? AND parent.driver = ? AND child.kind = 'committed'",
        (chain, driver),
    )
    return [row["name"] for row in rows if LABEL in json.loads(row["labels"])]


def layer_sizes(connection: sqlite3.Connection, image: Image, driver: str | None) -> list[int]:
    """Return the recorded bytes of each layer of an image on *driver*, base first."""
    chain = image.chain
    marks = ", ".join("?" * len(chain))
    rows = connection.execute(
        f"SELECT name, size_bytes FROM snapshots WHERE driver = ? AND name IN ({marks})",
        (driver, *chain),
    )
    size_by_name = {row["name"]: row["size_bytes"] or 0 for row in rows}
    return [size_by_name.get(name, 0) for name in chain]


def _image(connection: sqlite3.Connection, row: sqlite3.Row) -> Image:
    names = connection.execute(
        "SELECT name FROM image_references WHERE image_id = ?", (row["id"],)
    ).fetchall()
    return _with_names(row, [name["name"] for name in names])


def _with_names(row: sqlite3.Row, names: Iterable[str]) -> Image:
    return Image(
        id=row["id"],
        raw_config=row["config"],
        config=parse_config(row["config"]),
        references=tuple(parse_reference(name) for name in sorted(names)),
        recorded_ns=row["created_ns"],
        labels=json.loads(row["labels"]),
    )


# --- writing -----------------------------------------------------------------------------------


def insert_image(
    tx: sqlite3.Connection, raw_config: bytes, labels: Mapping[str, str] | None = None
) -> str:
    """Record an image and return its id; one that is there already keeps its row."""
    identifier = image_id(raw_config)
    tx.execute(
        "INSERT OR IGNORE INTO images (id, config, created_ns, labels) VALUES (?, ?, ?, ?)",
        (identifier, raw_config, time.time_ns(), json.dumps(dict(labels or {}))),
    )
    return identifier


def point(tx: sqlite3.Connection, reference: Reference, identifier: str) -> str | None:
    """Let *reference* mean this image; return the id of the image that it meant before."""
    name = str(reference.recorded)
    row = tx.execute("SELECT image_id FROM image_references WHERE name = ?", (name,)).fetchone()
    tx.execute("INSERT OR REPLACE INTO image_references VALUES (?, ?)", (name, identifier))
    tx.execute(
        "UPDATE images SET labels = json_set(labels, ?, ?) WHERE id = ?",
        (f'$."{TAGGED}"', str(time.time_ns()), identifier),
    )
    return None if row is None or row["image_id"] == identifier else str(row["image_id"])


def unpoint(tx: sqlite3.Connection, reference: Reference) -> None:
    """Forget what *reference* means."""
    tx.execute("DELETE FROM image_references WHERE name = ?", (str(reference.recorded),))


def delete_image(tx: sqlite3.Connection, identifier: str) -> None:
    """Forget an image and its names."""
    tx.execute("DELETE FROM image_references WHERE image_id = ?", (identifier,))
    tx.execute("DELETE FROM images WHERE id = ?", (identifier,))
