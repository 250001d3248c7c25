"""A driver that works but for one thing: it claims what it cannot do."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from logging import Logger
from pathlib import Path
from typing import Any, ClassVar

from stowage import (
    API_VERSION,
    Kind,
    Mount,
    NotSupported,
    Option,
    Options,
    SizeType,
    StorageCapabilities,
    StorageProbe,
    hookimpl,
)
from stowage.linux.attributes import make_base
from stowage.linux.copytree import copy_tree


class FalseClaim:
    """Copies whole trees as it should, and takes a ``size`` that it never enforces."""

    name: ClassVar[str] = "broken-claim"
    api_version: ClassVar[int] = API_VERSION
    priority: ClassVar[int] = 0
    options: ClassVar[tuple[Option[Any], ...]] = (
        Option("size", SizeType(1 << 20), None, "is forgotten", scope="both"),
    )

    def __init__(self, root: Path, options: Options, logger: Logger) -> None:
        self._root = root

    @hookimpl
    def storage_probe(self) -> StorageProbe:
        return StorageProbe(
            StorageCapabilities(quota_size=True, stable_inodes=True, hardlinks_kept=True)
        )

    @hookimpl
    def storage_prepare(self, directory: Path, parents: Sequence[Path], kind: Kind) -> None:
        if parents and parents[0].parent != self._root:
            raise NotSupported("broken-claim shows no directory of the host")
        if parents and kind is Kind.VIEW:
            return
        own = directory / "tree"
        own.mkdir(mode=0o755)
        make_base(own)
        if parents:
            copy_tree(parents[0] / "tree", own)

    @hookimpl
    def storage_mounts(
        self, directory: Path, parents: Sequence[Path], kind: Kind
    ) -> Sequence[Mount]:
        shown = parents[0] if parents and kind is Kind.VIEW else directory
        options = () if kind is Kind.ACTIVE else ("ro",)
        return (Mount("bind", str(shown / "tree"), options),)

    @hookimpl
    def storage_destroy(self, directory: Path) -> None:
        shutil.rmtree(directory / "tree", ignore_errors=True)

    @hookimpl
    def storage_set_quota(
        self, directory: Path, size_bytes: int | None, inodes: int | None
    ) -> None:
        """Forget it."""
