"""The mounts of ``config.json``: Docker's own, the name files, and what was asked for.

What was asked for at the place of one of Docker's own takes its place; a mount at ``/dev`` takes
the place of all below it. Parents come before what lies below them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import init_process
from .model import ContainerSpec
from .namespaces import SHM, without_shm
from .resources import SHM_SIZE_BYTES
from .volumes import Bind


def mount_entries(
    spec: ContainerSpec, binds: Sequence[Bind], name_files: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return the ``mounts`` of a container.

    *binds* are those of *spec*, with their sources as the runtime sees them; *name_files* maps a
    path in the container to the file that is bound there.
    """
    asked = {
        **{bind.target: _bind(bind) for bind in binds},
        **{
            tmpfs.target: entry(tmpfs.target, "tmpfs", "tmpfs", *tmpfs.merged_options)
            for tmpfs in spec.tmpfs
        },
    }
    security = spec.security
    named = {
        target: _bind(Bind(source, target, security.read_only_root))
        for target, source in name_files.items()
    }
    if spec.has_init:
        named[init_process.PLACE] = entry(
            init_process.PLACE, "bind", init_process.find_init(), "bind", "ro"
        )
    own = [
        one
        for one in _own(spec)
        if not _replaced(one["destination"], asked)
        and not (one["destination"] == SHM and without_shm(spec.namespaces))
    ]
    return [*own, *sorted({**named, **asked}.values(), key=_depth)]


def entry(destination: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    """Return one mount in the runtime specification's form."""
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


def _own(spec: ContainerSpec) -> list[dict[str, Any]]:
    read_only = () if spec.security.privileged else ("ro",)
    return [
        entry("/proc", "proc", "proc", "nosuid", "noexec", "nodev"),
        entry("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        entry("/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance",
              "ptmxmode=0666", "mode=0620", "gid=5"),
        entry("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", *read_only),
        entry("/sys/fs/cgroup", "cgroup", "cgroup", *read_only, "nosuid", "noexec", "nodev"),
        entry("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev"),
        entry("/dev/shm", "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777",
              f"size={spec.resources.shm_size_bytes or SHM_SIZE_BYTES}"),
    ]  # fmt: skip


def _replaced(destination: str, asked: Iterable[str]) -> bool:
    return destination in asked or ("/dev" in asked and destination.startswith("/dev/"))


def _bind(bind: Bind) -> dict[str, Any]:
    kind = "rbind" if bind.recursive else "bind"
    access = "ro" if bind.read_only else "rw"
    return entry(bind.target, "bind", bind.source, kind, bind.propagation, access)


def _depth(one: Mapping[str, Any]) -> int:
    return str(one["destination"]).count("/")
