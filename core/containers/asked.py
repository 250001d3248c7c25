"""What Python users can ask of a new container, as keyword arguments."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from ..errors import InvalidArgument

if TYPE_CHECKING:
    from .model import ContainerSpec
    from .namespaces import Namespaces
    from .networking import Networking
    from .resources import Resources
    from .security import Security


class _Wishes(TypedDict, total=False):
    resources: Resources
    security: Security
    namespaces: Namespaces


class Asked(_Wishes, total=False):
    """Keyword arguments of :meth:`Engine.run` and :meth:`Engine.create`; all may be left out.

    *volumes* are ``host:container[:ro]``, ``name:container[:ro]`` or ``container``, *mounts* what
    ``--mount`` takes, *tmpfs* are ``path[:options]``, *volumes_from* ``other[:ro]``.
    *network* is a name, ``"host"``, ``"none"`` or ``container:<name|id>``; *ports* are what ``-p``
    takes, *exposed* what ``--expose`` does, *extra_hosts* addresses by name. *user* is
    ``name|uid[:group|gid]``. With *rootfs* a directory of the host is used copy-on-write in place
    of an image (pass ``""`` for that). *resources*, *security* and *namespaces* are limits, rights
    and namespaces. *restart* is ``no``, ``on-failure[:n]``, ``always`` or ``unless-stopped``, for
    what is created and started.
    """

    name: str | None
    entrypoint: Sequence[str] | None
    env: Mapping[str, str] | None
    working_dir: str
    user: str
    hostname: str
    volumes: Sequence[str]
    mounts: Sequence[str]
    tmpfs: Sequence[str]
    volumes_from: Sequence[str]
    network: str | None
    ports: Sequence[str]
    publish_all: bool
    exposed: Sequence[str]
    dns: Sequence[str]
    dns_search: Sequence[str]
    dns_options: Sequence[str]
    extra_hosts: Mapping[str, str]
    mac_address: str
    labels: Mapping[str, str]
    storage_driver: str | None
    storage_options: Sequence[str]
    rootfs: str | os.PathLike[str] | None
    restart: str
    stop_timeout_seconds: int | None


def specification(image: str, command: Sequence[str], asked: Asked) -> ContainerSpec:
    """Return the specification of a container that was asked for.

    Raises:
        InvalidArgument: for a command that is one string, or a wrong volume.
    """
    from .model import ContainerSpec
    from .mounts import mounts_of, parse_mount
    from .restarts import parse_restart_policy

    entrypoint, rootfs = asked.get("entrypoint"), asked.get("rootfs")
    mounts = mounts_of(
        asked.get("volumes", ()),
        map(parse_mount, asked.get("mounts", ())),
        asked.get("tmpfs", ()),
        asked.get("volumes_from", ()),
    )
    return ContainerSpec(
        image=image,
        command=words(command),
        name=asked.get("name"),
        entrypoint=None if entrypoint is None else words(entrypoint),
        env=tuple(f"{key}={value}" for key, value in (asked.get("env") or {}).items()),
        working_dir=asked.get("working_dir", ""),
        user=asked.get("user", ""),
        hostname=asked.get("hostname", ""),
        binds=mounts.binds,
        tmpfs=mounts.tmpfs,
        volumes=mounts.volumes,
        network=asked.get("network"),
        networking=_networking(asked),
        labels=dict(asked.get("labels", {})),
        storage_driver=asked.get("storage_driver"),
        storage_options=tuple(asked.get("storage_options", ())),
        rootfs=None if rootfs is None else Path(rootfs),
        restart=parse_restart_policy(asked.get("restart", "")),
        stop_timeout_seconds=asked.get("stop_timeout_seconds"),
        **_wishes(asked),
    )


def _networking(asked: Asked) -> Networking:
    from .networking import requested

    return requested(
        ports=asked.get("ports", ()),
        publish_all=asked.get("publish_all", False),
        exposed=asked.get("exposed", ()),
        dns=asked.get("dns", ()),
        dns_search=asked.get("dns_search", ()),
        dns_options=asked.get("dns_options", ()),
        extra_hosts=[f"{name}:{text}" for name, text in asked.get("extra_hosts", {}).items()],
        mac_address=asked.get("mac_address", ""),
    )


def _wishes(asked: Asked) -> _Wishes:
    """What is handed on as it is; the default of each is the specification's."""
    wishes: _Wishes = {}
    if "resources" in asked:
        wishes["resources"] = asked["resources"]
    if "security" in asked:
        wishes["security"] = asked["security"]
    if "namespaces" in asked:
        wishes["namespaces"] = asked["namespaces"]
    return wishes


def words(command: Sequence[str]) -> tuple[str, ...]:
    """Return a command as words; one string would be taken for its letters."""
    if isinstance(command, str):
        raise InvalidArgument(
            f"the command {command!r} is one string, not a sequence of words",
            resolution=f"write {command.split()!r}, or ['sh', '-c', {command!r}] for a shell",
        )
    return tuple(command)
