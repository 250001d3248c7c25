"""``df``: what a root occupies, from its records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from ..errors import StowageError
from . import human
from .command import Command
from .container_rows import CONTAINERS, container_row
from .context import Context
from .flags import Parsed, switch
from .image import FORMAT, IMAGES, image_rows
from .table import Listing
from .volume import VOLUMES, volume_row

if TYPE_CHECKING:
    from ..containers.model import ContainerRecord
    from ..engine import Engine
    from ..images.rows import Image
    from ..volumes.service import Volume

SUMMARY = Listing(
    {
        "Type": "TYPE",
        "TotalCount": "TOTAL",
        "Active": "ACTIVE",
        "Size": "SIZE",
        "Reclaimable": "RECLAIMABLE",
    },
    ("Type", "TotalCount", "Active", "Size", "Reclaimable"),
    quiet="Type",
)


class _Sizes(Struct, frozen=True):
    """What was found: sizes of layers by name and of containers by id, and who uses what."""

    images: Sequence[Image]
    containers: Sequence[ContainerRecord]
    size_by_layer: Mapping[str, int]
    users_by_layer: Mapping[str, int]
    size_by_container: Mapping[str, int]
    volumes: Sequence[Volume]
    size_by_volume: Mapping[str, int]
    recipes_bytes: int
    in_trash: int

    def shared(self, image: Image) -> int:
        """Bytes of the layers that other images have as well."""
        return sum(
            self.size_by_layer.get(name, 0) for name in image.chain if self.users_by_layer[name] > 1
        )

    def total(self, image: Image) -> int:
        return sum(self.size_by_layer.get(name, 0) for name in image.chain)

    def users(self, image: Image) -> int:
        return sum(record.image_id == image.id for record in self.containers)

    @property
    def images_bytes(self) -> int:
        """Every layer of an image, once."""
        return sum(self._bytes_of(self.images))

    @property
    def images_reclaimable(self) -> int:
        used = [image for image in self.images if self.users(image)]
        return self.images_bytes - sum(self._bytes_of(used))

    def _bytes_of(self, images: Iterable[Image]) -> Iterable[int]:
        names = {name for image in images for name in image.chain}
        return (self.size_by_layer.get(name, 0) for name in names)


def _measured(engine: Engine) -> _Sizes:
    used = engine.layers.df()
    containers = engine.containers.list()
    images = engine.images.list(intermediate=True)
    volumes = engine.volumes.list()
    sizes: dict[str, int] = {}
    for info in used.layers:
        if info.usage is not None:
            sizes[info.name] = sizes.get(info.name, 0) + info.usage.size_bytes
    return _Sizes(
        images=images,
        containers=containers,
        size_by_layer=sizes,
        users_by_layer=Counter(name for image in images for name in image.chain),
        size_by_container={record.id: _written(engine, record) for record in containers},
        volumes=volumes,
        size_by_volume={volume.name: _held(engine, volume) for volume in volumes},
        recipes_bytes=used.recipes_bytes,
        in_trash=used.in_trash,
    )


def _written(engine: Engine, record: ContainerRecord) -> int:
    """What a container has written; nothing where that cannot be told just now."""
    try:
        return engine.layers.usage(record.snapshot, driver=record.driver).size_bytes
    except StowageError:
        return 0


def _held(engine: Engine, volume: Volume) -> int:
    """What is in a volume; nothing if it is gone by now."""
    try:
        return engine.volumes.size_bytes(volume.name)
    except StowageError:
        return 0


def _df(context: Context, parsed: Parsed) -> None:
    sizes = _measured(context.engine)
    if parsed.on("verbose"):
        context.print(_verbose(sizes))
    else:
        context.print(SUMMARY.show(_summary(sizes), format=parsed.text("format")))


def _summary(sizes: _Sizes) -> Sequence[Mapping[str, object]]:
    alive = [record for record in sizes.containers if record.state.lives]
    written = sum(sizes.size_by_container.values())
    idle = written - sum(sizes.size_by_container[record.id] for record in alive)
    in_use = sum(1 for image in sizes.images if sizes.users(image))
    used = [volume.name for volume in sizes.volumes if volume.users]
    held = sum(sizes.size_by_volume.values())
    unused = held - sum(sizes.size_by_volume[name] for name in used)
    return [
        _row("Images", len(sizes.images), in_use, sizes.images_bytes, sizes.images_reclaimable),
        _row("Containers", len(sizes.containers), len(alive), written, idle),
        _row("Local Volumes", len(sizes.volumes), len(used), held, unused),
        _row("Recipes", len(sizes.size_by_layer), len(sizes.size_by_layer), sizes.recipes_bytes, 0),
    ]


def _row(
    kind: str, total: int, active: int, size_bytes: int, reclaimable: int
) -> Mapping[str, object]:
    percent = f" ({100 * reclaimable // size_bytes}%)" if size_bytes else ""
    return {
        "Type": kind,
        "TotalCount": str(total),
        "Active": str(active),
        "Size": human.size(size_bytes),
        "Reclaimable": f"{human.size(reclaimable)}{percent}",
    }


def _verbose(sizes: _Sizes) -> str:
    images = IMAGES.show(
        _image_rows(sizes),
        fields=(
            "Repository", "Tag", "ID", "CreatedSince", "Size", "SharedSize", "UniqueSize",
            "Containers",
        ),
    )  # fmt: skip
    containers = CONTAINERS.show(
        (
            container_row(
                record,
                image=record.image_name,
                size=human.size(sizes.size_by_container[record.id]),
            )
            for record in sizes.containers
        ),
        fields=(
            "ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names",
        ),
    )  # fmt: skip
    volumes = VOLUMES.show(
        (volume_row(one, size_bytes=sizes.size_by_volume[one.name]) for one in sizes.volumes),
        fields=("Name", "Links", "Size"),
    )
    return "\n".join(
        (
            "Images space usage:", "", images, "",
            "Containers space usage:", "", containers, "",
            "Local Volumes space usage:", "", volumes, "",
            f"Recipes: {human.size(sizes.recipes_bytes)}",
            f"Removals waiting in the trash: {sizes.in_trash}",
        )
    )  # fmt: skip


def _image_rows(sizes: _Sizes) -> Iterable[Mapping[str, object]]:
    for image in sizes.images:
        shared, total = sizes.shared(image), sizes.total(image)
        for row in image_rows(image, total, full=False):
            yield {
                **row,
                "Size": human.size(total),
                "SharedSize": human.size(shared),
                "UniqueSize": human.size(total - shared),
                "Containers": str(sizes.users(image)),
            }


COMMANDS = {
    "system df": Command(
        "[OPTIONS]",
        _df,
        (FORMAT, switch("verbose", "Show detailed information on space usage", "v")),
    ),
}
