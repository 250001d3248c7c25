"""Volumes of a container that is made, started and removed.

Names are settled first: a container's row says which volumes it uses, and is written together
with the claims on them. Their directories are made and filled next; they are volumes in their own
right once the container is whole, so one that could not be made leaves none behind.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..errors import DataLoss, InvalidArgument
from ..linux.paths import open_in_root
from ..volumes import rows
from ..volumes.names import new_name
from ..volumes.rows import VolumeRequest
from .context import Context
from .model import ContainerRecord, ContainerSpec
from .volume_specs import VolumeMount, VolumeWishes, parse_volumes_from
from .volumes import Bind, Mounted

if TYPE_CHECKING:
    from ..images.rows import Image


def settled(context: Context, spec: ContainerSpec, image: Image | None) -> ContainerSpec:
    """Return *spec* with every mount of another container, every volume of its image and every
    name filled in. What it asks for itself takes the place of what it inherits.

    Raises:
        NotFound: "No such container: x".
    """
    wishes = spec.volumes
    declared = (*wishes.declared, *_declared_by(image))
    if not (wishes.mounts or wishes.taken_from or declared):
        return spec
    taken = {mount.target for mount in spec.mounted}
    inherited = [mount for mount in _inherited(context, wishes) if mount.target not in taken]
    taken |= {mount.target for mount in inherited}
    mounts = [
        *(mount for mount in inherited if isinstance(mount, VolumeMount)),
        *wishes.mounts,
        *(
            VolumeMount(path, anonymous=True, declared=True)
            for path in dict.fromkeys(declared)
            if path not in taken
        ),
    ]
    named = tuple(mount if mount.name else replace(mount, name=new_name()) for mount in mounts)
    binds = [mount for mount in inherited if isinstance(mount, Bind)]
    return replace(
        spec,
        binds=(*binds, *spec.binds),
        volumes=VolumeWishes(named, tuple(dict.fromkeys(declared)), wishes.taken_from),
    )


def _declared_by(image: Image | None) -> Iterable[str]:
    if image is None:
        return ()
    paths = (os.path.normpath("/" + path.lstrip("/")) for path in image.config.config.volumes)
    return (path for path in paths if path != "/")


def _inherited(context: Context, wishes: VolumeWishes) -> Sequence[Bind | VolumeMount]:
    """Return the mounts of other containers; a later container's replace an earlier one's."""
    by_target: dict[str, Bind | VolumeMount] = {}
    for text in wishes.taken_from:
        reference, read_only = parse_volumes_from(text)
        other = context.rows.get(reference).spec
        for bind in other.binds:
            by_target[bind.target] = replace(
                bind, inherited=True, read_only=bind.read_only or read_only
            )
        for mount in other.volumes.mounts:
            by_target[mount.target] = replace(
                mount,
                inherited=True,
                declared=False,
                by_mount=False,
                copy=False,
                read_only=mount.read_only or read_only,
            )
    return list(by_target.values())


# --- making -----------------------------------------------------------------------------------


def claims(
    context: Context, record: ContainerRecord
) -> Callable[[sqlite3.Connection], None] | None:
    """Return what the transaction that records a container has to do for its volumes, if it
    has any."""
    wishes = record.spec.volumes
    if not wishes.mounts:
        return None
    context.root.volumes.await_removals(wishes.names)
    wanted = [VolumeRequest(one.name, one.labels, one.inherited) for one in wishes.mounts]
    return lambda tx: rows.claim(tx, record.id, wanted)


def prepare(context: Context, record: ContainerRecord, image: Image | None) -> None:
    """Make the volumes that a container has claimed, and fill those that are empty.

    Raises:
        InvalidArgument: in Docker's words, if the image has a file at the place of one.
    """
    volumes = context.root.volumes
    with ExitStack() as stack:
        below = _Below(context, record, image, stack)
        for mount in record.spec.volumes.mounts:
            volumes.make(mount.name)
            if not mount.copy:
                continue

            def source(target: str = mount.target) -> int | None:
                return below.directory(target)

            volumes.fill(mount.name, source)


class _Below:
    """What a container's root holds beneath its mounts: its image's tree, opened when needed."""

    def __init__(
        self, context: Context, record: ContainerRecord, image: Image | None, stack: ExitStack
    ) -> None:
        self._context = context
        self._record = record
        self._image = image
        self._stack = stack
        self._root: int | None = None

    def directory(self, target: str) -> int | None:
        """Open the directory at *target*, every symlink taken as if the tree were ``/``; None if
        there is nothing."""
        root = self._opened()
        if root is None:
            return None
        try:
            return open_in_root(root, os.fsencode(target), os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            if error.errno == errno.ENOTDIR:
                raise InvalidArgument(
                    f"cannot mount volume over existing file, file exists {target}"
                ) from error
            if error.errno in (errno.ENOENT, errno.ELOOP):
                return None
            raise

    def _opened(self) -> int | None:
        if self._root is None:
            rootfs = self._record.spec.rootfs
            if rootfs is not None:
                self._root = os.open(rootfs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                self._stack.callback(os.close, self._root)
            elif self._image is not None and self._image.top is not None:
                attached = self._context.root.layers.attached(
                    self._image.top, driver=self._record.driver, read_only=True
                )
                self._root = self._stack.enter_context(attached)
        return self._root


# --- running ----------------------------------------------------------------------------------


def all_binds(context: Context, spec: ContainerSpec) -> tuple[Bind, ...]:
    """Return the binds of a container, its volumes' among them."""
    return (*spec.binds, *_as_binds(context, spec.volumes.mounts))


def seen_mounts(context: Context, spec: ContainerSpec) -> tuple[Mounted, ...]:
    """Return all that is mounted because it was asked for, with where it lies on the host."""
    return (*all_binds(context, spec), *spec.tmpfs)


def _as_binds(context: Context, mounts: Iterable[VolumeMount]) -> Iterator[Bind]:
    for mount in mounts:
        path = context.root.layout.volume_data(mount.name)
        yield Bind(str(path), mount.target, mount.read_only)


def require_directories(context: Context, spec: ContainerSpec) -> None:
    """Refuse to start on a volume whose directory somebody has taken away.

    Raises:
        DataLoss: naming the volume.
    """
    for mount in spec.volumes.mounts:
        path = context.root.layout.volume_data(mount.name)
        if not path.is_dir():
            raise DataLoss(
                f"the directory of the volume {mount.name} is gone: {path}",
                resolution=f"restore it, or make it again: mkdir -p {path}",
            )
