"""Snapshots as btrfs subvolumes: made in no time, shared until written, compared by what changed.

::

    storage/btrfs/
      <id>/fs/      a subvolume: empty for a base, else a snapshot of the parent's; a view has none
      <id>/since    of a clone: the transaction since which it differs from its parent

A committed snapshot's subvolume is read-only, whoever looks. What is shown is the subvolume, by a
bind mount. Needs CAP_SYS_ADMIN and Linux 4.18.

What the capabilities hang on:

* ``quota_size``: quota groups, which are turned on for the whole file system by the first
  snapshot that has a ``size``. The limit is on what a snapshot shares with no other (max_excl):
  what its parents hold is not charged. The group goes with the subvolume.
* ``acl_enforced``: the mount option ``noacl``.
* ``native_diff`` is not claimed: a subvolume is a full tree. ``storage_changes`` says by
  transaction which paths to look at (:mod:`._changes`), so a diff costs what changed.

Subvolumes that a container made inside its own become directories at commit and are deleted with
it (:mod:`._nested`). Sources: linux/btrfs.h, linux/btrfs_tree.h, btrfs(5), btrfs-qgroup(8).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from logging import Logger
from pathlib import Path
from typing import ClassVar

from stowage import (
    API_VERSION,
    Change,
    InvalidArgument,
    Kind,
    LayerTree,
    Mount,
    NotSupported,
    Option,
    Options,
    SizeType,
    StorageCapabilities,
    StorageProbe,
    Usage,
    WhiteoutForm,
    effect,
    hookimpl,
)
from stowage.linux.attributes import make_base

from . import _ioctl
from ._changes import ChangedPaths, allocated_since, too_long
from ._nested import delete_tree, fill_in, make_plain, nested
from ._probe import Traits, Unfit, probe_traits, remove_stale_scratch

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LEAST_LIMIT = 1 << 20


class BtrfsDriver:
    """Subvolumes and snapshots; see the module's docstring."""

    name: ClassVar[str] = "btrfs"
    api_version: ClassVar[int] = API_VERSION
    priority: ClassVar[int] = 50  # overlay on btrfs shares the page cache between containers
    options: ClassVar[tuple[Option[object], ...]] = (
        Option(
            "size",
            SizeType(minimum_bytes=_LEAST_LIMIT),
            None,
            "how much a container may write; turns quotas on for the whole file system",
            default_text="no limit",
            scope="both",
        ),
        Option(
            "min_space",
            SizeType(),
            0,
            "the smallest size that a container may ask for",
            default_text="0",
        ),
    )

    def __init__(self, root: Path, options: Options, logger: Logger) -> None:
        self._root = root
        self._least = options.get("min_space")
        self._logger = logger

    # --- probe -----------------------------------------------------------------------------

    @hookimpl
    def storage_probe(self) -> StorageProbe:
        try:
            traits = self._traits
        except Unfit as unfit:
            return StorageProbe(findings=(unfit.finding,))
        capabilities = StorageCapabilities(
            native_apply=True,
            quota_size=traits.quota,
            reflink=True,
            stable_inodes=True,
            hardlinks_kept=True,
            clone_active=True,
            acl_enforced=traits.acl,
        )
        return StorageProbe(capabilities, notes=("layers as subvolumes, changes by transaction",))

    @cached_property
    def _traits(self) -> Traits:
        return probe_traits(self._root)

    # --- the life of a snapshot ------------------------------------------------------------

    @hookimpl
    def storage_prepare(
        self, directory: Path, parents: Sequence[Path], kind: Kind, options: Options
    ) -> None:
        self._refuse_too_small(options)
        if parents and parents[0].parent != self._root:
            raise NotSupported(
                f"btrfs cannot show the host's directory {str(parents[0])!r}",
                details="only a subvolume can have a snapshot",
                resolution="use a storage driver with the capability host_root",
            )
        if kind is Kind.VIEW and parents:
            return
        with _opened(directory) as above:
            if parents:
                with _opened(parents[0] / "fs") as parent:
                    _ioctl.create_snapshot(parent, above, b"fs")
            else:
                _ioctl.create_subvolume(above, b"fs")
                make_base(directory / "fs")

    def _refuse_too_small(self, options: Options) -> None:
        size = options.get("size")
        if isinstance(size, int) and isinstance(self._least, int) and size < self._least:
            raise InvalidArgument(
                f"storage option size: {size} bytes is too small",
                details=f"min_space asks for at least {self._least} bytes",
                resolution="ask for more, or lower the driver's option min_space",
            )

    @hookimpl
    def storage_mounts(
        self, directory: Path, parents: Sequence[Path], kind: Kind
    ) -> Sequence[Mount]:
        tree = _shown(directory, parents, kind)
        return (Mount("bind", str(tree), () if kind is Kind.ACTIVE else ("ro",)),)

    @hookimpl
    def storage_attach(self, directory: Path, parents: Sequence[Path], kind: Kind) -> int | None:
        """Make a subvolume writable again that was sealed, and whose commit failed afterwards."""
        if kind is Kind.ACTIVE:
            with _opened(directory / "fs") as root:
                _ioctl.set_read_only(root, False)
        return None

    @hookimpl
    def storage_seal(self, directory: Path, parents: Sequence[Path]) -> None:
        with _opened(directory / "fs") as root:
            if nested(root):
                _ioctl.set_read_only(root, False)
                make_plain(root)
            _ioctl.set_read_only(root, True)

    @hookimpl
    def storage_destroy(self, directory: Path) -> None:
        with _opened(directory) as above:
            try:
                with _opened(directory / "fs") as root:
                    number = _ioctl.subvolume_info(root).number
                delete_tree(above, b"fs")
            except FileNotFoundError:
                return
            try:
                _ioctl.forget_quota(above, number)
            except OSError as error:
                # The kernel keeps it until the blocks are freed, and then removes it (6.11), or
                # knows of none; EINVAL came with ENOTCONN's meaning before 4.20.
                if error.errno not in (errno.EBUSY, errno.ENOENT, errno.ENOTCONN, errno.EINVAL):
                    raise

    @hookimpl
    def storage_clone(self, source: Path, directory: Path, parents: Sequence[Path]) -> None:
        with _opened(source / "fs") as root, _opened(directory) as above:
            since = _since(source, root, parents)
            if since is not None:
                with effect("btrfs.since", path=directory):
                    (directory / "since").write_text(f"{since}\n")
            _ioctl.create_snapshot(root, above, b"fs")
            with _opened(directory / "fs") as copy:
                fill_in(root, copy)

    @hookimpl
    def storage_set_quota(
        self, directory: Path, size_bytes: int | None, inodes: int | None
    ) -> None:
        if inodes is not None:
            raise NotSupported("btrfs cannot limit the number of inodes")
        with _opened(directory / "fs") as root:
            try:
                _ioctl.limit_exclusive(root, size_bytes)
            except OSError as error:
                if error.errno not in (errno.ENOTCONN, errno.EINVAL):
                    raise
                if size_bytes is None:
                    return
                self._logger.info("quotas are turned on for the file system of %s", self._root)
                _ioctl.enable_quotas(root)
                _ioctl.limit_exclusive(root, size_bytes)

    # --- contents without a mount ----------------------------------------------------------

    @hookimpl
    def storage_apply_tree(self, directory: Path, parents: Sequence[Path]) -> LayerTree:
        return LayerTree(directory / "fs", WhiteoutForm.NONE)

    @hookimpl
    def storage_changes(self, directory: Path, parents: Sequence[Path]) -> Iterable[Change] | None:
        """By transaction; None where that does not say all, and the core is to walk."""
        if not parents:
            return None
        with _opened(directory / "fs") as root, _opened(parents[0] / "fs") as parent:
            since = _since(directory, root, parents)
            if since is None or nested(root):
                return None
            _ioctl.commit_transaction(root)
            try:
                return ChangedPaths(root, parent, since).find()
            except OSError as error:
                if too_long(error):
                    return None
                raise

    @hookimpl
    def storage_usage(self, directory: Path, parents: Sequence[Path]) -> Usage | None:
        if not (directory / "fs").exists():
            return Usage(0, 0)
        with _opened(directory / "fs") as root:
            since = _since(directory, root, parents) if parents else 0
            if since is None or nested(root):
                return None
            _ioctl.commit_transaction(root)
            return allocated_since(root, since)

    # --- facts -----------------------------------------------------------------------------

    @hookimpl
    def storage_status(self) -> Mapping[str, str]:
        return {"Backing Filesystem": "btrfs", "Quota": "yes" if self._traits.quota else "no"}

    @hookimpl
    def storage_metadata(
        self, directory: Path, parents: Sequence[Path], kind: Kind
    ) -> Mapping[str, str]:
        tree = _shown(directory, parents, kind)
        with _opened(tree) as root:
            return {"Subvolume": str(tree), "SubvolumeID": str(_ioctl.subvolume_info(root).number)}

    @hookimpl
    def storage_recover(self, directories: Sequence[Path]) -> None:
        """Remove the scratch directories of probes that were killed."""
        remove_stale_scratch(self._root)


def _shown(directory: Path, parents: Sequence[Path], kind: Kind) -> Path:
    return parents[0] / "fs" if parents and kind is Kind.VIEW else directory / "fs"


def _since(directory: Path, root: int, parents: Sequence[Path]) -> int | None:
    """Return the transaction after which the snapshot differs from its parent; None if unknown."""
    try:
        return int((directory / "since").read_text())
    except FileNotFoundError:
        pass
    if not parents:
        return None
    own = _ioctl.subvolume_info(root)
    with _opened(parents[0] / "fs") as parent:
        made_of_it = own.parent_uuid == _ioctl.subvolume_info(parent).uuid
    return own.created if made_of_it else None


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, _DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
