"""Snapshots as whole directory trees: works everywhere, and hides nothing.

::

    storage/vfs/
      <id>/fs/      the snapshot's full tree; a view of a parent has none

A child starts as a copy of its nearest parent (see :mod:`stowage.linux.copytree`); on file
systems with reflinks the contents are shared until they are written to. What is shown is the
tree itself, by a bind mount, read-only for views and committed snapshots.

What the capabilities hang on:

* ``ro_enforced``: CAP_SYS_ADMIN, for the read-only bind mount. Without it layers can still be
  made, read and exported, through the directory itself; no container can run on it.
* ``reflink``: the backing file system (FICLONE).
* ``native_diff`` is not claimed: a full tree does not say what changed. The core compares it
  with the parent's.
* ``host_root`` is not claimed: it would copy the whole host.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from logging import Logger
from pathlib import Path
from typing import ClassVar

from msgspec import Struct

from stowage import (
    API_VERSION,
    Finding,
    Kind,
    LayerTree,
    Mount,
    NotSupported,
    Option,
    Options,
    StorageCapabilities,
    StorageProbe,
    Usage,
    WhiteoutForm,
    effect,
    hookimpl,
)
from stowage.linux.attributes import make_base
from stowage.linux.copytree import copy_tree
from stowage.linux.mount import attach
from stowage.linux.statfs import filesystem_name

from ._scratch import can_clone, existing, keeps_acls, remove_stale_scratch, scratch
from ._usage import tree_usage


class _Traits(Struct, frozen=True):
    mounts: bool
    reflink: bool
    acl: bool


class VfsDriver:
    """Full copies; see the module's docstring."""

    name: ClassVar[str] = "vfs"
    api_version: ClassVar[int] = API_VERSION
    priority: ClassVar[int] = 0  # a last resort: never chosen in silence
    options: ClassVar[tuple[Option[object], ...]] = ()

    def __init__(self, root: Path, options: Options, logger: Logger) -> None:
        self._root = root
        self._logger = logger

    # --- probe ---------------------------------------------------------------------------------

    @hookimpl
    def storage_probe(self) -> StorageProbe:
        try:
            traits = self._traits
        except OSError as error:
            reason = f"vfs cannot be tried below {self._root}: {error.strerror}"
            remedy = "run as root" if os.geteuid() else "free space there, or move data-root"
            return StorageProbe(findings=(Finding(reason, remedy),))
        notes = [
            "a child shares its parent's contents by reflink"
            if traits.reflink
            else "every child is a full copy of its parent"
        ]
        if not traits.mounts:
            notes.append(
                "no CAP_SYS_ADMIN: layers can be made, compared and exported, but views are "
                "not protected and containers cannot run"
            )
        return StorageProbe(self._capabilities(traits), notes=tuple(notes))

    def _capabilities(self, traits: _Traits) -> StorageCapabilities:
        return StorageCapabilities(
            native_apply=True,
            ro_enforced=traits.mounts,
            reflink=traits.reflink,
            stable_inodes=True,
            hardlinks_kept=True,
            acl_enforced=traits.acl,
        )

    @cached_property
    def _traits(self) -> _Traits:
        with scratch(self._root) as place:
            reflink = can_clone(place)
            original = os.open(place / "original", os.O_RDWR | os.O_CLOEXEC)
            try:
                acl = keeps_acls(original)
            finally:
                os.close(original)
            return _Traits(_can_protect(place), reflink, acl)

    # --- the life of a snapshot ----------------------------------------------------------------

    @hookimpl
    def storage_prepare(
        self, directory: Path, parents: Sequence[Path], kind: Kind, options: Options
    ) -> None:
        if parents and parents[0].parent != self._root:
            raise NotSupported(
                f"vfs cannot show the host's directory {str(parents[0])!r}",
                details="it would have to copy all of it for every container",
                resolution="use a storage driver with the capability host_root",
            )
        if parents and kind is Kind.VIEW:
            return
        own = directory / "fs"
        with effect("directory.make", path=own):
            own.mkdir(mode=0o755)
        make_base(own)
        if parents:
            copy_tree(parents[0] / "fs", own)

    @hookimpl
    def storage_mounts(
        self, directory: Path, parents: Sequence[Path], kind: Kind
    ) -> Sequence[Mount]:
        tree = _shown(directory, parents, kind)
        return (Mount("bind", str(tree), () if kind is Kind.ACTIVE else ("ro",)),)

    @hookimpl
    def storage_attach(self, directory: Path, parents: Sequence[Path], kind: Kind) -> int | None:
        """Where nothing can be mounted, give the directory itself."""
        if self._traits.mounts:
            return None
        tree = _shown(directory, parents, kind)
        return os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    # --- contents without a mount --------------------------------------------------------------

    @hookimpl
    def storage_usage(self, directory: Path, parents: Sequence[Path]) -> Usage:
        """All that the tree occupies; blocks shared by reflink count in full."""
        own = directory / "fs"
        return tree_usage(own) if own.exists() else Usage(0, 0)

    @hookimpl
    def storage_apply_tree(self, directory: Path, parents: Sequence[Path]) -> LayerTree:
        return LayerTree(directory / "fs", WhiteoutForm.NONE)

    # --- facts ---------------------------------------------------------------------------------

    @hookimpl
    def storage_status(self) -> Mapping[str, str]:
        return {
            "Backing Filesystem": filesystem_name(existing(self._root)),
            "Supports reflink": "true" if self._traits.reflink else "false",
            "Extended file attributes": "all",
        }

    @hookimpl
    def storage_metadata(
        self, directory: Path, parents: Sequence[Path], kind: Kind
    ) -> Mapping[str, str]:
        return {"SourceDir": str(_shown(directory, parents, kind))}

    @hookimpl
    def storage_recover(self, directories: Sequence[Path]) -> None:
        """Remove the scratch directories of probes that were killed."""
        remove_stale_scratch(self._root)


def _shown(directory: Path, parents: Sequence[Path], kind: Kind) -> Path:
    return parents[0] / "fs" if parents and kind is Kind.VIEW else directory / "fs"


def _can_protect(place: Path) -> bool:
    """Whether a read-only bind mount can be made here, and whether it refuses to be written."""
    try:
        mounted = attach(Mount("bind", str(place), ("ro",)))
    except PermissionError:
        return False
    try:
        with effect("probe.write", path=place):
            os.mkdir("written", dir_fd=mounted)
    except OSError as error:
        return error.errno == errno.EROFS
    finally:
        os.close(mounted)
    return False
