"""What a container changed: ``diff``, ``commit`` and a look into its root while it runs.

The root of a running container is mounted already, and a second mount of the same snapshot would
corrupt it: a throw-away thread enters the container's mount namespace and clones the mount there.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from msgspec.structs import replace

from ..errors import InvalidArgument
from ..images.changes import apply_changes
from ..images.config import RunConfig
from ..images.reference import parse_reference
from ..linux.mount import clone_tree, make_read_only
from ..linux.namespaces import in_mount_namespace
from ..model import Change, SnapshotInfo
from . import hostroot
from .context import Context
from .freezing import frozen
from .model import ContainerRecord
from .processes import mount_namespace

if TYPE_CHECKING:
    from ..images.rows import Image

logger = logging.getLogger("stowage.containers")


def in_use(context: Context, snapshot: SnapshotInfo) -> str | None:
    """Say which container runs on a snapshot, as a text for messages; None if none does.

    The truth is the cgroup: it holds a process, or it does not.
    """
    record = context.rows.using_snapshot(snapshot.driver, snapshot.name)
    if record is None or not record.runtime.cgroup:
        return None
    pids = context.cgroup(record).processes()
    if not pids:
        return None
    return f"container {record.short_id} ({record.name}) runs on it (pid {min(pids)})"


@contextmanager
def live_mount(context: Context, record: ContainerRecord) -> Iterator[int | None]:
    """Give a detached clone of a running container's root, without what is mounted on it; None
    if it does not run."""
    with mount_namespace(context, record) as namespace:
        if namespace is None:
            yield None
            return
        clone = in_mount_namespace(namespace, lambda: clone_tree("/"))
        try:
            yield clone
        finally:
            os.close(clone)


@contextmanager
def live_root(context: Context, record: ContainerRecord) -> Iterator[int | None]:
    """Give a descriptor of a running container's root, to read only; None if it does not run."""
    with live_mount(context, record) as clone:
        if clone is None:
            yield None
            return
        make_read_only(clone)
        # the clone's own descriptor is an O_PATH one, which can be neither listed nor asked
        root = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=clone)
        try:
            yield root
        finally:
            os.close(root)


def changes(context: Context, record: ContainerRecord) -> Sequence[Change]:
    """Return what a container changed in its root, sorted by path."""
    with live_root(context, record) as root:
        found = context.root.layers.changes(record.snapshot, driver=record.driver, root=root)
    if record.spec.rootfs is not None:
        return hostroot.without_targets(found, record.spec)
    return found


def export(context: Context, record: ContainerRecord, out: BinaryIO) -> None:
    """Write the archive of a container's whole root; it may run meanwhile."""
    with live_root(context, record) as root:
        context.root.layers.diff(record.snapshot, out, parent=None, driver=record.driver, root=root)


def commit(
    context: Context,
    record: ContainerRecord,
    reference: str | None = None,
    *,
    author: str = "",
    message: str = "",
    changes: Sequence[str] = (),
    pause: bool = True,
) -> Image:
    """Make an image of a container: its image's layers and one of what it changed.

    A running container stands still meanwhile, unless *pause* is False. *changes* are
    Dockerfile instructions.

    Raises:
        InvalidArgument: for a bad reference or instruction.
    """
    named = parse_reference(reference) if reference else None
    if named is not None and named.digest is not None:
        raise InvalidArgument(f"refusing to create a tag with a digest reference: {reference}")
    images = context.root.images
    if record.spec.rootfs is not None:
        logger.warning(
            "container %s runs on the directory %s, which is no part of the image: it holds only"
            " what the container changed", record.name, record.spec.rootfs,
        )  # fmt: skip
    parent = images.resolve(record.image_id) if record.image_id else None
    config = apply_changes(_config(record, parent), changes)
    with tempfile.TemporaryFile(dir=context.root.layout.data_root) as archive:
        with frozen(context, record, wanted=pause), live_root(context, record) as root:
            context.root.layers.diff(record.snapshot, archive, driver=record.driver, root=root)
        archive.seek(0)
        return images.create(
            parent,
            archive,
            config,
            reference=reference,
            created_by=" ".join(record.spec.arguments),
            comment=message,
            author=author,
            container_id=record.id,
            driver=record.driver,
            action="commit",
        )


def _config(record: ContainerRecord, parent: Image | None) -> RunConfig:
    """The container's own settings, on top of what its image says that it cannot change."""
    spec = record.spec
    base = parent.config.config if parent else RunConfig()
    return replace(
        base,
        user=spec.user,
        env=spec.env,
        entrypoint=spec.entrypoint or (),
        cmd=spec.command,
        working_dir=spec.working_dir,
        volumes=spec.volumes.declared,
        labels=dict(spec.labels),
        stop_signal=spec.stop_signal,
    )
