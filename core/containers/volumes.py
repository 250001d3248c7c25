"""Bind mounts of a container: ``-v HOST:CONTAINER[:OPTIONS]``, parsed with Docker's refusals."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from ..errors import InvalidArgument, NotSupported

PROPAGATIONS = frozenset({"private", "rprivate", "slave", "rslave", "shared", "rshared"})
_IGNORED = frozenset({"z", "Z", "consistent", "cached", "delegated"})
_VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Bind:
    """A directory or file of the host, *source*, seen at *target* in the container."""

    source: str
    target: str
    read_only: bool = False
    propagation: str = "rprivate"
    recursive: bool = True
    """With what is mounted below the source."""
    by_mount: bool = False
    """Asked for by ``--mount``, not by ``-v``: its source must exist."""

    @property
    def shared(self) -> bool:
        """Whether mounts made below it inside show on the host."""
        return self.propagation in ("shared", "rshared")

    @property
    def mode(self) -> str:
        """The options as ``inspect`` shows them."""
        words = ["ro"] if self.read_only else []
        if self.propagation != "rprivate":
            words.append(self.propagation)
        return ",".join(words)

    def __str__(self) -> str:
        return ":".join(part for part in (self.source, self.target, self.mode) if part)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Bind:
        """Read what :meth:`to_json` gave."""
        return cls(**plain)


def parse_bind(text: str) -> Bind:
    """Parse ``HOST:CONTAINER[:ro|rw|PROPAGATION,…]``.

    Raises:
        InvalidArgument: in Docker's words.
        NotSupported: if it asks for a volume (no host path).
    """
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        raise InvalidArgument(f"invalid volume specification: '{text}'")
    if len(parts) == 1:
        raise NotSupported(
            f"{text!r} asks for an anonymous volume, which this version does not have",
            resolution="give a host directory: -v /host/dir:/container/dir",
        )
    source, target = parts[0], parts[1]
    if not source.startswith("/"):
        raise _not_a_directory(source)
    if not target.startswith("/"):
        raise InvalidArgument(
            f"invalid volume specification: '{text}': invalid mount config for type \"bind\": "
            f"invalid mount path: '{target}' mount path must be absolute"
        )
    target = posixpath.normpath(target).replace("//", "/")
    if target == "/":
        raise InvalidArgument(
            f"invalid volume specification: '{text}': "
            "invalid specification: destination can't be '/'"
        )
    read_only, propagation = _parse_mode(parts[2] if len(parts) == 3 else "")
    return Bind(os.path.normpath(source), target, read_only, propagation)


def _not_a_directory(source: str) -> InvalidArgument | NotSupported:
    if _VOLUME_NAME.fullmatch(source) and len(source) > 1:
        return NotSupported(
            f"{source!r} names a volume, and this version has no named volumes",
            resolution="give a host directory: -v /host/dir:/container/dir",
        )
    return InvalidArgument(
        f'create {source}: "{source}" includes invalid characters for a local volume name, '
        'only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host '
        "directory, use absolute path"
    )


def _parse_mode(text: str) -> tuple[bool, str]:
    access: set[str] = set()
    propagations: set[str] = set()
    for word in filter(None, text.split(",")):
        if word in ("ro", "rw"):
            access.add(word)
        elif word in PROPAGATIONS:
            propagations.add(word)
        elif word not in _IGNORED:
            raise InvalidArgument(f"invalid mode: {text}")
    if len(access) > 1 or len(propagations) > 1:
        raise InvalidArgument(f"invalid mode: {text}")
    return "ro" in access, propagations.pop() if propagations else "rprivate"


def check_sources(binds: Iterable[Bind]) -> None:
    """Refuse a ``--mount type=bind`` whose source is missing.

    Raises:
        InvalidArgument: in Docker's words.
    """
    for bind in binds:
        if bind.by_mount and not os.path.exists(bind.source):
            raise InvalidArgument(
                'invalid mount config for type "bind": '
                f"bind source path does not exist: {bind.source}",
                resolution="make it, or use -v, which makes a directory that is missing",
            )


class Mounted(Protocol):
    """Something that a container sees at *target*; *source* is the host's path, or empty."""

    @property
    def target(self) -> str: ...
    @property
    def source(self) -> str: ...


def check_targets(mounts: Iterable[Mounted]) -> None:
    """Refuse two mounts at one place.

    Raises:
        InvalidArgument: "Duplicate mount point: /x".
    """
    seen: set[str] = set()
    for mount in mounts:
        if mount.target in seen:
            raise InvalidArgument(f"Duplicate mount point: {mount.target}")
        seen.add(mount.target)
