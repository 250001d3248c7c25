"""A container's root in a mount namespace of its own, where the runtime is started.

A throw-away thread unshares its mount namespace, makes everything in it a slave of the host's
(private would pin the host's mounts and loop devices), and attaches the detached root there. The
host never has the mount in its table. The namespace lives while the runtime does; the container
then has a copy, and both are gone with the last process, whatever is killed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from ..errors import InvalidArgument
from ..linux.cgroups import hierarchies
from ..linux.mount import clone_tree, enter_own_namespace, move, syscall_mount
from ..linux.mountinfo import read_mountinfo
from ..linux.namespaces import on_throwaway_thread, open_namespace
from ..linux.paths import open_in_root
from .volumes import Bind


class Extra(Struct, frozen=True):
    """A detached mount, *descriptor*, that goes onto *path* of the root (bytes, absolute)."""

    descriptor: int
    path: bytes


class RootPlan(Struct, frozen=True):
    """What a container's namespace holds: *root* (detached) at *target*, *extras* on top of it,
    *shared* binds ((detached clone, mount point)) beside it."""

    root: int
    target: Path
    extras: Sequence[Extra] = ()
    shared: Sequence[tuple[int, Path]] = ()
    hide_unified: bool = False


def enter_namespace_with_root(plan: RootPlan) -> None:
    """Move the calling thread into a new mount namespace and attach the root in it.

    Only on a throw-away thread. With *hide_unified* the v2 hierarchy of a hybrid host is hidden,
    for crun refuses to start beside it. The descriptors stay the caller's.
    """
    enter_own_namespace()
    known = hierarchies()
    if plan.hide_unified and known.layout == "hybrid" and known.unified is not None:
        # not unmounted: crun would write what it takes for cgroup.procs beneath the mount point
        syscall_mount("stowage-hidden", known.unified, "tmpfs", 0, "size=64k,mode=0755")
    move(plan.root, plan.target)
    for extra in plan.extras:
        place = open_in_root(plan.root, extra.path, os.O_PATH)
        try:
            move(extra.descriptor, "", dirfd=place)
        finally:
            os.close(place)
    for clone, point in plan.shared:
        move(clone, point)


def namespace_with_root(plan: RootPlan) -> int:
    """Return a descriptor of a new mount namespace that has the root attached."""

    def run() -> int:
        enter_namespace_with_root(plan)
        return open_namespace("mnt")

    return on_throwaway_thread(run)


def clone_shared(bind: Bind) -> int:
    """Clone a bind source that is to be shared, in the host's namespace, as long as it is shared.

    Raises:
        InvalidArgument: in Docker's words, if its mount is not shared.
    """
    mount = max(
        (entry for entry in read_mountinfo() if _covers(entry.target, bind.source)),
        key=lambda entry: len(entry.target),
    )
    if not any(word.startswith("shared:") for word in mount.propagation):
        raise InvalidArgument(
            f"path {bind.source} is mounted on {mount.target} but it is not a shared mount",
            resolution=f"mount --make-shared {mount.target}",
        )
    return clone_tree(bind.source, recursive=bind.propagation == "rshared")


def _covers(target: str, path: str) -> bool:
    return target == "/" or path == target or path.startswith(target + "/")
