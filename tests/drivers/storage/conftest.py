"""A rig that plays the core's part for one driver: directories, parents, mounts."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from stowage.linux.copytree import copy_tree
from stowage.linux.files import remove_tree
from stowage.linux.mount import attach_all, make_read_only
from stowage.model import Kind
from stowage.options import Options, parse_options
from stowage_drivers.storage.aufs import AufsDriver
from stowage_drivers.storage.fuse import FuseDriver
from stowage_drivers.storage.overlay import OverlayDriver
from stowage_drivers.storage.vfs import VfsDriver

R = TypeVar("R")
_CLASSES = {"aufs": AufsDriver, "fuse": FuseDriver, "overlay": OverlayDriver, "vfs": VfsDriver}


@dataclass(frozen=True)
class Snapshot:
    """One directory with what the core would record about it."""

    directory: Path
    parents: tuple[Path, ...]
    kind: Kind


class Rig:
    """Calls a driver's hooks in the order of a snapshot's life."""

    def __init__(self, driver: str, root: Path, *options: str, first_id: int = 1) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root = root
        driver_class: Any = _CLASSES[driver]
        self._declared = driver_class.options
        parsed = parse_options(driver, self._declared, options)
        self.driver: Any = driver_class(root, parsed, logging.getLogger("rig"))
        self._next_id = first_id

    def options(self, *given: str) -> Options:
        """A snapshot's options."""
        return parse_options("rig", self._declared, given, scope="snapshot")

    def prepare(
        self, parents: Sequence[Path] = (), kind: Kind = Kind.ACTIVE, *options: str
    ) -> Snapshot:
        directory = self.root / str(self._next_id)
        self._next_id += 1
        directory.mkdir()
        self.driver.storage_prepare(directory, parents, kind, self.options(*options))
        return Snapshot(directory, tuple(parents), kind)

    def view(self, parents: Sequence[Path] = ()) -> Snapshot:
        return self.prepare(parents, Kind.VIEW)

    def commit(self, snapshot: Snapshot) -> tuple[Path, ...]:
        """Seal it; returns the chain that a child has as its parents."""
        if hasattr(self.driver, "storage_seal"):
            self.driver.storage_seal(snapshot.directory, snapshot.parents)
        return (snapshot.directory, *snapshot.parents)

    def layer(self, parents: Sequence[Path] = (), **files: str) -> tuple[Path, ...]:
        """A committed layer with these files; returns the chain."""
        snapshot = self.prepare(parents)
        with self.open(snapshot) as root:
            for name, text in files.items():
                write(root, name, text)
        return self.commit(snapshot)

    @contextmanager
    def open(self, snapshot: Snapshot, *options: str) -> Iterator[int]:
        """Give a readable descriptor of the snapshot's root, on a detached mount."""
        given = {
            "directory": snapshot.directory,
            "parents": snapshot.parents,
            "kind": snapshot.kind,
        }
        read_only = snapshot.kind is not Kind.ACTIVE
        mounted = self._call("storage_attach", **given, options=self.options(*options))
        if mounted is None:
            mounts = self._call("storage_mounts", **given, options=self.options(*options))
            mounted = attach_all(mounts, read_only=read_only)
        elif read_only:
            make_read_only(mounted)
        try:
            root = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=mounted)
            try:
                yield root
            finally:
                os.close(root)
        finally:
            os.close(mounted)

    def remove(self, snapshot: Snapshot) -> None:
        self._call("storage_destroy", directory=snapshot.directory)
        remove_tree(snapshot.directory)

    def _call(self, hook: str, **arguments: object) -> Any:
        """As pluggy does: give an implementation the arguments that it takes."""
        method = getattr(self.driver, hook, None)
        if method is None:
            return None
        taken = method.__code__.co_varnames[1 : method.__code__.co_argcount]
        return method(**{name: arguments[name] for name in taken})


def write(root: int, name: str, text: str) -> None:
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644, dir_fd=root)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def read(root: int, name: str) -> str:
    with os.fdopen(os.open(name, os.O_RDONLY, dir_fd=root)) as file:
        return file.read()


@dataclass(frozen=True)
class Tools:
    """What test modules use of this file (they cannot import it)."""

    rig = Rig
    write = staticmethod(write)
    read = staticmethod(read)

    @staticmethod
    def copy(source: Path, target: Path) -> None:
        target.mkdir()
        copy_tree(source, target)

    @staticmethod
    def in_child(function: Callable[[], R], *before: Callable[[], object]) -> R:
        """Run *function* in a forked child, after *before* (give up root, enter a namespace)."""
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            try:
                for step in before:
                    step()
                answer: object = function()
            except BaseException as error:  # noqa: BLE001  # told to the parent
                answer = error
            with os.fdopen(writing, "wb") as pipe:
                try:
                    pipe.write(pickle.dumps(answer))
                except Exception as error:  # noqa: BLE001  # what cannot be pickled
                    pipe.write(pickle.dumps(RuntimeError(repr((answer, error)))))
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            raw = pipe.read()
        os.waitpid(pid, 0)
        result = pickle.loads(raw)
        if isinstance(result, BaseException):
            raise result
        return result  # type: ignore[no-any-return]  # what the child pickled

    @staticmethod
    def become_nobody() -> None:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)


@pytest.fixture(scope="session")
def tools() -> Tools:
    return Tools()
