"""Directories of the host in a container: ``-v HOST:CONTAINER[:OPTIONS]``, in Docker's words."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from msgspec import Struct

from ..errors import InvalidArgument
from ..records import as_dict

PROPAGATIONS = frozenset({"private", "rprivate", "slave", "rslave", "shared", "rshared"})
_IGNORED = frozenset({"z", "Z", "consistent", "cached", "delegated"})


class Bind(Struct, frozen=True):
    """A directory or file of the host, *source*, seen at *target* in the container."""

    source: str
    target: str
    read_only: bool = False
    propagation: str = "rprivate"
    recursive: bool = True
    """With what is mounted below the source."""
    by_mount: bool = False
    """Asked for by ``--mount``, not by ``-v``: its source must exist."""
    inherited: bool = False
    """Another container's, by ``--volumes-from``."""

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
        return as_dict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Bind:
        """Read what :meth:`to_json` gave."""
        return cls(**plain)


def parse_bind(text: str) -> Bind:
    """Parse ``HOST:CONTAINER[:ro|rw|PROPAGATION,…]``, HOST being an absolute path.

    Raises:
        InvalidArgument: in Docker's words.
    """
    source, target, words = split_volume(text)
    read_only, propagation = _parse_mode(words, text)
    return Bind(os.path.normpath(source), target_of(target, text, "bind"), read_only, propagation)


def split_volume(text: str) -> tuple[str, str, str]:
    """Return source, target and options of a ``-v``; only the target is there if it is alone.

    Raises:
        InvalidArgument: in Docker's words.
    """
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        raise InvalidArgument(f"invalid volume specification: '{text}'")
    if len(parts) == 1:
        return "", text, ""
    return parts[0], parts[1], parts[2] if len(parts) == 3 else ""


def target_of(target: str, text: str, kind: str) -> str:
    """Return a mount point in its shortest form; *text* and *kind* are for messages.

    Raises:
        InvalidArgument: in Docker's words, if it is relative or the root.
    """
    of_what = f"invalid volume specification: '{text}': "
    if not target.startswith("/"):
        raise InvalidArgument(
            f'{of_what}invalid mount config for type "{kind}": '
            f"invalid mount path: '{target}' mount path must be absolute"
        )
    target = posixpath.normpath(target).replace("//", "/")
    if target == "/":
        raise InvalidArgument(f"{of_what}invalid specification: destination can't be '/'")
    return target


def _parse_mode(text: str, whole: str) -> tuple[bool, str]:
    access: set[str] = set()
    propagations: set[str] = set()
    for word in filter(None, text.split(",")):
        if word in ("ro", "rw"):
            access.add(word)
        elif word in PROPAGATIONS:
            propagations.add(word)
        elif word == "nocopy":
            raise InvalidArgument(
                f"invalid volume specification: '{whole}': invalid mount config for type "
                '"bind": field VolumeOptions must not be specified'
            )
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
