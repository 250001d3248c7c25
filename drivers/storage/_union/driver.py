"""What the drivers that the union carries have in common: everything but the form of marks."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from logging import Logger
from pathlib import Path
from typing import ClassVar

from stowage import (
    API_VERSION,
    BooleanType,
    Kind,
    LayerTree,
    NotSupported,
    Option,
    Options,
    StorageCapabilities,
    StorageProbe,
    WhiteoutForm,
    effect,
    hookimpl,
)
from stowage.linux import serving
from stowage.linux.attributes import copy_attributes, make_base
from stowage.linux.files import remove_tree
from stowage.linux.statfs import filesystem_name

from .._scratch import existing, remove_stale_scratch
from .probe import Traits, Unfit, probe_traits

OPTIONS: tuple[Option[object], ...] = (
    Option(
        "fsync",
        BooleanType(),
        True,
        "Sync a file when a program in a container asks for it; without, that costs nothing and "
        "what the machine's fall takes is lost. Layers are synced at commit all the same.",
        scope="both",
    ),
    Option(
        "cache",
        BooleanType(),
        True,
        "Let the kernel keep names and attributes for good; without, it asks each time (for "
        "finding out whether a cache is at fault).",
        scope="both",
    ),
)
_ENTRY = f"{__package__}.server:build"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class UnionDriver:
    """A driver whose snapshots are served by the union; a subclass says how marks look."""

    name: ClassVar[str]
    api_version: ClassVar[int] = API_VERSION
    priority: ClassVar[int] = 10
    options: ClassVar[tuple[Option[object], ...]] = OPTIONS
    form: ClassVar[WhiteoutForm]
    prefix: ClassVar[str]
    content: ClassVar[str] = "fs"
    """What a snapshot's directory calls its tree."""
    busy_seconds: float = 5.0
    """How long a server may take to end after its mount is gone."""

    def __init__(self, root: Path, options: Options, logger: Logger) -> None:
        self._root = root
        self._options = options
        self._logger = logger

    # --- probe ---------------------------------------

    @hookimpl
    def storage_probe(self) -> StorageProbe:
        try:
            traits = self._traits
        except Unfit as unfit:
            return StorageProbe(findings=(unfit.finding,))
        return StorageProbe(self._capabilities(traits), notes=self._notes(traits))

    def _notes(self, traits: Traits) -> tuple[str, ...]:
        return (
            "served in user space by a process of its own for each mount",
            f"whiteouts as {'.wh. files' if self.form is WhiteoutForm.OCI else 'devices'}, "
            f"marks in {self.prefix}*",
        )

    def _capabilities(self, traits: Traits) -> StorageCapabilities:
        return StorageCapabilities(
            native_diff=True,
            native_apply=True,
            exclusive_upper=True,
            reflink=traits.reflink,
            stable_inodes=True,
            hardlinks_kept=True,
            acl_enforced=traits.acl,
        )

    @cached_property
    def _traits(self) -> Traits:
        return probe_traits(self._root, self._try)

    def _try(self, place: Path) -> int:
        """Serve a child of a layer, both in *place*, for the probe."""
        return self._serve(place, place / "2", [place / "1"], Kind.ACTIVE, self._options)

    # --- the life of a snapshot ---------------------------------------

    @hookimpl
    def storage_prepare(
        self, directory: Path, parents: Sequence[Path], kind: Kind, options: Options
    ) -> None:
        if parents and parents[0].parent != self._root:
            raise NotSupported(
                f"{self.name} cannot show the host's directory {str(parents[0])!r}",
                details="what the host changes in it meanwhile would not be seen",
                resolution="use a storage driver with the capability host_root",
            )
        if kind is Kind.VIEW and parents:
            return
        own = directory / self.content
        _make_directory(own)
        target = os.open(own, _DIRECTORY)
        try:
            make_base(target)
            if parents:
                self._copy_root(parents[0] / self.content, target)
        finally:
            os.close(target)

    def _copy_root(self, parent: Path, target: int) -> None:
        source = os.open(parent, _DIRECTORY)
        try:
            copy_attributes(source, target, os.fstat(source), skip_prefix=self.prefix)
        finally:
            os.close(source)

    @hookimpl
    def storage_attach(
        self, directory: Path, parents: Sequence[Path], kind: Kind, options: Options
    ) -> int:
        for told in serving.take_fallen(directory):
            self._logger.warning(
                "%s: %s; whoever still has its mount meets ENOTCONN", self._shown(directory), told
            )
        return self._serve(self._root, directory, parents, kind, options)

    def _serve(
        self, root: Path, directory: Path, parents: Sequence[Path], kind: Kind, options: Options
    ) -> int:
        lowers = [f"{parent.name}/{self.content}" for parent in parents]
        writable = kind is Kind.ACTIVE
        if not writable and (kind is Kind.COMMITTED or not parents):
            lowers.insert(0, f"{directory.name}/{self.content}")
        if writable:
            _make_directory(directory / "work")
        return serving.start(
            serving.Service(
                self._shown(directory),
                _ENTRY,
                directory,
                {
                    "name": f"stowage-{directory.name}",
                    "subtype": self.name,
                    "root": str(root),
                    "lowers": lowers,
                    "upper": f"{directory.name}/{self.content}" if writable else None,
                    "work": f"{directory.name}/work",
                    "form": self.form.value,
                    "prefix": self.prefix,
                    "busy_seconds": self.busy_seconds,
                    "fsync": bool(options["fsync"]),
                    "cache": bool(options["cache"]),
                },
            )
        )

    def _shown(self, directory: Path) -> str:
        return f"{self.name} snapshot {directory.name}"

    @hookimpl
    def storage_seal(self, directory: Path, parents: Sequence[Path]) -> None:
        serving.wait_ended(directory, self.busy_seconds)  # it may still be on its way out
        remove_tree(directory / "work")

    @hookimpl
    def storage_destroy(self, directory: Path) -> None:
        """Only wait for a server whose mount is gone: it still holds files of the directory."""
        serving.wait_ended(directory, self.busy_seconds)

    # --- contents without a mount ---------------------------------------

    @hookimpl
    def storage_diff_tree(self, directory: Path, parents: Sequence[Path]) -> LayerTree:
        return LayerTree(directory / self.content, self.form, xattr_prefix=self.prefix)

    @hookimpl
    def storage_apply_tree(self, directory: Path, parents: Sequence[Path]) -> LayerTree:
        return LayerTree(directory / self.content, self.form, xattr_prefix=self.prefix)

    # --- facts ---------------------------------------

    @hookimpl
    def storage_status(self) -> Mapping[str, str]:
        traits = self._traits
        return {
            "Root Dir": str(self._root),
            "Backing Filesystem": filesystem_name(existing(self._root)),
            "Supports reflink": "true" if traits.reflink else "false",
            "Native Diff": "true",
        }

    @hookimpl
    def storage_metadata(
        self, directory: Path, parents: Sequence[Path], kind: Kind
    ) -> Mapping[str, str]:
        facts = {}
        if parents:
            facts["LowerDir"] = ":".join(str(parent / self.content) for parent in parents)
        if kind is not Kind.VIEW or not parents:
            facts["UpperDir"] = str(directory / self.content)
        return facts

    @hookimpl
    def storage_recover(self, directories: Sequence[Path]) -> None:
        """Remove the scratch directories of probes that were killed."""
        remove_stale_scratch(self._root)


def _make_directory(path: Path) -> None:
    with effect("directory.make", path=path):
        path.mkdir(mode=0o755, exist_ok=True)
