"""Storage drivers that are wrong in one way each; everything else about them is right."""

from __future__ import annotations

from collections.abc import Sequence
from logging import Logger
from pathlib import Path
from typing import Any, ClassVar

from stowage import API_VERSION, Mount, Options, StorageProbe, hookimpl


class _Right:
    """What is right about all of them."""

    name: ClassVar[str]
    api_version: ClassVar[int] = API_VERSION
    options: ClassVar[tuple[Any, ...]] = ()

    def __init__(self, root: Path, options: Options, logger: Logger) -> None:
        self.root = root

    @hookimpl
    def storage_probe(self) -> StorageProbe:
        return StorageProbe()

    @hookimpl
    def storage_prepare(self, directory: Path) -> None:
        raise NotImplementedError

    @hookimpl
    def storage_mounts(self, directory: Path) -> Sequence[Mount]:
        raise NotImplementedError


class WrongVersion(_Right):
    """Written for a contract that does not exist yet."""

    name: ClassVar[str] = "broken-version"
    api_version: ClassVar[int] = 99


class MisspeltHook(_Right):
    """A hook that no spec has."""

    name: ClassVar[str] = "broken-hook"

    @hookimpl
    def storage_prepair(self, directory: Path) -> None:
        """Never called by anybody."""


class UnknownArgument(_Right):
    """A hook that wants an argument which its spec does not give."""

    name: ClassVar[str] = "broken-argument"

    @hookimpl
    def storage_seal(self, directory: Path, colour: str) -> None:
        """Never called by anybody."""


class ForgottenMarker(_Right):
    """A hook without ``@hookimpl``."""

    name: ClassVar[str] = "broken-unmarked"

    def storage_destroy(self, directory: Path) -> None:
        """Never called by anybody."""


class ProbeRaises(_Right):
    """A probe that raises instead of saying what it found."""

    name: ClassVar[str] = "broken-probe"

    @hookimpl
    def storage_probe(self) -> StorageProbe:
        raise RuntimeError("the probe fell over")


class ConstructorRaises(_Right):
    """A driver that cannot even be made."""

    name: ClassVar[str] = "broken-constructor"

    def __init__(self, root: Path, options: Options, logger: Logger) -> None:
        raise ValueError("no moon tonight")
