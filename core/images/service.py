"""The images of one root: found, listed, named, made, loaded, saved, placed and removed.

An image is a config and a chain of layers in the layer store. A chain belongs to one driver, and
may be on several: :meth:`Images.ensure` brings it to the one that is asked for.
"""

from __future__ import annotations

import logging
import re
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ..errors import DataLoss, InvalidArgument
from ..layers.store import LayerStore
from ..model import SnapshotInfo
from ..store.layout import RootLayout
from ..store.locks import Locks
from ..store.metastore import Metastore, record_event
from .changes import apply_changes
from .config import RunConfig
from .describe import HistoryLine, history_lines, inspect_document
from .listing import parse_filters, select
from .making import ImageMaker
from .reference import Reference, is_id_of, parse_reference, parse_tag_target
from .removal import ImageRemover, Removed
from .rows import (
    Image,
    all_images,
    chains_in_use,
    drivers_of,
    find_by_id,
    layer_sizes,
    point,
    resolve,
)

if TYPE_CHECKING:
    from ..layers.collect import Collected
    from ..layers.unpack import UnpackLimits
    from .migrating import Migration
    from .saving import ArchiveFormat, SavedImage

__all__ = ["Image", "Images"]

logger = logging.getLogger("stowage.images")

_CHAIN = re.compile(r"sha256:[0-9a-f]{64}")
_FORMATS = ("docker-archive", "oci-archive")


def _ignore(message: str) -> None:
    """Tell nobody."""


