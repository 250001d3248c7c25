"""How images come to be: loaded from an archive, imported from a tree, made from a parent.

Layers are added first, under a shared lock that keeps others from collecting what no image
refers to yet; the images' rows follow in one transaction. So nothing is half made: what a
failure or a kill leaves are layers without an image, and those are collected.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import BinaryIO

from msgspec import Struct, field
from msgspec.structs import replace

from ..errors import DataLoss, InvalidArchive, StowageError, Unavailable
from ..layers.foreign import as_tar
from ..layers.store import LayerStore
from ..layers.unpack import UnpackLimits
from ..store.metastore import Metastore, record_event
from .archives import ImageArchive
from .config import HistoryEntry, ImageConfig, RunConfig, this_platform
from .packed import Blob, PackedImage, open_blob
from .reference import Reference
from .removal import ImageRemover
from .rows import CONTAINER, PARENT, Image, chain_of, drivers_of, find_by_id, insert_image, point
from .times import format_time

_OF_ONE_IMAGE = ("comment", "container", "container_config", "docker_version", "id", "parent")


class _New(Struct, frozen=True):
    """An image that is about to be recorded, and the event that tells of it."""

    raw_config: bytes
    diff_ids: tuple[str, ...]
    references: tuple[Reference, ...]
    action: str
    labels: Mapping[str, str] = field(default_factory=dict)


class ImageMaker:
    """Adds images to one root."""

    def __init__(self, metastore: Metastore, layers: LayerStore, remover: ImageRemover) -> None:
        self._metastore = metastore
        self._layers = layers
        self._remover = remover

    def load(
        self,
        archive: ImageArchive,
        driver: str | None,
        tell: Callable[[str], None],
        limits: UnpackLimits | None = None,
    ) -> list[Image]:
        """Add every image of an archive; all or none of them. Says each in Docker's words."""
        chains: list[Sequence[str]] = [chain_of(image.config.diff_ids) for image in archive.images]
        with self._adding(chains):
            for image in archive.images:
                self._add_layers(archive, image, driver, limits)
            made, replaced = self._record([_loaded(image) for image in archive.images])
        for reference, before in replaced:
            tell(
                f"The image {reference} already exists, renaming the old one "
                f"with ID {before} to empty string"
            )
        for image in archive.images:
            for reference in image.references:
                tell(f"Loaded image: {reference.recorded}")
            if not image.references:
                tell(f"Loaded image ID: {image.id}")
        return made

    def import_tree(
        self,
        stream: BinaryIO,
        reference: Reference | None,
        config: RunConfig,
        *,
        created_ns: int | None,
        comment: str,
        driver: str | None,
        limits: UnpackLimits | None = None,
    ) -> Image:
        """Make an image with one layer of the archive of a root file system."""
        with as_tar(stream) as layer:
            return self.create(
                None, layer, config, reference=reference, created_ns=created_ns, comment=comment,
                driver=driver, action="import", limits=limits,
            )  # fmt: skip

    def create(
        self,
        parent: Image | None,
        layer: BinaryIO | None,
        config: RunConfig,
        *,
        reference: Reference | None = None,
        created_ns: int | None = None,
        created_by: str = "",
        comment: str = "",
        author: str = "",
        container_id: str | None = None,
        driver: str | None = None,
        action: str = "create",
        limits: UnpackLimits | None = None,
    ) -> Image:
        """Make an image from *parent* and one more layer, or from its config alone."""
        base = parent.config if parent else ImageConfig(this_platform())
        added: list[tuple[str, ...]] = []
        with self._adding(added):
            diff_ids = base.diff_ids
            if layer is not None:
                diff_ids = (*diff_ids, self._add_layer(layer, parent, driver, limits))
                added.append(chain_of(diff_ids))
            created = format_time(time.time_ns() if created_ns is None else created_ns)
            step = HistoryEntry(created, created_by, author, comment, empty_layer=layer is None)
            raw = replace(
                base,
                created=created,
                author=author,
                config=config,
                diff_ids=diff_ids,
                history=(*base.history, step),
                extra={key: value for key, value in base.extra.items() if key not in _OF_ONE_IMAGE},
            ).to_bytes()
            labels = {PARENT: parent.id} if parent else {}
            if container_id is not None:
                labels[CONTAINER] = container_id
            references = (reference,) if reference else ()
            (made,), _ = self._record([_New(raw, diff_ids, references, action, labels)])
        return made

    # --- layers ------------------------------------------------------------------------------

    @contextmanager
    def _adding(self, chains: Sequence[Sequence[str]]) -> Iterator[None]:
        """Keep layers from being collected; if it fails, remove those of *chains*."""
        try:
            with self._layers.keeping():
                yield
        except BaseException:
            for chain in chains:
                try:
                    self._remover.drop_layers(chain)
                except StowageError:  # gc comes for them; what went wrong first is what counts
                    pass
            raise

    def _add_layer(
        self,
        stream: BinaryIO,
        parent: Image | None,
        driver: str | None,
        limits: UnpackLimits | None,
    ) -> str:
        """Add a layer whose diffID is not known yet; return it."""
        top = parent.top if parent else None
        info = self._layers.add_layer(stream, top, driver=driver, limits=limits)
        row = self._metastore.read().execute(
            "SELECT diff_id FROM snapshots WHERE driver = ? AND name = ?", (info.driver, info.name)
        ).fetchone()  # fmt: skip
        if row is None or row["diff_id"] is None:
            raise DataLoss(f"layer {info.name} on {info.driver} has no recorded diffID")
        return str(row["diff_id"])

    def _add_layers(
        self,
        archive: ImageArchive,
        image: PackedImage,
        driver: str | None,
        limits: UnpackLimits | None,
    ) -> None:
        """Add the layers that are not there; the archive is not read for the others."""
        chain, connection = chain_of(image.config.diff_ids), self._metastore.read()
        if chain and driver is None and drivers_of(connection, chain[-1]):
            return
        parent = None
        target = driver or self._layers.default_driver
        for name, diff_id, blob in zip(chain, image.config.diff_ids, image.layers, strict=True):
            if target not in drivers_of(connection, name):
                self._add_blob(archive, blob, parent, target, diff_id, limits)
            parent = name

    def _add_blob(
        self,
        archive: ImageArchive,
        blob: Blob,
        parent: str | None,
        driver: str,
        diff_id: str,
        limits: UnpackLimits | None,
    ) -> None:
        try:
            with open_blob(archive.source, blob) as stream:
                self._layers.add_layer(
                    stream, parent, driver=driver, diff_id=diff_id, limits=limits
                )
        except DataLoss as error:
            raise InvalidArchive(
                f"layer {blob.name} is not the one that the image's config names",
                details=str(error),
            ) from error
        except InvalidArchive as error:
            raise InvalidArchive(
                f"layer {blob.name}: {error.brief}", details=error.details
            ) from error

    # --- rows --------------------------------------------------------------------------------

    def _record(self, images: Sequence[_New]) -> tuple[list[Image], list[tuple[Reference, str]]]:
        """Record images and their names in one transaction; return them as they then are, and
        the names that meant other images before, with those."""

        def write(tx: sqlite3.Connection) -> tuple[list[Image], list[tuple[Reference, str]]]:
            identifiers, replaced = [], []
            for new in images:
                self._require_layers(tx, new.diff_ids)
                identifier = insert_image(tx, new.raw_config, new.labels)
                name = str(new.references[0]) if new.references else identifier
                record_event(tx, "image", new.action, identifier, {"name": name})
                for reference in new.references:
                    before = point(tx, reference, identifier)
                    if before is not None:
                        replaced.append((reference.recorded, before))
                identifiers.append(identifier)
            found = (find_by_id(tx, identifier) for identifier in identifiers)
            return [image for image in found if image is not None], replaced

        return self._metastore.transact(write)

    @staticmethod
    def _require_layers(tx: sqlite3.Connection, diff_ids: Iterable[str]) -> None:
        chain = chain_of(diff_ids)
        if chain and not drivers_of(tx, chain[-1]):
            raise Unavailable(
                f"layer {chain[-1]} was removed while an image of it was made",
                resolution="try again",
            )


def _loaded(image: PackedImage) -> _New:
    return _New(image.raw_config, image.config.diff_ids, image.references, "load")
