"""Snapshots as directories of changes, shown by the kernel's overlayfs.

::

    storage/overlay/
      <id>/fs/      what the snapshot changed; the upper directory while it is active
      <id>/work/    overlay's work directory; an active snapshot has one
      <id>/empty/   bottom of a stack that would be too small: beneath a base, or a lone view

Layers are named to the kernel by descriptor or by ``<id>/fs`` beneath the root (see
:mod:`._overlay_mounts`), so neither the root's path nor the depth meets a limit of strings.

A base is an overlay too, over an empty directory: the kernel then keeps whiteouts and its own
xattrs out of sight there as everywhere else, and refuses a second mount.

What the capabilities hang on:

* ``native_diff``: the upper directory says all that changed, unless ``metacopy`` or
  ``redirect_dir`` is or was in use, or a hard link of a lower layer was written through the
  index; then the core compares mounts.
* ``exclusive_upper``, ``hardlinks_kept``: ``index``, which needs file handles.
* ``dir_rename``: ``redirect_dir`` (otherwise rename(2) of a parent's directory is EXDEV).
* ``stable_inodes``, ``acl_enforced``, ``reflink``: the backing file system;
  ``fresh_read_descriptor``: the kernel (a file mapped before its first write stays old).
* ``rebase`` is not claimed: a layer unpacked without its parents has made-up attributes on
  every directory that its archive left out, and those would hide the parents'.

Sources: Documentation/filesystems/overlayfs.rst of the kernel.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from logging import Logger
from pathlib import Path
from typing import ClassVar

from stowage import (
    API_VERSION,
    Kind,
    LayerTree,
    Mount,
    NotSupported,
    Option,
    Options,
    StorageCapabilities,
    StorageProbe,
    WhiteoutForm,
    effect,
    hookimpl,
)
from stowage.linux.attributes import copy_attributes, make_base
from stowage.linux.files import remove_tree
from stowage.linux.mount import attach
from stowage.linux.statfs import filesystem_name

from ._overlay_links import complete_hard_links
from ._overlay_mounts import MAX_LOWERS, Upper, depth_of, overlay_mount, too_much
from ._overlay_options import OPTIONS, Settings
from ._overlay_probe import Traits, Unfit, probe_traits
from ._overlay_volatile import allow_remount
from ._scratch import existing, remove_stale_scratch


class OverlayDriver:
    """The kernel's overlayfs; see the module's docstring."""

    name: ClassVar[str] = "overlay"
    api_version: ClassVar[int] = API_VERSION
    priority: ClassVar[int] = 100
    options: ClassVar[tuple[Option[object], ...]] = OPTIONS

    def __init__(self, root: Path, options: Options, logger: Logger) -> None:
        self._root = root
        self._settings = Settings(root, options)
        self._logger = logger

    # --- probe -----------------------------------------------------------------------------

    @hookimpl
    def storage_probe(self) -> StorageProbe:
        try:
            traits = self._traits
        except Unfit as unfit:
            return StorageProbe(findings=(unfit.finding,))
        depth = depth_of(traits.form, self._settings.writable_flags(traits))
        notes = (
            f"layers by {traits.form}, up to {depth} of them",
            f"index {'on: no snapshot can be mounted twice' if traits.index else 'off'}",
            f"whiteouts as {'xattrs' if traits.whiteout_xattr else 'devices'}, "
            f"marks in {traits.xattr_prefix}*",
        )
        return StorageProbe(self._capabilities(traits, depth), notes=notes)

    def _capabilities(self, traits: Traits, depth: int) -> StorageCapabilities:
        return StorageCapabilities(
            native_diff=not self._settings.indirect,
            native_apply=True,
            exclusive_upper=traits.index,
            reflink=traits.reflink,
            stable_inodes=traits.stable_inodes,
            hardlinks_kept=traits.index,
            dir_rename=self._settings.redirects,
            fresh_read_descriptor=traits.fresh_reads,
            acl_enforced=traits.acl,
            host_root=True,
            max_depth=depth,
            stale_options=("index=off",) if traits.index else (),
        )

    @cached_property
    def _traits(self) -> Traits:
        return probe_traits(self._root, self._settings)

    # --- the life of a snapshot --------------------------------------------------------------

    @hookimpl
    def storage_prepare(
        self, directory: Path, parents: Sequence[Path], kind: Kind, options: Options
    ) -> None:
        self._refuse_depth(directory, parents, kind, options)
        self._settings.record_use()
        if len(parents) < _least_lowers(kind):
            _make_directory(directory / "empty")
        if kind is Kind.VIEW:
            return
        _make_directory(directory / "work")
        _make_directory(directory / "fs")
        self._copy_root(self._layer(parents[0]) if parents else None, directory / "fs")

    def _refuse_depth(
        self, directory: Path, parents: Sequence[Path], kind: Kind, options: Options
    ) -> None:
        count = len(parents)
        brief = f"overlay cannot stack {count} layers beneath a snapshot"
        resolution = "flatten the image (export it and import it again), or use another driver"
        if count > MAX_LOWERS:
            details = f"the kernel takes at most {MAX_LOWERS} lower directories"
            raise NotSupported(brief, details=details, resolution=resolution)
        for mount in self.storage_mounts(directory, parents, kind, options):
            details = too_much(mount) or ""
            if details:
                raise NotSupported(brief, details=details, resolution=resolution)

    def _copy_root(self, parent: Path | None, own: Path) -> None:
        """The root's attributes are those of the topmost layer, as any directory's are."""
        target = os.open(own, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            make_base(target)
            if parent is not None:
                source = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    prefix = self._traits.xattr_prefix
                    copy_attributes(source, target, os.fstat(source), skip_prefix=prefix)
                finally:
                    os.close(source)
        finally:
            os.close(target)

    @hookimpl
    def storage_mounts(
        self, directory: Path, parents: Sequence[Path], kind: Kind, options: Options
    ) -> Sequence[Mount]:
        lowers = [self._layer(parent) for parent in parents]
        if kind is Kind.COMMITTED:
            lowers.insert(0, directory / "fs")
        if len(lowers) < _least_lowers(kind):
            lowers.append(directory / "empty")
        if len(lowers) < _least_lowers(kind):  # a view of nothing
            return (Mount("bind", str(directory / "empty"), ("ro",)),)
        traits = self._traits
        if kind is Kind.ACTIVE:
            upper = Upper(directory / "fs", directory / "work")
            flags = self._settings.writable_flags(traits, options)
            return (overlay_mount(traits.form, self._root, lowers, upper, flags),)
        flags = self._settings.read_only_flags(traits)
        return (overlay_mount(traits.form, self._root, lowers, None, flags),)

    @hookimpl
    def storage_attach(
        self, directory: Path, parents: Sequence[Path], kind: Kind, options: Options
    ) -> int | None:
        """Clear the mark of an earlier volatile mount if this boot made it; then mount as usual.

        The kernel leaves the mark behind at every unmount, and refuses to mount over it. A work
        directory is made anew where one was sealed whose commit failed afterwards.
        """
        if kind is Kind.ACTIVE and not (directory / "work").is_dir():
            _make_directory(directory / "work")
        if kind is Kind.ACTIVE and self._settings.volatile(options):
            allow_remount(directory)
        return None

    @hookimpl
    def storage_seal(self, directory: Path, parents: Sequence[Path]) -> None:
        if _has_index(directory):
            self._complete_links(directory, parents)
        remove_tree(directory / "work")

    def _complete_links(self, directory: Path, parents: Sequence[Path]) -> None:
        (mount,) = self.storage_mounts(directory, parents, Kind.ACTIVE, Options({}))
        try:
            merged = attach(mount)
        except OSError as error:
            if error.errno != errno.ESTALE:  # the root was copied: its index is void already
                raise
            return
        try:
            complete_hard_links(merged, directory / "fs")
        finally:
            os.close(merged)

    # --- contents without a mount ------------------------------------------------------------

    @hookimpl
    def storage_diff_tree(self, directory: Path, parents: Sequence[Path]) -> LayerTree | None:
        return None if self._settings.indirect or _has_index(directory) else self._tree(directory)

    @hookimpl
    def storage_apply_tree(self, directory: Path, parents: Sequence[Path]) -> LayerTree:
        return self._tree(directory)

    def _tree(self, directory: Path) -> LayerTree:
        return LayerTree(
            directory / "fs",
            WhiteoutForm.OVERLAY,
            xattr_prefix=self._traits.xattr_prefix,
            whiteout_xattr=self._traits.whiteout_xattr,
        )

    # --- facts -------------------------------------------------------------------------------

    @hookimpl
    def storage_status(self) -> Mapping[str, str]:
        traits = self._traits
        return {
            "Backing Filesystem": filesystem_name(existing(self._root)),
            "Supports d_type": "true",
            "Using metacopy": _word(self._settings.metacopy),
            "Native Overlay Diff": _word(not self._settings.indirect),
            "userxattr": _word(traits.userxattr),
            "Mount Form": traits.form,
            "Index": _word(traits.index),
        }

    @hookimpl
    def storage_metadata(
        self, directory: Path, parents: Sequence[Path], kind: Kind
    ) -> Mapping[str, str]:
        facts = {}
        if parents:
            facts["LowerDir"] = ":".join(str(self._layer(parent)) for parent in parents)
        if kind is not Kind.VIEW:
            facts["UpperDir"] = str(directory / "fs")
        if kind is Kind.ACTIVE:
            facts["WorkDir"] = str(directory / "work")
        return facts

    @hookimpl
    def storage_recover(self, directories: Sequence[Path]) -> None:
        """Remove the scratch directories of probes that were killed."""
        remove_stale_scratch(self._root)

    # --- helpers -----------------------------------------------------------------------------

    def _layer(self, parent: Path) -> Path:
        """A parent's content; one that is no snapshot of this root is a directory of the host."""
        return parent / "fs" if parent.parent == self._root else parent


def _least_lowers(kind: Kind) -> int:
    """Overlay takes one lower directory beneath an upper one, and at least two without."""
    return 1 if kind is Kind.ACTIVE else 2


def _make_directory(path: Path) -> None:
    with effect("directory.make", path=path):
        path.mkdir(mode=0o755)


def _has_index(directory: Path) -> bool:
    """Whether a hard link of a lower layer was copied up through the index.

    With an index the kernel works in its directory too: ``#…`` is the whiteout that it links to
    every deleted name, or something half made.
    """
    try:
        with os.scandir(directory / "work" / "index") as entries:
            return any(not entry.name.startswith("#") for entry in entries)
    except FileNotFoundError:
        return False


def _word(value: bool) -> str:
    return "true" if value else "false"
