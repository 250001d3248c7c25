"""Figures of the layer store and its drivers on one file system."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stowage import Engine, Kind
from stowage.options import parse_options

from .bare import mount_overlay
from .measure import Figure, Limit, Side, compare

NEW_FILES = 1_000
DEEPEST = 500


class StorageBench:
    """One root on the file system that is mounted at *place*; *tree* is what layers hold."""

    def __init__(self, kind: str, place: Path, tree: Path, archive: Path, rounds: int) -> None:
        self.kind = kind
        self.place = place
        self.tree = tree
        self.archive = archive
        self.rounds = rounds
        self._count = 0

    def figures(self) -> Iterator[Figure]:
        """Yield each figure as soon as it is measured."""
        with Engine(self.place / "root", storage_driver="overlay") as engine:
            yield from self._mounts(engine)
            yield self._diff(engine)
            yield self._remove(engine)
            yield self._apply(engine, "layer applied, synced", sync=True)
        with self._unsynced() as engine:
            yield self._apply(engine, "layer applied, not synced", sync=False)
        yield self._vfs_child()

    @contextmanager
    def _unsynced(self) -> Iterator[Engine]:
        from stowage.config import Config

        config = Config.for_root(
            self.place / "unsynced", {"storage-driver": "overlay", "sync": "none"}
        )
        with Engine(config=config) as engine:
            yield engine

    def _name(self, word: str) -> str:
        self._count += 1
        return f"{word}-{self._count}"

    def _title(self, text: str) -> str:
        return f"{self.kind}: {text}"

    # --- mounts --------------------------------------------------------------------------------

    def _mounts(self, engine: Engine) -> Iterator[Figure]:
        base = self._committed(engine, None)
        yield self._mount(engine, base, "overlay mount + unmount")
        yield self._attached(engine, base)
        deep = base
        for _ in range(DEEPEST - 1):
            deep = self._committed(engine, deep)
        yield self._mount(engine, deep, f"the same, {DEEPEST} layers")

    def _committed(self, engine: Engine, parent: str | None) -> str:
        key, name = self._name("key"), self._name("layer")
        engine.layers.prepare(key, parent)
        engine.layers.commit(name, key)
        return name

    def _mount(self, engine: Engine, parent: str, text: str) -> Figure:
        """The driver, through its handle, beside the system calls that it must make."""
        snapshot = engine.layers.prepare(self._name("active"), parent)
        handle = engine.storage("overlay")
        chain = engine.layers.chain(snapshot.name)
        directory, *parents = [engine.layout.snapshot("overlay", each.id) for each in chain]
        declared = engine.registry.declared_options("storage", "overlay")
        options = parse_options("overlay", declared, (), scope="snapshot")
        layers = [parent / "fs" for parent in parents]

        def ours() -> None:
            os.close(handle.attach(directory, parents, Kind.ACTIVE, options))

        def bare() -> None:
            os.close(mount_overlay(layers, directory / "fs", directory / "work"))

        return compare(
            self._title(text),
            Side("stowage", ours),
            Side("bare system calls", bare),
            rounds=self.rounds * 5,
            limit=Limit(2),
        )

    def _attached(self, engine: Engine, parent: str) -> Figure:
        """The same through the store: row, lease and state besides."""
        key = self._name("active")
        snapshot = engine.layers.prepare(key, parent)
        directory = engine.layout.snapshot("overlay", snapshot.id)
        below = engine.layout.snapshot("overlay", engine.layers.stat(parent).id)

        def ours() -> None:
            with engine.layers.attached(key):
                pass

        def bare() -> None:
            os.close(mount_overlay([below / "fs"], directory / "fs", directory / "work"))

        return compare(
            self._title("the same through the layer store"),
            Side("stowage", ours),
            Side("bare system calls", bare),
            rounds=self.rounds * 5,
        )

    # --- contents ------------------------------------------------------------------------------

    def _apply(self, engine: Engine, text: str, *, sync: bool) -> Figure:
        """A layer from its archive to its published name, beside unpacking alone."""
        target = self.place / "tar"
        added: list[str] = []

        def ours() -> None:
            with self.archive.open("rb") as stream:
                added.append(engine.layers.add_layer(stream).name)

        def clear_ours() -> None:
            engine.layers.remove(added.pop())
            engine.layers.drain()

        def tar() -> None:
            target.mkdir()
            command = ["tar", "--numeric-owner", "--xattrs", "-xpf", str(self.archive)]
            subprocess.run([*command, "-C", str(target)], check=True)
            if sync:
                subprocess.run(["sync", "-f", target], check=True)

        return compare(
            self._title(text),
            Side("stowage", ours, self._settle, clear_ours),
            Side(f"tar x{' + sync -f' if sync else ''}", tar, self._settle, lambda: remove(target)),
            rounds=self.rounds,
            limit=Limit(1.2),
        )

    def _settle(self) -> None:
        """Let neither side pay for what the other one left dirty."""
        subprocess.run(["sync", "-f", self.place], check=True)

    def _diff(self, engine: Engine) -> Figure:
        base = self._committed(engine, None)
        snapshot = engine.layers.prepare(self._name("active"), base)
        with engine.layers.attached(snapshot.name) as root:
            for number in range(NEW_FILES):
                flags = os.O_CREAT | os.O_WRONLY
                os.close(os.open(f"file{number}", flags, 0o644, dir_fd=root))
        upper = engine.layout.snapshot("overlay", snapshot.id) / "fs"

        return compare(
            self._title(f"changes of {NEW_FILES:,} new files"),
            Side("stowage", lambda: list(engine.layers.changes(snapshot.name))),
            Side("find -printf of the upper directory",
                 lambda: subprocess.run(["find", upper, "-printf", ""], check=True)),
            rounds=self.rounds * 2,
            limit=Limit(extra=0.020),
        )  # fmt: skip

    def _remove(self, engine: Engine) -> Figure:
        """As the caller sees it: the files go afterwards, in the background."""
        key, copy = self._name("big"), self.place / "copy"

        def fill() -> None:
            engine.layers.prepare(key)
            with self.archive.open("rb") as stream:
                engine.layers.apply(key, stream)
            self._settle()

        return compare(
            self._title("big layer removed"),
            Side("stowage", lambda: engine.layers.remove(key), fill, engine.layers.drain),
            Side("rm -rf", lambda: subprocess.run(["rm", "-rf", copy], check=True),
                 lambda: subprocess.run(["cp", "-a", self.tree, copy], check=True)),
            rounds=self.rounds,
            limit=Limit(extra=0.002),
        )  # fmt: skip

    def _vfs_child(self) -> Figure:
        with Engine(self.place / "copies", storage_driver="vfs") as engine:
            with self.archive.open("rb") as stream:
                base = engine.layers.add_layer(stream)
            source = engine.layout.snapshot("vfs", base.id) / "fs"
            copy, key = self.place / "copy", self._name("child")

            def clear_ours() -> None:
                engine.layers.remove(key)
                engine.layers.drain()

            return compare(
                self._title("vfs child of a big layer"),
                Side("stowage", lambda: engine.layers.prepare(key, base.name),
                     self._settle, clear_ours),
                Side("cp -a", lambda: subprocess.run(["cp", "-a", source, copy], check=True),
                     self._settle, lambda: remove(copy)),
                rounds=self.rounds,
                limit=Limit(1.2),
            )  # fmt: skip


def remove(tree: Path) -> None:
    shutil.rmtree(tree, ignore_errors=True)
