"""What a container is: what was asked for, and what is recorded of it.

A row of ``containers`` holds a :class:`ContainerSpec` (as asked for, image defaults merged in),
and :class:`RuntimeFacts` (what the kernel gave it). Both go to JSON and back; a key that is
missing takes its default, so that old rows stay readable.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct, field
from msgspec.structs import replace

from ..errors import InvalidArgument
from ..images.config import RunConfig
from ..linux.process import ProcessIdentity
from ..records import as_dict, field_names
from .log_config import LogConfig
from .mounts import Tmpfs
from .namespaces import Namespaces
from .networking import Networking
from .resources import Resources
from .restarts import RestartFacts, RestartPolicy
from .security import Security
from .volume_specs import VolumeWishes
from .volumes import Bind, Mounted

#: Docker's default, in seconds.
STOP_TIMEOUT_SECONDS = 10


class ContainerState(str, Enum):
    """Docker's states."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    EXITED = "exited"
    DEAD = "dead"
    REMOVING = "removing"

    @property
    def lives(self) -> bool:
        """Whether a process of the container may exist."""
        return self in (ContainerState.RUNNING, ContainerState.PAUSED, ContainerState.RESTARTING)


class ContainerSpec(Struct, frozen=True):
    """Everything that ``run`` and ``create`` can ask.

    *entrypoint* None means the image's, an empty tuple none at all (``--entrypoint ""``).
    *network* None means the default network. *rootfs* is a host directory to use copy-on-write
    in place of an image.
    """

    image: str = ""
    command: tuple[str, ...] = ()
    name: str | None = None
    entrypoint: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()
    """``KEY=value``; a later one wins."""
    working_dir: str = ""
    user: str = ""
    """``name|uid[:group|gid]``, as the container's own passwd and group say."""
    hostname: str = ""
    domainname: str = ""
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    """Close the container's stdin when the first client that attached to it is gone."""
    binds: tuple[Bind, ...] = ()
    tmpfs: tuple[Tmpfs, ...] = ()
    volumes: VolumeWishes = field(default_factory=VolumeWishes)
    network: str | None = None
    networking: Networking = field(default_factory=Networking)
    labels: Mapping[str, str] = field(default_factory=dict)
    auto_remove: bool = False
    storage_driver: str | None = None
    storage_options: tuple[str, ...] = ()
    rootfs: Path | None = None
    stop_signal: str = ""
    stop_timeout_seconds: int | None = None
    resources: Resources = field(default_factory=Resources)
    security: Security = field(default_factory=Security)
    namespaces: Namespaces = field(default_factory=Namespaces)
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    log: LogConfig = field(default_factory=LogConfig)

    @property
    def arguments(self) -> tuple[str, ...]:
        """The command line: entrypoint, then command."""
        return (*(self.entrypoint or ()), *self.command)

    @property
    def has_init(self) -> bool:
        """Whether a small init is the first process; never in a namespace of somebody else."""
        return self.security.init and not self.namespaces.pid

    @property
    def mounted(self) -> tuple[Mounted, ...]:
        """All that is mounted because it was asked for."""
        return (*self.binds, *self.volumes.mounts, *self.tmpfs)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        plain = as_dict(self)
        plain["rootfs"] = None if self.rootfs is None else os.fspath(self.rootfs)
        plain["binds"] = [bind.to_json() for bind in self.binds]
        plain["resources"] = self.resources.to_json()
        plain["networking"] = self.networking.to_json()
        plain["security"] = self.security.to_json()
        plain["namespaces"] = self.namespaces.to_json()
        plain["log"] = self.log.to_json()
        plain["tmpfs"] = [tmpfs.to_json() for tmpfs in self.tmpfs]
        plain["volumes"] = self.volumes.to_json()
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> ContainerSpec:
        """Read what :meth:`to_json` gave; unknown keys are ignored."""
        known = {name: plain[name] for name in field_names(cls) if name in plain}
        for name in ("command", "env", "storage_options"):
            known[name] = tuple(known.get(name, ()))
        if known.get("entrypoint") is not None:
            known["entrypoint"] = tuple(known["entrypoint"])
        if known.get("rootfs") is not None:
            known["rootfs"] = Path(known["rootfs"])
        known["binds"] = tuple(Bind.from_json(bind) for bind in known.get("binds", ()))
        known["networking"] = Networking.from_json(known.get("networking", {}))
        known["tmpfs"] = tuple(Tmpfs.from_json(tmpfs) for tmpfs in known.get("tmpfs", ()))
        known["resources"] = Resources.from_json(known.get("resources", {}))
        known["security"] = Security.from_json(known.get("security", {}))
        known["namespaces"] = Namespaces.from_json(known.get("namespaces", {}))
        known["restart"] = RestartPolicy(**known.get("restart", {}))
        known["volumes"] = VolumeWishes.from_json(known.get("volumes", {}))
        known["log"] = LogConfig.from_json(known.get("log", {}))
        return cls(**known)


