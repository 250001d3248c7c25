"""What must exist in a root so that a container's mounts have a place; never part of its diff."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Literal

from .volumes import Bind

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


def mount_targets(binds: Iterable[Bind]) -> dict[bytes, Target]:
    """Return every target of a container with these *binds*, by its path in the root."""
    return {**_ALWAYS, **{os.fsencode(bind.target): _kind(bind) for bind in binds}}


def _kind(bind: Bind) -> Target:
    exists_as_file = os.path.exists(bind.source) and not os.path.isdir(bind.source)
    return "file" if exists_as_file else "dir"
