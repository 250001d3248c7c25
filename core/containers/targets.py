"""What must exist in a root so that a container's mounts have a place; never part of its diff."""

from __future__ import annotations

import os
from typing import Literal

from . import init_process
from .model import ContainerSpec
from .volumes import Mounted

#: A directory, an empty file, or a symlink to what the bytes say.
Target = Literal["dir", "file"] | bytes

#: What Docker's init layer holds: targets of the mounts that every container has.
_ALWAYS: dict[bytes, Target] = {
    b"/.dockerenv": "file",
    b"/dev/console": "file",
    b"/dev/mqueue": "dir",
    b"/dev/pts": "dir",
    b"/dev/shm": "dir",
    b"/etc/hostname": "file",
    b"/etc/hosts": "file",
    b"/etc/mtab": b"/proc/mounts",
    b"/etc/resolv.conf": "file",
    b"/proc": "dir",
    b"/sys": "dir",
}


def mount_targets(spec: ContainerSpec) -> dict[bytes, Target]:
    """Return every mount target of a container, by its path in the root."""
    targets = dict(_ALWAYS)
    if spec.has_init:
        targets[os.fsencode(init_process.PLACE)] = "file"
    return targets | {os.fsencode(mount.target): _kind(mount) for mount in spec.mounted}


def _kind(mount: Mounted) -> Target:
    exists_as_file = os.path.exists(mount.source) and not os.path.isdir(mount.source)
    return "file" if exists_as_file else "dir"
