"""A directory of the host as a container's root, copy-on-write: ``run --rootfs /``.

The container's snapshot lies on the directory itself, with nothing between: overlayfs refuses a
lower layer inside another one, and data-root is usually inside ``/``. So there is no init
snapshot; the few mount targets that the directory lacks are left out of ``diff`` instead.

The host's own files are never written. Only the file system that holds the directory shows: what
else is mounted below is absent, and a disk file system among it is named in a warning. data-root
and exec-root are hidden beneath empty file systems, for a layer that shows its own upper
directory loops.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

from ..errors import InvalidArgument, NotSupported
from ..linux.mount import attach
from ..linux.mountinfo import read_mountinfo
from ..linux.paths import open_in_root
from ..model import Change, ChangeKind, Mount
from .context import Context
from .model import ContainerRecord, ContainerSpec
from .rootfs import Extra
from .targets import mount_targets

logger = logging.getLogger("stowage.containers")


def prepare(context: Context, record: ContainerRecord, directory: Path) -> None:
    """Make the container's snapshot on top of *directory*.

    Raises:
        NotSupported: if the driver cannot have a host's directory as a parent.
        InvalidArgument: if there is no such directory.
    """
    handle = context.root.storage(record.driver)
    if not handle.capabilities.host_root:
        raise NotSupported(
            f"--rootfs does not work with the storage driver {handle.name!r}",
            details="it would have to copy the whole directory",
            resolution="choose a driver that 'stowage driver ls' shows with host_root",
        )
    if not directory.is_dir():
        raise InvalidArgument(f"--rootfs {str(directory)!r} is not a directory")
    _warn_of_absent(directory)
    context.root.layers.prepare(
        record.snapshot,
        driver=record.driver,
        # the directory changes beneath us, as a root that was copied elsewhere has
        options=(*handle.capabilities.stale_options, *record.spec.storage_options),
        host_root=Path(os.path.realpath(directory)),
    )


def _warn_of_absent(directory: Path) -> None:
    disks = _disk_file_systems()
    top = os.path.realpath(directory).rstrip("/") + "/"
    for entry in read_mountinfo():
        if entry.target.startswith(top) and entry.type in disks and entry.target != "/":
            logger.warning(
                "--rootfs %s: %s (%s on %s) is another file system and is absent in the container",
                directory,
                entry.target,
                entry.type,
                entry.source,
            )


def _disk_file_systems() -> set[str]:
    """The types that need a block device (those without ``nodev``; proc(5))."""
    lines = Path("/proc/filesystems").read_text().splitlines()
    return {line.strip() for line in lines if not line.startswith("nodev")}


def extras(context: Context, directory: Path, root: int, stack: ExitStack) -> list[Extra]:
    """Return the empty file systems that hide data-root and exec-root, closed with *stack*."""
    top = os.path.realpath(directory)
    found: list[Extra] = []
    layout = context.root.layout
    for hidden in (layout.data_root, layout.exec_root):
        below = _below(top, os.path.realpath(hidden))
        if below is None or not _exists(root, below):
            continue
        empty = attach(Mount("tmpfs", "stowage-hidden", ("mode=0700", "size=4k"), None))
        stack.callback(os.close, empty)
        found.append(Extra(empty, below))
    return found


def _below(top: str, path: str) -> bytes | None:
    if path == top or not path.startswith(top.rstrip("/") + "/"):
        return None
    return os.fsencode("/" + os.path.relpath(path, top))


def _exists(root: int, path: bytes) -> bool:
    try:
        os.close(open_in_root(root, path, os.O_PATH | os.O_DIRECTORY))
    except OSError:  # not on this file system; or ELOOP: the layer's own directory
        return False
    return True


# --- diff -------------------------------------------------------------------------------------


def without_targets(changes: Iterable[Change], spec: ContainerSpec) -> list[Change]:
    """Leave out the mount targets that the directory lacks, and the directories that only
    holding them changed."""
    assert spec.rootfs is not None
    missing = {
        path
        for path in map(os.path.normpath, mount_targets(spec))
        if not os.path.lexists(os.path.join(os.fsencode(spec.rootfs), path.lstrip(b"/")))
    }
    above = {parent for path in missing for parent in _parents(path)}
    kept = [change for change in changes if change.path not in missing]
    others = {
        parent for change in kept if change.path not in above for parent in _parents(change.path)
    }
    return [
        change
        for change in kept
        if change.path not in above or change.path in others or change.kind is ChangeKind.DELETED
    ]


def _parents(path: bytes) -> Iterator[bytes]:
    while (path := os.path.dirname(path)) != b"/":
        yield path