def with_image_defaults(spec: ContainerSpec, config: RunConfig) -> ContainerSpec:
    """Return *spec* with what an image's config says filled in, as Docker merges them.

    A given entrypoint drops the image's command as well; environment and labels are joined,
    *spec*'s winning.

    Raises:
        InvalidArgument: if no command is left ("No command specified").
    """
    entrypoint, command = spec.entrypoint, spec.command
    if entrypoint is None:
        entrypoint = config.entrypoint
        command = command or config.cmd
    merged = replace(
        spec,
        entrypoint=entrypoint,
        command=command,
        env=join_env(config.env, spec.env),
        working_dir=spec.working_dir or config.working_dir,
        user=spec.user or config.user,
        labels={**config.labels, **spec.labels},
        stop_signal=spec.stop_signal or config.stop_signal,
        networking=spec.networking.with_image(config.exposed_ports),
    )
    if not any(merged.arguments):
        raise InvalidArgument("No command specified")
    return merged


def join_env(*parts: Sequence[str]) -> tuple[str, ...]:
    """Join lists of ``KEY=value``: later ones replace earlier ones in their place; a bare
    ``KEY`` takes the variable away."""
    values: dict[str, str] = {}
    for text in (text for part in parts for text in part):
        key, equals, value = text.partition("=")
        if equals:
            values[key] = value
        else:
            values.pop(key, None)
    return tuple(f"{key}={value}" for key, value in values.items())


class RuntimeFacts(Struct, frozen=True):
    """What the kernel and the runtime gave a container; times are 0 until it happened.

    *monitor* is who sees its exit: conmon, or the engine process itself (``direct``), named by
    *monitor_process*; between two runs that is who waits to restart it. *prepared* is False until
    the snapshot and the directories are whole. *process* is the container's first process as the
    host sees it.
    """

    prepared: bool = False
    monitor: Literal["", "conmon", "direct"] = ""
    monitor_process: ProcessIdentity | None = None
    process: ProcessIdentity | None = None
    cgroup: str = ""
    started_ns: int = 0
    finished_ns: int = 0
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    runtime: str = ""
    """Path of the OCI runtime that created it."""
    endpoint_id: str = ""
    network_id: str = ""
    run: str = ""
    """Names this run under conmon: an exit command is of one run only."""
    remove_volumes: bool = False
    """Its anonymous volumes go with it."""
    starting: bool = False
    """A start is under way, or was when its process was killed."""
    restarts: RestartFacts = field(default_factory=RestartFacts)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return as_dict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> RuntimeFacts:
        """Read what :meth:`to_json` gave; unknown keys are ignored."""
        known = {name: plain[name] for name in field_names(cls) if name in plain}
        for name in ("monitor_process", "process"):
            if known.get(name) is not None:
                known[name] = ProcessIdentity(**known[name])
        known["restarts"] = RestartFacts.from_json(known.get("restarts", {}))
        return cls(**known)


class ContainerRecord(Struct, frozen=True):
    """A container as recorded. *id* is 64 hex digits; *snapshot* is its key on *driver*."""

    id: str
    name: str
    state: ContainerState
    image_id: str
    image_name: str
    driver: str
    snapshot: str
    created_ns: int
    spec: ContainerSpec
    runtime: RuntimeFacts = field(default_factory=RuntimeFacts)

    @property
    def short_id(self) -> str:
        return self.id[:12]

    @property
    def hostname(self) -> str:
        """What ``hostname`` prints inside; the short id unless asked for."""
        return self.spec.hostname or self.short_id
