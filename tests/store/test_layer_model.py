"""Any sequence of verbs leaves the layer store as a model of a few dictionaries says."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from stowage.engine import Engine
from stowage.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    StowageError,
)

pytestmark = pytest.mark.requires_root

NAMES = st.sampled_from(["a", "b", "c", "d"])
PARENTS = st.one_of(st.none(), NAMES)
LABELS = st.dictionaries(st.sampled_from(["x", "y.z"]), st.sampled_from(["", "1", "2"]))


@dataclass
class Snapshot:
    """What the model knows: the kind, the parent's own entry, labels, and names of files."""

    kind: str
    parent: Snapshot | None
    labels: dict[str, str]
    files: set[str] = field(default_factory=set)


class Model:
    """containerd's rules, written down once more; shares no code with the layer store."""

    def __init__(self) -> None:
        self.by_name: dict[str, Snapshot] = {}

    def make(self, kind: str, key: str, parent: str | None, labels: dict[str, str]) -> None:
        above = None
        if parent is not None:
            if parent not in self.by_name:
                raise NotFound("snapshot", parent)
            above = self.by_name[parent]
            if above.kind != "committed":
                raise InvalidArgument(parent)
        if key in self.by_name:
            raise AlreadyExists("snapshot", key)
        kept = {key: value for key, value in labels.items() if value}
        self.by_name[key] = Snapshot(kind, above, kept, set(above.files) if above else set())

    def commit(self, name: str, key: str) -> None:
        if name in self.by_name:
            raise AlreadyExists("snapshot", name)
        snapshot = self.get(key)
        if snapshot.kind != "active":
            raise FailedPrecondition(key)
        del self.by_name[key]
        snapshot.kind, snapshot.labels = "committed", {}
        self.by_name[name] = snapshot

    def remove(self, key: str) -> None:
        snapshot = self.get(key)
        if any(other.parent is snapshot for other in self.by_name.values()):
            raise FailedPrecondition(key)
        del self.by_name[key]

    def get(self, key: str) -> Snapshot:
        if key not in self.by_name:
            raise NotFound("snapshot", key)
        return self.by_name[key]

    def name_of(self, snapshot: Snapshot | None) -> str | None:
        return next((name for name, other in self.by_name.items() if other is snapshot), None)


def outcome(work: Callable[[], object]) -> type[StowageError] | None:
    try:
        work()
    except StowageError as error:
        return type(error)
    return None


class LayerMachine(RuleBasedStateMachine):
    """Each verb does the same to both, or fails in both with the same class."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(dir="/dev/shm"))
        self.model = Model()
        self.open()

    def open(self) -> None:
        self.engine = Engine(self.place / "root", storage_driver="overlay")
        self.layers = self.engine.layers

    def same(self, real: Callable[[], object], model: Callable[[], object]) -> None:
        assert outcome(real) is outcome(model)

    @rule(key=NAMES, parent=PARENTS, labels=LABELS)
    def prepare(self, key: str, parent: str | None, labels: dict[str, str]) -> None:
        self.same(
            lambda: self.layers.prepare(key, parent, labels=labels),
            lambda: self.model.make("active", key, parent, labels),
        )

    @rule(key=NAMES, parent=PARENTS)
    def view(self, key: str, parent: str | None) -> None:
        self.same(
            lambda: self.layers.view(key, parent),
            lambda: self.model.make("view", key, parent, {}),
        )

    @rule(name=NAMES, key=NAMES)
    def commit(self, name: str, key: str) -> None:
        self.same(lambda: self.layers.commit(name, key), lambda: self.model.commit(name, key))

    @rule(key=NAMES)
    def remove(self, key: str) -> None:
        self.same(lambda: self.layers.remove(key), lambda: self.model.remove(key))

    @rule(key=NAMES, file=st.sampled_from(["f", "g", "h"]), gone=st.booleans())
    def write(self, key: str, file: str, gone: bool) -> None:
        snapshot = self.model.by_name.get(key)
        if snapshot is None or snapshot.kind != "active":
            return
        with self.layers.attached(key) as root:
            if gone and file in snapshot.files:
                os.rmdir(file, dir_fd=root)
                snapshot.files.discard(file)
            elif file not in snapshot.files:
                os.mkdir(file, dir_fd=root)
                snapshot.files.add(file)

    @rule(key=NAMES, labels=LABELS)
    def update(self, key: str, labels: dict[str, str]) -> None:
        def change() -> None:
            self.model.get(key).labels = {name: text for name, text in labels.items() if text}

        self.same(lambda: self.layers.update(key, labels), change)

    @rule()
    def reopen(self) -> None:
        self.engine.close()
        self.open()

    @precondition(lambda self: self.model.by_name)
    @rule()
    def collect(self) -> None:
        """A committed snapshot that no other needs goes, and then perhaps its parent."""
        self.layers.gc(lambda info: False)
        while True:
            needed = {id(snapshot.parent) for snapshot in self.model.by_name.values()}
            loose = [
                name
                for name, snapshot in self.model.by_name.items()
                if snapshot.kind == "committed" and id(snapshot) not in needed
            ]
            if not loose:
                return
            for name in loose:
                del self.model.by_name[name]

    @invariant()
    def listed(self) -> None:
        real = {
            info.name: (info.kind.value, info.parent, dict(info.labels))
            for info in self.layers.walk()
        }
        model = {
            name: (snapshot.kind, self.model.name_of(snapshot.parent), snapshot.labels)
            for name, snapshot in self.model.by_name.items()
        }
        assert real == model

    @invariant()
    def holding(self) -> None:
        for name, snapshot in self.model.by_name.items():
            with self.layers.attached(name, read_only=True) as root:
                assert set(os.listdir(root)) == snapshot.files

    def teardown(self) -> None:
        try:
            assert self.layers.check(full=True) == []
            assert self.layers.drain(20) == 0
            wanted = {str(info.id) for info in self.layers.walk()}
            storage = self.place / "root" / "data" / "storage" / "overlay"
            if storage.exists():
                assert {path.name for path in storage.iterdir()} == wanted
        finally:
            self.engine.close()
            shutil.rmtree(self.place)


def test_the_layer_store_agrees_with_the_model() -> None:
    from hypothesis import settings
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(LayerMachine, settings=settings(stateful_step_count=25))