class Images:
    """The images of the root at *layout*. Safe to use from many threads and processes."""

    def __init__(self, metastore: Metastore, layers: LayerStore, layout: RootLayout) -> None:
        self._metastore = metastore
        self._layers = layers
        self.layout = layout
        self._remover = ImageRemover(metastore, layers, Locks(layout.locks))
        self._maker = ImageMaker(metastore, layers, self._remover)

    # --- finding -----------------------------------------------------------------------------

    def resolve(self, reference: str) -> Image:
        """Return the image that a name, an id or the beginning of an id means.

        Raises:
            NotFound: if there is none.
            InvalidArgument: if it cannot be one, or begins several ids.
        """
        return resolve(self._metastore.read(), reference)

    def list(self, filters: Iterable[str] = (), *, intermediate: bool = False) -> Sequence[Image]:
        """Return the images, newest first.

        *filters* are ``dangling=``, ``reference=``, ``label=``, ``before=`` and ``since=`` as
        Docker has them; *intermediate* ones are nameless parents of others.

        Raises:
            InvalidArgument: if a filter is wrong.
            NotFound: if ``before`` or ``since`` name no image.
        """
        connection = self._metastore.read()
        wanted = parse_filters(filters)
        return select(all_images(connection), wanted, self.resolve, intermediate=intermediate)

    def size_bytes(self, image: Image) -> int:
        """Return the bytes that its layers occupy, as recorded: no file is looked at."""
        return sum(self._sizes(image))

    def _sizes(self, image: Image) -> Sequence[int]:
        return layer_sizes(self._metastore.read(), image, self.driver_of(image))

    def driver_of(self, image: Image) -> str | None:
        """Return a driver that holds its layers: the default one if it does. None if it has
        none."""
        if image.top is None:
            return None
        drivers = drivers_of(self._metastore.read(), image.top)
        if not drivers:
            raise DataLoss(
                f"image {image.short_id} has lost its layers",
                details=f"no driver holds {image.top}",
                resolution="load or import it again",
            )
        default = self._layers.default_driver
        return default if default in drivers else drivers[0]

    def history(self, image: Image) -> Sequence[HistoryLine]:
        """Return the steps by which an image came to be, the newest first."""
        find = partial(find_by_id, self._metastore.read())
        return history_lines(image, self._sizes(image), find)

    def inspect(self, image: Image) -> dict[str, object]:
        """Return the document that ``docker image inspect`` shows."""
        driver = self.driver_of(image)
        metadata = self._layers.metadata(image.top, driver=driver) if image.top else {}
        return inspect_document(image, self.size_bytes(image), driver, metadata)

    def referenced(self) -> set[str]:
        """Return the chainIDs that images refer to, for gc."""
        return chains_in_use(self._metastore.read())

    # --- names -------------------------------------------------------------------------------

    def tag(self, source: str, target: str) -> Image:
        """Let the name *target* mean the image *source*, whatever it meant before.

        Raises:
            NotFound: if there is no such image.
            InvalidArgument: if *target* is no name, or has a digest.
        """
        reference = parse_tag_target(target)

        def write(tx: sqlite3.Connection) -> str:
            identifier = resolve(tx, source).id
            point(tx, reference, identifier)
            record_event(tx, "image", "tag", identifier, {"name": str(reference)})
            return identifier

        return self.resolve(self._metastore.transact(write))

    def remove(
        self, reference: str, *, force: bool = False, prune: bool = True
    ) -> Sequence[Removed]:
        """Remove a name, or an image with its last name; returns what was done, in order.

        With *prune*, parents that have no name and no use left go too. Layers go when no image,
        container or other layer needs them; while an image is being made somewhere they are
        left to :meth:`collect`.

        Raises:
            NotFound: if there is no such image.
            FailedPrecondition: in Docker's words, if a container or an image needs it.
        """
        return self._remover.remove(reference, force=force, prune=prune)

    def collect(self) -> Collected:
        """Remove the layers that nothing needs: no image, no container and no other layer.

        Layers that were committed by hand, under names of their own, stay.

        Raises:
            Busy: while layers are being added, naming by whom.
        """
        from ..layers.init import LABEL

        referenced: list[set[str]] = []

        def is_referenced(info: SnapshotInfo) -> bool:
            if not referenced:  # asked for only once nobody can add layers
                referenced.append(self.referenced())
            by_hand = LABEL not in info.labels and not _CHAIN.fullmatch(info.name)
            return by_hand or info.name in referenced[0]

        return self._layers.gc(is_referenced)

    # --- making ------------------------------------------------------------------------------

    def import_tree(
        self,
        stream: BinaryIO,
        reference: str | None = None,
        *,
        changes: Iterable[str] = (),
        comment: str = "Imported from -",
        created_ns: int | None = None,
        driver: str | None = None,
        limits: UnpackLimits | None = None,
    ) -> Image:
        """Make an image of the archive of a root file system, of any compression.

        *changes* are Dockerfile instructions for its config. *created_ns* is now unless it is
        given; with it the same archive gives the same image. *limits* are how much it may hold.

        Raises:
            InvalidArgument: if the name or a change is wrong.
            InvalidArchive: if the archive is, or is over a limit; nothing of it is kept.
        """
        target = parse_tag_target(reference) if reference else None
        config = apply_changes(RunConfig(), changes)
        return self._maker.import_tree(
            stream, target, config, created_ns=created_ns, comment=comment, driver=driver,
            limits=limits,
        )  # fmt: skip

    def create(
        self,
        parent: Image | None,
        layer: BinaryIO | None,
        config: RunConfig | None = None,
        *,
        changes: Iterable[str] = (),
        reference: str | None = None,
        created_by: str = "",
        comment: str = "",
        author: str = "",
        container_id: str | None = None,
        driver: str | None = None,
        action: str = "create",
    ) -> Image:
        """Make an image of *parent*, one more *layer* (its archive) and a config.

        *config* is the parent's unless it is given; *changes* are applied to it. *driver* is
        where the layer is added: the parent's chain is brought there first. *action* is what
        the journal calls it.

        Raises:
            InvalidArgument: if the name or a change is wrong.
            InvalidArchive: if the layer is.
        """
        target = parse_tag_target(reference) if reference else None
        base = config or (parent.config.config if parent else RunConfig())
        final = apply_changes(base, changes)
        if parent is not None and layer is not None:
            driver = driver or self.driver_of(parent)
            if driver is not None:
                self.ensure(parent, driver)
        return self._maker.create(
            parent, layer, final, reference=target, created_by=created_by, comment=comment,
            author=author, container_id=container_id, driver=driver, action=action,
        )  # fmt: skip

    def load(
        self,
        stream: BinaryIO,
        *,
        driver: str | None = None,
        tell: Callable[[str], None] = _ignore,
        limits: UnpackLimits | None = None,
    ) -> Sequence[Image]:
        """Add every image of a docker-archive or oci-archive, of any compression; all or none.

        *tell* is given what was done, in Docker's words. Layers that are here are not read.
        *limits* are how much each layer may hold.

        Raises:
            InvalidArchive: if it is neither, or damaged, or a layer is over a limit; naming what
                is missing or wrong.
            NotSupported: if it has no image for this machine's platform.
        """
        from .archives import open_archive

        with open_archive(stream, self.layout.data_root) as archive:
            return self._maker.load(archive, driver, tell, limits)

    def load_layout(
        self,
        path: Path,
        *,
        driver: str | None = None,
        tell: Callable[[str], None] = _ignore,
        limits: UnpackLimits | None = None,
    ) -> Sequence[Image]:
        """Add every image of an OCI image layout in a directory; as :meth:`load`."""
        from .archives import open_layout

        with open_layout(path) as archive:
            return self._maker.load(archive, driver, tell, limits)

    # --- giving out --------------------------------------------------------------------------

    def save(
        self, references: Iterable[str], out: BinaryIO, *, format: ArchiveFormat = "docker-archive"
    ) -> None:
        """Write images to one archive; layers that they share are in it once.

        A name without a tag means all tags of it; an id means the image without names. *out*
        need not be able to seek. Layers are byte for byte what was added, and the archive
        depends on the images alone.

        Raises:
            InvalidArgument: if the format is not known, or no image is named.
            NotFound: if there is no such image.
            DataLoss: if a layer is not what it was when it was added.
        """
        from .saving import save_images

        if format not in _FORMATS:
            raise InvalidArgument(
                f"unknown archive format {format!r}", resolution="use " + " or ".join(_FORMATS)
            )
        chosen = self._chosen(references)
        if not chosen:
            raise InvalidArgument("no image to save is named")
        driver_by_chain = {
            name: self.driver_of(saved.image) for saved in chosen for name in saved.image.chain
        }

        def export(name: str, to: BinaryIO) -> str:
            return self._layers.export(name, to, driver=driver_by_chain[name])

        save_images(chosen, out, format, export, self.layout.data_root)
        with self._metastore.transaction() as tx:
            for saved in chosen:
                record_event(tx, "image", "save", saved.image.id, {"name": saved.image.id})

    def _chosen(self, references: Iterable[str]) -> Sequence[SavedImage]:
        from .saving import SavedImage

        chosen: dict[str, SavedImage] = {}
        for text in references:
            for image, reference in self._named(text):
                saved = chosen.setdefault(image.id, SavedImage(image))
                if reference is not None and reference not in saved.references:
                    saved.references.append(reference)
        return list(chosen.values())

    def _named(self, text: str) -> Iterable[tuple[Image, Reference | None]]:
        connection = self._metastore.read()
        if not text.startswith("sha256:") and len(text) < 64:
            typed = parse_reference(text)
            if typed.tag is None and typed.digest is None:
                found = [
                    (image, reference)
                    for image in all_images(connection)
                    for reference in image.references
                    if reference.name == typed.name and reference.tag is not None
                ]
                if found:
                    return found
        image = resolve(connection, text)
        if is_id_of(image.id, text):
            return [(image, None)]
        return [(image, parse_reference(text).recorded)]

    # --- placing -----------------------------------------------------------------------------

    def ensure(
        self,
        image: Image,
        driver: str,
    ) -> str | None:
        """Return the top chainID of an image on *driver*, brought there once (and said so in
        the log) if need be; None for an image without layers.

        Raises:
            DataLoss: if no driver holds its layers, or they are not what they were.
        """
        if image.top is None:
            return None
        drivers = drivers_of(self._metastore.read(), image.top)
        if driver not in drivers:
            source = self.driver_of(image)
            assert source is not None  # it has layers
            missing = [
                name
                for name in image.chain
                if driver not in drivers_of(self._metastore.read(), name)
            ]
            logger.info(
                "the image %s is on %s; copying %d layer%s of it to %s",
                next(iter(image.tags), image.short_id),
                source, len(missing), "" if len(missing) == 1 else "s", driver,
            )  # fmt: skip
            self._layers.bring(image.top, source, driver)
        return image.top

    def migration(
        self, target: str, references: Iterable[str] = (), *, everything: bool = False
    ) -> Migration:
        """Plan to move images and layers to the driver *target*; see :class:`.Migration`.

        Raises:
            NotFound, InvalidArgument: for a reference that means nothing, or several images.
        """
        from .migrating import Migration

        return Migration(
            self._metastore, self._layers, self._remover, target, references, everything=everything
        )
