"""The mounts of a container as ``inspect`` shows them: ``Mounts``, and keys of ``HostConfig``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .model import ContainerSpec
from .mounts import Tmpfs
from .units import parse_memory
from .volume_specs import VolumeMount
from .volumes import Bind


def mount_points(
    spec: ContainerSpec, volume_path: Callable[[str], Path]
) -> list[dict[str, object]]:
    """Return ``Mounts``; as in Docker, what ``--tmpfs`` asked for is not among it.

    *volume_path* says where a volume lies.
    """
    return [
        *(_bind_point(bind) for bind in spec.binds),
        *(_volume_point(mount, volume_path(mount.name)) for mount in spec.volumes.mounts),
        *(_tmpfs_point(tmpfs) for tmpfs in spec.tmpfs if tmpfs.by_mount),
    ]


def host_mounts(spec: ContainerSpec) -> dict[str, object]:
    """Return ``Binds``, and ``Mounts``, ``Tmpfs`` and ``VolumesFrom`` where something asked for
    them; what another container lent is not among them."""
    own_binds = [bind for bind in spec.binds if not bind.inherited]
    own_volumes = [one for one in spec.volumes.mounts if not (one.inherited or one.declared)]
    short = [
        *(str(bind) for bind in own_binds if not bind.by_mount),
        *(str(mount) for mount in own_volumes if not mount.by_mount),
    ]
    keys: dict[str, object] = {"Binds": short or None}
    if spec.volumes.taken_from:
        keys["VolumesFrom"] = list(spec.volumes.taken_from)
    by_mount: list[dict[str, object]] = [
        *(_bind_request(bind) for bind in own_binds if bind.by_mount),
        *(_volume_request(mount) for mount in own_volumes if mount.by_mount),
        *(_tmpfs_request(tmpfs) for tmpfs in spec.tmpfs if tmpfs.by_mount),
    ]
    by_path = {tmpfs.target: tmpfs.options for tmpfs in spec.tmpfs if not tmpfs.by_mount}
    if by_mount:
        keys["Mounts"] = by_mount
    if by_path:
        keys["Tmpfs"] = by_path
    return keys


def _bind_point(bind: Bind) -> dict[str, object]:
    return {
        "Type": "bind",
        "Source": bind.source,
        "Destination": bind.target,
        "Mode": "" if bind.by_mount else bind.mode,
        "RW": not bind.read_only,
        "Propagation": bind.propagation,
    }


def _volume_point(mount: VolumeMount, path: Path) -> dict[str, object]:
    return {
        "Type": "volume",
        "Name": mount.name,
        "Source": str(path),
        "Destination": mount.target,
        "Driver": "local",
        "Mode": mount.mode or ("" if mount.declared or mount.inherited else "z"),
        "RW": not mount.read_only,
        "Propagation": "",
    }


def _tmpfs_point(tmpfs: Tmpfs) -> dict[str, object]:
    return {
        "Type": "tmpfs",
        "Source": "",
        "Destination": tmpfs.target,
        "Mode": "",
        "RW": "ro" not in tmpfs.options.split(","),
        "Propagation": "",
    }


def _bind_request(bind: Bind) -> dict[str, object]:
    request: dict[str, object] = {"Type": "bind", "Source": bind.source, "Target": bind.target}
    if bind.read_only:
        request["ReadOnly"] = True
    options: dict[str, object] = {}
    if bind.propagation != "rprivate":
        options["Propagation"] = bind.propagation
    if not bind.recursive:
        options["NonRecursive"] = True
    return request | ({"BindOptions": options} if options else {})


def _volume_request(mount: VolumeMount) -> dict[str, object]:
    request: dict[str, object] = {"Type": "volume", "Target": mount.target}
    if not mount.anonymous:
        request["Source"] = mount.name
    if mount.read_only:
        request["ReadOnly"] = True
    options: dict[str, object] = {}
    if not mount.copy:
        options["NoCopy"] = True
    if mount.labels:
        options["Labels"] = dict(mount.labels)
    return request | ({"VolumeOptions": options} if options else {})


def _tmpfs_request(tmpfs: Tmpfs) -> dict[str, object]:
    request: dict[str, object] = {"Type": "tmpfs", "Target": tmpfs.target}
    words = tmpfs.options.split(",")
    if "ro" in words:
        request["ReadOnly"] = True
    values = dict(word.split("=", 1) for word in words if "=" in word)
    options: dict[str, object] = {}
    if "size" in values:
        options["SizeBytes"] = parse_memory(values["size"])
    if "mode" in values:
        options["Mode"] = int(values["mode"], 8)
    return request | ({"TmpfsOptions": options} if options else {})
