"""Moving chains of layers to another driver: copied, verified, and only then removed.

An image names its layers by chainID and no driver, so that nothing about it changes: it lives on
whatever drivers have its chain. A killed migration is resumed by asking for it again, for each
layer is whole on the target or absent, and is taken from wherever it still is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from ..errors import InvalidArgument, NotFound
from ..layers.init import LABEL
from ..layers.store import LayerStore
from ..model import Kind
from ..store.metastore import Metastore
from .removal import ImageRemover
from .rows import all_images, drivers_of, resolve

if TYPE_CHECKING:
    from ..layers.transfer import Step


class Chain(Struct, frozen=True):
    """What is moved as a whole: an image's layers or a layer with its parents, base first."""

    name: str
    layers: tuple[str, ...]


class Moved(Struct, frozen=True):
    """What was done for one chain and one *source*.

    *copied* are the layers made on the target, *removed* those gone from the source, and *kept*
    those that stay there because *containers* run on them or other images and layers need them.
    """

    name: str
    source: str
    target: str
    copied: Sequence[str]
    removed: Sequence[str]
    kept: Sequence[str]
    containers: Sequence[str]


class Migration:
    """A plan: :attr:`chains` are to be moved to *target*, each by :meth:`move`."""

    def __init__(
        self,
        metastore: Metastore,
        layers: LayerStore,
        remover: ImageRemover,
        target: str,
        references: Iterable[str] = (),
        *,
        everything: bool = False,
    ) -> None:
        self._metastore = metastore
        self._layers = layers
        self._remover = remover
        self._target = target
        self.chains: Sequence[Chain] = (
            self._every() if everything else list(map(self._find, dict.fromkeys(references)))
        )

    # --- what is moved ------------------------------------------------------------------------

    def _find(self, reference: str) -> Chain:
        try:
            image = resolve(self._metastore.read(), reference)
        except (NotFound, InvalidArgument):
            for driver in self._drivers_of(reference):
                return Chain(reference, self._names(reference, driver))
            raise
        return Chain(reference, image.chain)

    def _drivers_of(self, name: str) -> Sequence[str]:
        return drivers_of(self._metastore.read(), name)

    def _names(self, name: str, driver: str) -> tuple[str, ...]:
        return tuple(info.name for info in reversed(self._layers.chain(name, driver=driver)))

    def _every(self) -> Sequence[Chain]:
        """All images, and all other layers that are nobody's parent; not what lies on a directory
        of the host, which only its own driver can have."""
        images = [
            Chain(next(iter(image.tags), image.short_id), image.chain)
            for image in all_images(self._metastore.read())
            if image.chain
        ]
        committed = [
            info
            for info in self._layers.walk()
            if info.kind is Kind.COMMITTED and LABEL not in info.labels
        ]
        covered = {name for chain in images for name in chain.layers}
        covered |= {info.parent for info in committed if info.parent is not None}
        hosts = self._on_host()
        tips = {
            info.name: self._names(info.name, info.driver)
            for info in committed
            if info.name not in covered and info.driver != self._target
        }
        return [
            *images,
            *(Chain(name, names) for name, names in tips.items() if not hosts & set(names)),
        ]

    def _on_host(self) -> set[str]:
        rows = self._metastore.read().execute(
            "SELECT name FROM snapshots WHERE host_root IS NOT NULL"
        )
        return {row[0] for row in rows}

    # --- moving -------------------------------------------------------------------------------

    def move(
        self,
        chain: Chain,
        *,
        keep: bool = False,
        told: Callable[[Step], object] | None = None,
    ) -> Sequence[Moved]:
        """Copy a chain to the target, verify every layer there, and remove it elsewhere unless
        *keep* or somebody needs it. Nothing for a chain that is on the target alone.

        Raises:
            DataLoss: if a layer is not what was stored; the sources stay.
            NoSpace: if it does not fit; the layers that did stay on the target, too.
        """
        done = []
        for source in self._sources(chain):
            there = [name for name in chain.layers if source in self._drivers_of(name)]
            with self._layers.keeping():
                copied = self._layers.bring(there[-1], source, self._target, verify=True, told=told)
            removed = [] if keep else self._remove(chain, there, source)
            kept = [name for name in there if name not in removed]
            users = self._containers_on(source, kept)
            done.append(Moved(chain.name, source, self._target, copied, removed, kept, users))
        return done

    def _sources(self, chain: Chain) -> Sequence[str]:
        """The other drivers that have any layer of it; first who has most, so that all come."""
        count: dict[str, int] = {}
        for name in chain.layers:
            for driver in self._drivers_of(name):
                if driver != self._target:
                    count[driver] = count.get(driver, 0) + 1
        return sorted(count, key=lambda driver: (-count[driver], driver))

    def _remove(self, chain: Chain, there: Sequence[str], source: str) -> list[str]:
        """Remove layers from the source, top first, down to the first that is needed there."""
        shared = self._shared(chain)
        removed: list[str] = []
        for name in reversed(there):
            if name in shared or not self._remover.remove_with_init(name, source):
                break
            removed.append(name)
        return removed

    def _shared(self, chain: Chain) -> set[str]:
        """Layers of images that are not to be moved: those stay where they are."""
        moving = {one.layers for one in self.chains} | {chain.layers}
        others = [image.chain for image in all_images(self._metastore.read())]
        return {name for names in others if names not in moving for name in names}

    def _containers_on(self, driver: str, names: Sequence[str]) -> list[str]:
        """The names of the containers whose snapshot stands on one of these layers."""
        if not names:
            return []
        rows = self._metastore.read().execute(
            "SELECT name, snapshot FROM containers WHERE driver = ? ORDER BY name", (driver,)
        )
        return [
            row["name"]
            for row in rows.fetchall()
            if not set(names).isdisjoint(self._chain_or_none(row["snapshot"], driver))
        ]

    def _chain_or_none(self, snapshot: str, driver: str) -> Sequence[str]:
        try:
            return self._names(snapshot, driver)
        except NotFound:  # it is being removed
            return ()
