"""Removing images by Docker's rules (moby ``daemon/images/image_delete.go``).

A name that was given is untagged; the image goes with its last name. Conflicts that *force*
does not settle: children, and live containers. Layers go when no image, container or other
layer needs them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from msgspec import Struct

from ..errors import Busy, FailedPrecondition, NotFound
from ..layers.store import LayerStore
from ..store.locks import Locks
from ..store.metastore import Metastore, record_event
from .reference import Reference, is_id_of, parse_reference, short_id
from .rows import (
    Image,
    chains_in_use,
    children_of,
    delete_image,
    drivers_of,
    find_by_id,
    init_snapshots_on,
    resolve,
    unpoint,
    users_of,
)

COLLECTING = "gc"
"""The layer store's lock: held shared by who adds layers, exclusively by who removes them."""


class Removed(Struct, frozen=True):
    """One line of what ``rmi`` did: *untagged* is a name, *deleted* an image's or a layer's id."""

    untagged: str | None = None
    deleted: str | None = None

    def __str__(self) -> str:
        return f"Untagged: {self.untagged}" if self.untagged else f"Deleted: {self.deleted}"


class _Kept(Exception):
    """The image itself stays; what was untagged stays untagged."""


class ImageRemover:
    """Removes images and their layers from one root."""

    def __init__(self, metastore: Metastore, layers: LayerStore, locks: Locks) -> None:
        self._metastore = metastore
        self._layers = layers
        self._locks = locks

    def remove(self, text: str, *, force: bool, prune: bool) -> list[Removed]:
        """Remove the image or the name that *text* means; returns what was done, in order.

        With *prune*, parents that have no name and no use left go as well.

        Raises:
            NotFound: if there is no such image.
            FailedPrecondition: in Docker's words, if something needs it.
        """
        done: list[Removed] = []
        chains: list[Sequence[str]] = []

        def write(tx: sqlite3.Connection) -> None:
            done.clear()
            chains.clear()
            image = resolve(tx, text)
            try:
                quiet = self._untag(tx, image, text, done, force=force)
                self._delete(tx, image, done, force=force, quiet=quiet)
            except _Kept:
                return
            chains.append(image.chain)
            parent = image.parent_id
            while prune and parent is not None:
                parent = self._prune(tx, parent, done, chains)

        self._metastore.transact(write)
        for chain in chains:
            done.extend(Removed(deleted=name) for name in self.drop_layers(chain))
        return done

    def _untag(
        self, tx: sqlite3.Connection, image: Image, text: str, done: list[Removed], *, force: bool
    ) -> bool:
        """Untag what was meant. Returns whether the rest may silently not be done: when a name
        was given, removing the image behind it is only a courtesy."""
        if is_id_of(image.id, text) and not _is_name_of(image, text):
            if _of_one_repository(image.references):
                _refuse_conflicts(tx, image, force=force, referenced=False)
                for reference in image.references:
                    _untag_one(tx, image, reference, done)
            return False
        reference = parse_reference(text).recorded
        if not force and _of_one_repository(image.references):
            users = users_of(tx, image.id)
            if users:
                raise FailedPrecondition(
                    f'conflict: unable to remove repository reference "{text}" (must force) - '
                    f"container {short_id(users[0].container_id)} is using its referenced image "
                    f"{image.short_id}"
                )
        _untag_one(tx, image, reference, done)
        left = [one for one in image.references if one != reference]
        for digest in _digests_alone(left, reference):
            _untag_one(tx, image, digest, done)
            left.remove(digest)
        if left:
            raise _Kept
        return True

    def _delete(
        self, tx: sqlite3.Connection, image: Image, done: list[Removed], *, force: bool, quiet: bool
    ) -> None:
        current = find_by_id(tx, image.id)
        assert current is not None  # the transaction has seen it
        try:
            _refuse_conflicts(tx, current, force=force, referenced=True)
        except FailedPrecondition:
            if quiet and (children_of(tx, image.id) or users_of(tx, image.id)):
                raise _Kept from None
            raise
        for reference in current.references:
            _untag_one(tx, current, reference, done)
        delete_image(tx, image.id)
        record_event(tx, "image", "delete", image.id, {"name": image.id})
        done.append(Removed(deleted=image.id))

    def _prune(
        self,
        tx: sqlite3.Connection,
        identifier: str,
        done: list[Removed],
        chains: list[Sequence[str]],
    ) -> str | None:
        """Remove a nameless, unused parent; returns its own parent, to be looked at next."""
        image = find_by_id(tx, identifier)
        if image is None or image.references:
            return None
        try:
            self._delete(tx, image, done, force=False, quiet=True)
        except (_Kept, FailedPrecondition):
            return None
        chains.append(image.chain)
        return image.parent_id

    # --- layers ------------------------------------------------------------------------------

    def drop_layers(self, chain: Iterable[str]) -> list[str]:
        """Remove those layers of a chain (base first) that nothing needs; returns their names.

        While an image is being made somewhere nothing is removed: gc comes for them.
        """
        try:
            with self._locks.acquire(COLLECTING, exclusive=True, subject="the layer store"):
                return self._drop(chain)
        except Busy:
            return []

    def _drop(self, chain: Iterable[str]) -> list[str]:
        connection = self._metastore.read()
        in_use = chains_in_use(connection)
        dropped = []
        for name in reversed(list(chain)):
            if name in in_use:
                break
            drivers = drivers_of(connection, name)
            gone = [driver for driver in drivers if self.remove_with_init(name, driver)]
            if drivers and gone == drivers:
                dropped.append(name)
        return dropped

    def remove_with_init(self, name: str, driver: str) -> bool:
        """Remove a layer and the init snapshots on it that no container has; False if it is
        needed."""
        for init in init_snapshots_on(self._metastore.read(), name, driver):
            self._remove_layer(init, driver)
        return self._remove_layer(name, driver)

    def _remove_layer(self, name: str, driver: str) -> bool:
        try:
            self._layers.remove(name, driver=driver)
        except (FailedPrecondition, NotFound):  # a child or a reader needs it; or gone already
            return False
        return True


