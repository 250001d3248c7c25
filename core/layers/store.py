"""The layer store: containerd's snapshots, on any driver, for any number of processes.

A snapshot is **active** (writable, known by a key), a **view** (read-only, known by a key) or
**committed** (immutable, known by a name, may be a parent); names and keys share one space per
driver. State rules and error classes are containerd's (core/snapshots). Every method is safe from
threads and beside other processes on the same root; after a fork the root must be opened anew.

Three stories::

    layers.prepare("work", parent)          # a layer made by hand
    with layers.attached("work") as root: …
    layers.commit("mine", "work")

    layers.add_layer(archive, parent)       # a layer that came as an archive

    with layers.mounted("box") as path: …   # looking at one
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import EllipsisType
from typing import TYPE_CHECKING, BinaryIO, Literal

from ..errors import AlreadyExists, FailedPrecondition
from ..handle import StorageHandle
from ..model import Change, Kind, Mount, SnapshotInfo, Usage
from ..store.layout import RootLayout
from ..store.locks import Lease
from ..store.metastore import Metastore
from . import rows
from .attach import Attachment, attach
from .context import StoreContext
from .filters import parse_filters
from .labels import updated_labels, valid_labels
from .mounted import MountPoints, require_absolute
from .recovery import drop_abandoned, open_root

if TYPE_CHECKING:
    from .check import CheckFinding
    from .collect import Collected, DiskUsage
    from .diff import Packed
    from .init import Target
    from .transfer import Step
    from .unpack import Unpacked, UnpackLimits


class LayerStore:
    """All snapshots of one root.

    Drivers are given by their own names (``Registry.canonical_name``), None being the default
    one. Opening recovers what a killed process left.

    Args:
        open_storage: returns the open handle of a driver; the same one for each name.
        sync: ``"filesystem"`` writes a layer to the disk before it is published.
        in_use: says whether a container runs on a snapshot, as a text for messages.
    """

    def __init__(
        self,
        layout: RootLayout,
        metastore: Metastore,
        open_storage: Callable[[str], StorageHandle],
        default_driver: str,
        *,
        sync: Literal["none", "filesystem"] = "filesystem",
        in_use: Callable[[SnapshotInfo], str | None] | None = None,
    ) -> None:
        self.default_driver = default_driver
        layout.create()
        self._context = StoreContext(layout, metastore, open_storage, sync=sync == "filesystem")
        self._context.in_use = in_use
        self._mounts = MountPoints(self._context)
        self._context.mount_users = self._mounts.users
        metastore.ballast.ensure()
        metastore.reserve.ensure()
        self._presence = metastore.ballast.relieve(self._open)

    def _open(self) -> Lease:
        return open_root(self._context, self._mounts)

    # --- containerd's verbs --------------------------------------------------------------------

    def prepare(
        self,
        key: str,
        parent: str | None = None,
        *,
        driver: str | None = None,
        labels: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        host_root: Path | None = None,
    ) -> SnapshotInfo:
        """Make an active snapshot that looks like its parent.

        *options* are ``key=value`` of scope snapshot. *host_root* is a directory of the host that
        a base lies on, with drivers that have the capability ``host_root``.

        Raises:
            NotFound: if the parent does not exist.
            InvalidArgument: if it is not committed, or an option is wrong.
            AlreadyExists: if the key is taken.
        """
        return self._make(key, parent, Kind.ACTIVE, driver, labels, options, host_root)

    def view(
        self,
        key: str,
        parent: str | None = None,
        *,
        driver: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> SnapshotInfo:
        """Make a read-only look at a committed snapshot; raises as ``prepare``."""
        return self._make(key, parent, Kind.VIEW, driver, labels, (), None)

    def _make(
        self,
        key: str,
        parent: str | None,
        kind: Kind,
        driver: str | None,
        labels: Mapping[str, str] | None,
        options: Sequence[str],
        host_root: Path | None,
    ) -> SnapshotInfo:
        from .building import begin, ready

        name = self._name(driver)
        kept = valid_labels(labels)

        def make() -> SnapshotInfo:
            draft = begin(
                self._context,
                name,
                key,
                parent,
                kind,
                labels=kept,
                options=options,
                host_root=host_root,
            )
            return ready(self._context, draft).info()

        try:
            return make()
        except AlreadyExists:
            row = rows.find(self._context.metastore.read(), name, key)
            if row is not None and row.state == "ready":
                raise
            drop_abandoned(self._context)  # its maker may be dead, or somebody just dropped it
            return make()

    def commit(
        self,
        name: str | None,
        key: str,
        *,
        driver: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> SnapshotInfo:
        """Turn an active snapshot into a committed one; the key goes as the name appears.

        *labels* replace the old ones. None as *name* stands for the chainID. On any error the
        snapshot stays active and usable.

        Raises:
            AlreadyExists: if the name is taken.
            NotFound: if there is no such key.
            FailedPrecondition: if it is not active.
            Busy: if anybody uses it.
        """
        from .committing import commit

        chosen = self._name(driver)
        if name:  # before the key: as containerd has it
            rows.refuse_taken(self._context.metastore.read(), chosen, name)
        row = self._context.get(chosen, key)
        return commit(self._context, row, name, valid_labels(labels)).info()

    def mounts(self, key: str, *, driver: str | None = None) -> Sequence[Mount]:
        """Return the mounts of an active snapshot or a view as data; changes nothing.

        Raises:
            FailedPrecondition: if it is committed (make a view of it).
        """
        context, row = self._context, self._get(key, driver)
        if row.kind is Kind.COMMITTED:
            raise FailedPrecondition(
                f"snapshot {key!r} is committed", resolution="make a view of it and mount that"
            )
        return context.handle(row.driver).mounts(
            context.directory(row), context.parents(row), row.kind, context.options(row)
        )

    def remove(self, key: str, *, driver: str | None = None) -> None:
        """Remove a snapshot, in the time of a rename; its files are deleted in the background.

        Raises:
            NotFound: if there is none.
            FailedPrecondition: if it is the parent of others.
            Busy: if anybody uses it.
        """
        from .removal import remove

        remove(self._context, self._get(key, driver))

    def stat(self, key: str, *, driver: str | None = None) -> SnapshotInfo:
        """Return a snapshot as recorded; raises NotFound."""
        return self._get(key, driver).info()

    def walk(self, *filters: str, driver: str | None = None) -> Iterator[SnapshotInfo]:
        """Yield the snapshots that any of *filters* matches, parents before children.

        Of every driver unless one is named. For the filters see :mod:`.filters`.
        """
        matches = parse_filters(filters)
        infos = [row.info() for row in rows.every(self._context.metastore.read(), driver)]
        return (info for info in infos if matches(info))

    def update(
        self,
        key: str,
        labels: Mapping[str, str],
        *field_paths: str,
        driver: str | None = None,
    ) -> SnapshotInfo:
        """Replace the labels, or with *field_paths* (``labels.KEY``) only those named.

        Raises:
            InvalidArgument: for a field path of anything but labels.
        """
        name = self._name(driver)
        with self._context.metastore.transaction() as tx:
            row = rows.get(tx, name, key)
            rows.set_labels(tx, row, updated_labels(row.labels, labels, field_paths))
        return self.stat(key, driver=driver)

    def usage(self, key: str, *, driver: str | None = None) -> Usage:
        """Return what a snapshot occupies without its parents: as frozen at commit, or now."""
        from .contents import usage

        return usage(self._context, self._get(key, driver))

    # --- working on contents -------------------------------------------------------------------

    def attach(self, key: str, *, driver: str | None = None, read_only: bool = False) -> Attachment:
        """Attach a snapshot as a detached mount; the caller closes what is returned.

        Raises:
            Busy: if it is active and anybody else has it.
        """
        return attach(self._context, self._get(key, driver), read_only=read_only)

    @contextmanager
    def attached(
        self, key: str, *, driver: str | None = None, read_only: bool = False
    ) -> Iterator[int]:
        """Give the descriptor of an attached snapshot's root for the block; see ``attach``."""
        with self.attach(key, driver=driver, read_only=read_only) as attachment:
            yield attachment.root

    @contextmanager
    def mounted(
        self, key: str, *, driver: str | None = None, clone: int | None = None
    ) -> Iterator[Path]:
        """Give a real mount point for the block; those of one snapshot share it.

        Of one that a container runs on, *clone* is a detached copy of its mount.

        Raises:
            Busy: if the snapshot is attached or run by anybody; on leaving, if a process still
                works in the mount, which then stays until it is unmounted.
        """
        row = self._get(key, driver)
        entry = self._mounts.mount(row, None, owned=True, clone=clone)
        try:
            yield entry.path
        finally:
            self._mounts.leave(row, entry)

    def mount(
        self,
        key: str,
        path: Path | None = None,
        *,
        driver: str | None = None,
        clone: int | None = None,
    ) -> Path:
        """Mount a snapshot until ``unmount``, at *path* or below exec-root; returns where.

        Mounted so already: nothing is done. It outlives this process. Of one that a container
        runs on, *clone* is a detached copy of its mount.

        Raises:
            Busy: if it is attached or run by anybody, or mounted elsewhere.
        """
        where = None if path is None else require_absolute(path)
        row = self._get(key, driver)
        return self._mounts.mount(row, where, owned=False, clone=clone).path

    def mounted_at(self, key: str, *, driver: str | None = None) -> Path | None:
        """Return where a snapshot is mounted by ``mount``, or None."""
        return self._mounts.place(self._get(key, driver))

    def unmount(self, path: Path) -> None:
        """Unmount what was mounted at *path*.

        Raises:
            NotFound: if nothing of this root is mounted there.
            Busy: if a process uses it; says which.
        """
        self._mounts.unmount(require_absolute(path))

    def changes(
        self, key: str, *, driver: str | None = None, root: int | None = None
    ) -> Sequence[Change]:
        """Return what a snapshot changed relative to its parent, sorted by path.

        *root* is a descriptor of its merged tree, for one that is attached elsewhere (a running
        container's); drivers with a diff tree do not need it.
        """
        from .contents import changes

        return changes(self._context, self._get(key, driver), root)

    def diff(
        self,
        key: str,
        out: BinaryIO,
        *,
        parent: str | EllipsisType | None = ...,
        driver: str | None = None,
        root: int | None = None,
    ) -> Packed:
        """Write the archive of what a snapshot changed; deterministic.

        Relative to its own parent, or to another committed snapshot, or (None) to nothing.
        """
        from .contents import pack, pack_against

        row = self._get(key, driver)
        if parent is ... or parent == row.parent:
            return pack(self._context, row, out, root=root)
        other = None if parent is None else self._context.get(row.driver, str(parent))
        return pack_against(self._context, row, other, out, root=root)

    def apply(
        self,
        key: str,
        stream: BinaryIO,
        *,
        driver: str | None = None,
        limits: UnpackLimits | None = None,
    ) -> Unpacked:
        """Unpack a layer's archive into an active snapshot.

        After an error its contents are undefined; remove it.

        Raises:
            InvalidArchive: for an archive that cannot be unpacked safely.
            FailedPrecondition: if it is not active.
            Busy: if anybody uses it.
        """
        from .contents import apply

        row = self._get(key, driver)
        if row.kind is not Kind.ACTIVE:
            raise FailedPrecondition(f"snapshot {key!r} is not active")
        lease, row = self._context.lease_current(row, exclusive=True, purpose="unpacking into it")
        with lease:
            self._context.refuse_if_used(row)
            return apply(self._context, row, stream, limits)

    # --- whole layers --------------------------------------------------------------------------

    def add_layer(
        self,
        stream: BinaryIO,
        parent_chain: str | None = None,
        *,
        driver: str | None = None,
        labels: Mapping[str, str] | None = None,
        diff_id: str | None = None,
        limits: UnpackLimits | None = None,
    ) -> SnapshotInfo:
        """Unpack an archive as a committed layer named by its chainID; whole or not at all.

        See :func:`.transfer.add_layer`. Wrap it in :meth:`keeping` until an image refers to it.
        """
        from .transfer import add_layer

        return add_layer(
            self._context,
            self._name(driver),
            stream,
            parent_chain,
            labels=valid_labels(labels),
            diff_id=diff_id,
            limits=limits,
        ).info()

    def export(self, name: str, out: BinaryIO, *, driver: str | None = None) -> str:
        """Write a committed layer's archive byte for byte as it came; returns its diffID.

        Raises:
            DataLoss: naming the file that is not what it was.
        """
        from .contents import export

        return export(self._context, self._get(name, driver), out)

    def chain(self, name: str, *, driver: str | None = None) -> Sequence[SnapshotInfo]:
        """Return a snapshot and its parents, nearest first."""
        row = self._get(name, driver)
        above = rows.parents(self._context.metastore.read(), row.id)
        return [each.info() for each in (row, *above)]

    def bring(
        self,
        name: str,
        source: str,
        target: str,
        *,
        verify: bool = False,
        told: Callable[[Step], object] | None = None,
    ) -> Sequence[str]:
        """Have a committed chain of the driver *source* on *target* too, verified by digest.

        See :func:`.transfer.bring`; returns the layers that were copied.
        """
        from .transfer import bring

        return bring(
            self._context, name, source, target, verify=verify, told=told or (lambda step: None)
        )

    def init_snapshot(
        self,
        parent: str | None,
        targets: Mapping[bytes, Target],
        *,
        driver: str | None = None,
    ) -> str | None:
        """Return the name of a committed snapshot like *parent* that has all mount *targets*.

        *targets* maps paths within the root to ``"dir"``, ``"file"`` or the text of a symlink.
        See :mod:`.init`.
        """
        from .init import init_snapshot

        return init_snapshot(self._context, self._name(driver), parent, targets)

    # --- the root as a whole -------------------------------------------------------------------

    def keeping(self) -> AbstractContextManager[None]:
        """Let ``gc`` take no layer while the block runs: for what is referred to only later."""
        from .collect import keeping

        return keeping(self._context)

    def gc(self, is_referenced: Callable[[SnapshotInfo], bool]) -> Collected:
        """Remove committed snapshots that nothing refers to, and drain the trash.

        See :func:`.collect.collect`.
        """
        from .collect import collect

        return collect(self._context, is_referenced)

    def check(
        self,
        *,
        full: bool = False,
        is_referenced: Callable[[SnapshotInfo], bool] | None = None,
    ) -> list[CheckFinding]:
        """Return what is missing, orphaned or modified; see :func:`.check.check`."""
        from .check import check

        return list(check(self._context, full=full, is_referenced=is_referenced))

    def df(self) -> DiskUsage:
        """Return what the root occupies, from recorded usage."""
        from .collect import disk_usage

        return disk_usage(self._context)

    def metadata(self, key: str, *, driver: str | None = None) -> Mapping[str, str]:
        """Return the driver's facts of a snapshot for ``inspect`` ("UpperDir")."""
        context, row = self._context, self._get(key, driver)
        return context.handle(row.driver).metadata(
            context.directory(row), context.parents(row), row.kind
        )

    def recover(self) -> None:
        """Finish or take back what killed processes left, also while others work."""
        from .recovery import recover

        recover(self._context, self._mounts)

    def drain(self, timeout_seconds: float | None = None) -> int:
        """Delete what lies in the trash here and now; returns how many entries are left."""
        return len(self._context.reaper.drain(timeout_seconds))

    def close(self, grace_seconds: float = 0.25) -> None:
        """Stop the reaper, after *grace_seconds* more of work, and give up the root. Idempotent.

        Attachments stay until they are closed.
        """
        self._context.reaper.close(grace_seconds)
        self._presence.close()

    # --- helpers -------------------------------------------------------------------------------

    def _name(self, driver: str | None) -> str:
        return driver or self.default_driver

    def _get(self, key: str, driver: str | None) -> rows.Row:
        return self._context.get(self._name(driver), key)


__all__ = ["Attachment", "LayerStore"]
