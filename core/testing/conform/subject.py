"""The subject: one driver in a fresh root, driven through the layer store, without an engine.

Everything that a property does to a driver goes through its methods; those marked ``@step`` note
themselves, so that the program of a failing example can be shown and run again::

    with Subject.open("vfs", on="/dev/shm") as subject:
        subject.prepare("base")
        subject.perform("base", Mkdir(b"etc"), Create(b"etc/motd", b"hi"))
        subject.commit("layer", "base")
        subject.prepare("child", "layer")
        subject.same("child", "layer")
"""

from __future__ import annotations

import io
import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import EllipsisType
from typing import Literal

from ...errors import Busy, NotFound, StowageError
from ...handle import StorageHandle
from ...layers.store import Attachment, LayerStore
from ...linux.mountinfo import read_mountinfo
from ...linux.statfs import filesystem_name
from ...model import Change, Kind, SnapshotInfo, StorageCapabilities, Usage
from ...registry import Registry
from ...store.layout import RootLayout
from ...store.metastore import Metastore
from .model import ModelTree, Traits
from .operations import Operation
from .places import place
from .steps import Log, Step, step
from .tree import Tree, differences, observe
from .victims import Errand, Fate, Victims

Sync = Literal["none", "filesystem"]


class Subject:
    """A driver under test. *driver* is an installed one's name, or a class of one's own.

    *root* is an empty directory on the file system to test on; close the subject to remove it.
    With *sync* ``"none"`` commits do not wait for the disk: that is the core's part, not the
    driver's, and costs more than all else.
    """

    def __init__(
        self, driver: str | type, root: Path, options: Sequence[str] = (), *, sync: Sync = "none"
    ) -> None:
        self.driver = driver
        self.options = tuple(options)
        self.root = root
        self.sync = sync
        self.log = Log()
        self.on: str | Path | None = root.parent
        self._victims = Victims()
        self._held: list[Attachment] = []
        self._stack = ExitStack()
        self.registry = Registry()
        name = driver if isinstance(driver, str) else self.registry.provide("storage", driver)
        self.name = self.registry.canonical_name("storage", name)
        self._open()

    @classmethod
    def open(
        cls,
        driver: str | type,
        *,
        on: str | Path | None = None,
        options: Sequence[str] = (),
        sync: Sync = "none",
    ) -> Subject:
        """Make a subject in a new directory at *on*; see :func:`.places.place`."""
        with ExitStack() as stack:
            directory = stack.enter_context(place(on))
            root = Path(tempfile.mkdtemp(prefix="stowage-conform-", dir=directory))
            stack.callback(shutil.rmtree, root, ignore_errors=True)
            subject = cls(driver, root, options, sync=sync)
            subject.on = on
            subject._stack = stack.pop_all()
            return subject

    def _open(self) -> None:
        self.layout = RootLayout.beneath(self.root)
        self.layout.create()
        self.metastore = Metastore(self.layout.metadata)
        self._handles: dict[str, StorageHandle] = {}
        self.layers = LayerStore(
            self.layout, self.metastore, self._storage, self.name, sync=self.sync
        )

    def _storage(self, name: str) -> StorageHandle:
        if name not in self._handles:
            logger = logging.getLogger("stowage.testing.conform")
            root = self.layout.driver_root(name)
            options = self.options if name == self.name else ()
            self._handles[name] = self.registry.storage(name, root, options, logger)
        return self._handles[name]

    def __enter__(self) -> Subject:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the root and remove it, with what is mounted in it."""
        self._victims.close()
        self.shut()
        unmount_below(self.root)
        self._destroy()
        self._stack.close()

    def _destroy(self) -> None:
        """Let the driver take down what cannot be unlinked; the rest is removed as files are."""
        places = [self.storage_root, self.layout.trash]
        left = [one for place in places if place.is_dir() for one in place.iterdir()]
        handle = self.registry.storage(self.name, self.storage_root, self.options)
        if handle.implements("storage_destroy"):
            for directory in left:
                with suppress(StowageError):  # a driver that fails in it has been told of
                    handle.destroy(directory)
        handle.close()

    def open_again(self) -> None:
        """Open the root that ``shut`` closed."""
        self._open()

    def shut(self) -> None:
        """Close the root as a process that ends does; it can be opened again."""
        self.layers.close(0.0)
        for handle in self._handles.values():
            handle.close()
        self.metastore.close()

    def clear(self) -> None:
        """Remove everything, so that the next example starts on an empty root.

        Raises:
            StowageError, OSError, AssertionError: if the driver does not let go; use a new root.
        """
        for info in reversed(list(self.layers.walk())):
            if (place := self.layers.mounted_at(info.name)) is not None:
                self.layers.unmount(place)
            self.layers.remove(info.name)
        self.log.clear()

    # --- facts -----------------------------------------------------------------------------------

    @property
    def handle(self) -> StorageHandle:
        """The driver's own handle, for what the layer store does not show."""
        return self._storage(self.name)

    @property
    def capabilities(self) -> StorageCapabilities:
        return self.handle.capabilities

    @property
    def traits(self) -> Traits:
        return Traits.of(self.capabilities)

    @property
    def storage_root(self) -> Path:
        """The directory that the driver was given."""
        return self.layout.driver_root(self.name)

    @property
    def backing(self) -> str:
        """The type of the file system that the root lies on ("extfs", "btrfs", …)."""
        return filesystem_name(self.root)

    @property
    def opening(self) -> str:
        """The call in Python that makes such a subject."""
        driver = repr(self.driver) if isinstance(self.driver, str) else self.driver.__name__
        options = f", options={list(self.options)!r}" if self.options else ""
        on = "" if self.on is None else f", on={str(self.on)!r}"
        return f"Subject.open({driver}{on}{options})"

    def directory(self, key: str) -> Path:
        """The directory of a snapshot, which is the driver's own: to look, never to write."""
        return self.layout.snapshot(self.name, self.layers.stat(key).id)

    # --- containerd's verbs ----------------------------------------------------------------------

    @step
    def prepare(
        self,
        key: str,
        parent: str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
    ) -> SnapshotInfo:
        """Make an active snapshot."""
        return self.layers.prepare(key, parent, labels=labels, options=options)

    @step
    def view(self, key: str, parent: str | None = None) -> SnapshotInfo:
        """Make a read-only look at a committed snapshot."""
        return self.layers.view(key, parent)

    @step
    def commit(
        self, name: str | None, key: str, *, labels: Mapping[str, str] | None = None
    ) -> SnapshotInfo:
        """Commit an active snapshot."""
        return self.layers.commit(name, key, labels=labels)

    @step
    def remove(self, key: str) -> None:
        """Remove a snapshot."""
        self.layers.remove(key)

    @step
    def label(self, key: str, labels: Mapping[str, str], *field_paths: str) -> SnapshotInfo:
        """Replace labels."""
        return self.layers.update(key, labels, *field_paths)

    @step
    def usage(self, key: str) -> Usage:
        """Return what a snapshot occupies."""
        return self.layers.usage(key)

    def stat(self, key: str) -> SnapshotInfo:
        """Return a snapshot as recorded."""
        return self.layers.stat(key)

    def walk(self, *filters: str) -> list[SnapshotInfo]:
        """Return the snapshots that match."""
        return list(self.layers.walk(*filters))

    def names(self) -> list[str]:
        """Return the names of all snapshots, sorted."""
        return sorted(info.name for info in self.layers.walk())

    # --- contents --------------------------------------------------------------------------------

    @step
    def perform(self, key: str, *operations: Operation) -> list[int]:
        """Do *operations* through the snapshot's mount; return the errno of each, 0 for success."""
        with self.layers.attached(key) as root:
            return [operation.attempt(root) for operation in operations]

    @step
    def done(self, key: str, *operations: Operation) -> None:
        """Do *operations* through the snapshot's mount; each must succeed."""
        with self.layers.attached(key) as root:
            for operation in operations:
                operation.perform(root)

    def tree(self, key: str) -> Tree:
        """Return what a snapshot shows."""
        with self.layers.attached(key, read_only=True) as root:
            return observe(root)

    @contextmanager
    def attached(self, key: str, *, read_only: bool = False) -> Iterator[int]:
        """Give the descriptor of a snapshot's root for the block."""
        with self.layers.attached(key, read_only=read_only) as root:
            yield root

    @step
    def hold(self, key: str) -> None:
        """Attach a snapshot until the process ends; for what is done elsewhere."""
        self._held.append(self.layers.attach(key))

    def changes(self, key: str) -> list[Change]:
        """Return what a snapshot changed."""
        return list(self.layers.changes(key))

    @step
    def diff(self, key: str, parent: str | EllipsisType | None = ...) -> bytes:
        """Return the archive of what a snapshot changed."""
        out = io.BytesIO()
        self.layers.diff(key, out, parent=parent)
        return out.getvalue()

    @step
    def apply(self, key: str, archive: bytes) -> str:
        """Unpack an archive into an active snapshot; return its diffID."""
        return self.layers.apply(key, io.BytesIO(archive)).diff_id

    @step
    def apply_diff(self, key: str, of: str, parent: str | EllipsisType | None = ...) -> None:
        """Unpack into *key* what *of* changed."""
        self.layers.apply(key, io.BytesIO(self.diff(of, parent)))

    @step
    def add_layer(self, archive: bytes, parent: str | None = None) -> SnapshotInfo:
        """Unpack an archive as a committed layer under its chainID."""
        return self.layers.add_layer(io.BytesIO(archive), parent)

    @step
    def export(self, name: str) -> bytes:
        """Return a committed layer's archive."""
        out = io.BytesIO()
        self.layers.export(name, out)
        return out.getvalue()

    # --- mounts ----------------------------------------------------------------------------------

    @step
    def mount(self, key: str) -> Path:
        """Mount a snapshot; return where."""
        return self.layers.mount(key)

    @step
    def unmount(self, key: str) -> None:
        """Unmount a snapshot that ``mount`` mounted."""
        place = self.layers.mounted_at(key)
        if place is None:
            raise NotFound("mount", key)
        self.layers.unmount(place)

    # --- the root as a whole ---------------------------------------------------------------------

    @step
    def reopen(self) -> None:
        """Close the root and open it again, as the next process would."""
        self.shut()
        self._open()

    @step
    def elsewhere(
        self,
        *calls: tuple[object, ...],
        faults: str = "",
        while_opening: bool = False,
        end: Literal["killed", "closed"] = "killed",
        beside: bool = False,
    ) -> Fate:
        """Close the root, have another process open it and make *calls* (each a method's name and
        its arguments), and open it again once that process is dead. *beside*: keep it open.

        *faults* are rules for the fault injector there ("effect=*:n=7:kill"), from before the
        root is opened on with *while_opening*. If nothing kills it, it is killed at its *end*,
        or closes the root first.
        """
        steps = tuple(Step(str(method), tuple(words), {}) for method, *words in calls)
        errand = Errand(self.driver, self.root, self.options, steps, faults, while_opening, end)
        if beside:
            return self._victims.run(errand)
        self.shut()
        try:
            return self._victims.run(errand)
        finally:
            self._open()

    @step
    def drain(self) -> None:
        """Empty the trash.

        Raises:
            AssertionError: if something stays there.
        """
        left = self.layers.drain(60)
        assert left == 0, f"{left} removed snapshots cannot be deleted"

    # --- what must hold, as steps of a program ---------------------------------------------------

    @step
    def same(self, key: str, other: str, *, ignoring: Sequence[str] = ()) -> None:
        """Look at both: *key* must show what *other* does."""
        assert_same(self.tree(other), self.tree(key), f"{key!r}, like {other!r}", ignoring)

    @step
    def shows(self, key: str, tree: Tree) -> None:
        """Look at *key*: it must show *tree*."""
        assert_same(tree, self.tree(key), repr(key))

    @step
    def refused(self, kind: type[StowageError], method: str, *arguments: object) -> StowageError:
        """Call *method*, which must fail with exactly *kind* (or :class:`Busy` for its base)."""
        try:
            getattr(self, method)(*arguments)
        except StowageError as error:
            if type(error) is kind or (type(error) is Busy and isinstance(error, kind)):
                return error
            raise AssertionError(
                f"{method}{arguments!r} failed with {type(error).__name__}, "
                f"expected {kind.__name__}: {error}"
            ) from error
        raise AssertionError(f"{method}{arguments!r} succeeded, expected {kind.__name__}")


def assert_same(expected: Tree, seen: Tree, what: str, ignoring: Sequence[str] = ()) -> None:
    """Raise AssertionError naming each path that differs."""
    lines = differences(expected, seen, ignoring=ignoring)
    if lines:
        raise AssertionError(f"the tree of {what} is not what it must be:\n  " + "\n  ".join(lines))


def assert_model(model: ModelTree, seen: Tree, what: str) -> None:
    """Raise AssertionError where *seen* is not what the model says; unknown times are learnt."""
    model.learn(seen)
    assert_same(model.frozen(), seen, what)


def unmount_below(root: Path) -> None:
    """Detach whatever is mounted below *root*, last first."""
    from ...linux.mount import unmount

    for entry in reversed(list(read_mountinfo())):
        if str(entry.target).startswith(f"{root}/"):
            unmount(Path(entry.target), lazy=True)


__all__ = ["Kind", "Subject", "assert_model", "assert_same", "unmount_below"]