def _is_name_of(image: Image, text: str) -> bool:
    """Whether *text* is one of its names although it reads like the beginning of its id."""
    if text.startswith("sha256:") or len(text) == 64:
        return False
    return parse_reference(text).recorded in image.references


def _of_one_repository(references: Sequence[Reference]) -> bool:
    """Whether at most one tag is left, all names being of one repository."""
    tags = [reference for reference in references if reference.digest is None]
    return len(tags) <= 1 and len({reference.name for reference in references}) <= 1


def _digests_alone(left: Sequence[Reference], removed: Reference) -> list[Reference]:
    """Names by digest that stand alone once the last tag of their repository is gone."""
    same = [reference for reference in left if reference.name == removed.name]
    return [] if any(reference.digest is None for reference in same) else same


def _untag_one(
    tx: sqlite3.Connection, image: Image, reference: Reference, done: list[Removed]
) -> None:
    unpoint(tx, reference)
    record_event(tx, "image", "untag", image.id, {"name": image.id})
    done.append(Removed(untagged=str(reference)))


def _refuse_conflicts(
    tx: sqlite3.Connection, image: Image, *, force: bool, referenced: bool
) -> None:
    """Raise FailedPrecondition if something needs the image; *force* settles the soft ones."""
    if children_of(tx, image.id):
        raise _conflict(image, "image has dependent child images", hard=True)
    users = users_of(tx, image.id)
    if users and users[0].live:
        user = short_id(users[0].container_id)
        raise _conflict(image, f"image is being used by running container {user}", hard=True)
    if force:
        return
    if referenced and image.references:
        raise _conflict(image, "image is referenced in multiple repositories", hard=False)
    if users:
        user = short_id(users[0].container_id)
        raise _conflict(image, f"image is being used by stopped container {user}", hard=False)


def _conflict(image: Image, reason: str, *, hard: bool) -> FailedPrecondition:
    how = "cannot be forced" if hard else "must be forced"
    return FailedPrecondition(f"conflict: unable to delete {image.short_id} ({how}) - {reason}")
