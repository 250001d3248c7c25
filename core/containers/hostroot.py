"""A directory of the host as a container's root, copy-on-write: ``run --rootfs /``.

The directory lies below an empty committed base, and the mount targets in an init snapshot above
that; the host's own files are never written. Only the file system that holds it shows: what else
is mounted below is absent, and a disk file system among it is named in a warning. data-root and
exec-root are hidden beneath empty file systems, for a layer that shows its own upper directory
loops.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from ..errors import AlreadyExists, InvalidArgument, NotFound, NotSupported
from ..linux.mount import attach
from ..linux.mountinfo import read_mountinfo
from ..linux.paths import open_in_root
from ..model import Mount
from .context import Context
from .rootfs import Extra
from .targets import Target

logger = logging.getLogger("stowage.containers")


def base_snapshot(
    context: Context, directory: Path, targets: Mapping[bytes, Target], driver: str
) -> str:
    """Return the name of a committed snapshot that shows *directory* with the *targets*.

    Raises:
        NotSupported: if the driver cannot have a host's directory as a parent.
        InvalidArgument: if there is no such directory.
    """
    handle = context.root.storage(driver)
    if not handle.capabilities.host_root:
        raise NotSupported(
            f"--rootfs does not work with the storage driver {handle.name!r}",
            details="it would have to copy the whole directory",
            resolution="choose a driver that 'stowage driver ls' shows with host_root",
        )
    if not directory.is_dir():
        raise InvalidArgument(f"--rootfs {str(directory)!r} is not a directory")
    _warn_of_absent(directory)
    base = _empty_base(context, Path(os.path.realpath(directory)), driver)
    return context.root.layers.init_snapshot(base, targets, driver=driver) or base


def _empty_base(context: Context, directory: Path, driver: str) -> str:
    """Return the committed snapshot of no content that lies on *directory*, made once."""
    layers = context.root.layers
    name = "host-" + hashlib.sha256(os.fsencode(directory)).hexdigest()
    try:
        layers.stat(name, driver=driver)
    except NotFound:
        key = f"{name}-{os.urandom(6).hex()}"
        layers.prepare(key, None, driver=driver, host_root=directory)
        try:
            layers.commit(name, key, driver=driver)
        except AlreadyExists:  # another process was quicker
            layers.remove(key, driver=driver)
        except BaseException:
            layers.remove(key, driver=driver)
            raise
    return name


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
