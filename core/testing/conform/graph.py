"""The reference model of a whole root: snapshots by name, containerd's rules, and their trees."""

from __future__ import annotations

from collections.abc import Mapping

from ...errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, StowageError
from ...model import Kind, Usage
from .model import ModelTree, Traits


class Rejected(Exception):
    """The verb must fail with *kind*, and change nothing."""

    def __init__(self, kind: type[StowageError]) -> None:
        super().__init__(kind.__name__)
        self.kind = kind


class ModelSnapshot:
    """What is known of one snapshot; *usage* once it was asked for."""

    def __init__(
        self, kind: Kind, parent: ModelSnapshot | None, labels: Mapping[str, str], tree: ModelTree
    ) -> None:
        self.kind = kind
        self.parent = parent
        self.labels = {key: value for key, value in labels.items() if value}
        self.tree = tree
        self.usage: Usage | None = None

    def copy(self) -> ModelSnapshot:
        made = ModelSnapshot(self.kind, self.parent, self.labels, self.tree.copy())
        made.usage = self.usage
        return made


class ModelRoot:
    """All snapshots of a root; each verb changes it, or raises Rejected."""

    def __init__(self, traits: Traits) -> None:
        self.traits = traits
        self.snapshots: dict[str, ModelSnapshot] = {}

    def copy(self) -> ModelRoot:
        """Return what can be changed without changing this one."""
        made = ModelRoot(self.traits)
        twins = {id(one): one.copy() for one in self.snapshots.values()}
        for one in twins.values():
            one.parent = twins[id(one.parent)] if one.parent is not None else None
        made.snapshots = {name: twins[id(one)] for name, one in self.snapshots.items()}
        return made

    def get(self, name: str) -> ModelSnapshot:
        if name not in self.snapshots:
            raise Rejected(NotFound)
        return self.snapshots[name]

    def name_of(self, snapshot: ModelSnapshot | None) -> str | None:
        return next((name for name, one in self.snapshots.items() if one is snapshot), None)

    def named(self, *kinds: Kind) -> list[str]:
        """Return the names of snapshots of these kinds (all without any), sorted."""
        return sorted(
            name for name, one in self.snapshots.items() if not kinds or one.kind in kinds
        )

    def make(self, kind: Kind, key: str, parent: str | None, labels: Mapping[str, str]) -> None:
        above = None
        if parent is not None:
            above = self.get(parent)
            if above.kind is not Kind.COMMITTED:
                raise Rejected(InvalidArgument)
        if key in self.snapshots:
            raise Rejected(AlreadyExists)
        tree = above.tree.child() if above else ModelTree(self.traits)
        self.snapshots[key] = ModelSnapshot(kind, above, labels, tree)

    def commit(self, name: str, key: str, labels: Mapping[str, str]) -> None:
        if name in self.snapshots:
            raise Rejected(AlreadyExists)
        one = self.get(key)
        if one.kind is not Kind.ACTIVE:
            raise Rejected(FailedPrecondition)
        del self.snapshots[key]
        one.kind = Kind.COMMITTED
        one.labels = {key: value for key, value in labels.items() if value}
        one.usage = None
        self.snapshots[name] = one

    def remove(self, name: str) -> None:
        one = self.get(name)
        if any(other.parent is one for other in self.snapshots.values()):
            raise Rejected(FailedPrecondition)
        del self.snapshots[name]

    def label(self, name: str, labels: Mapping[str, str]) -> None:
        one = self.get(name)
        one.labels = {key: value for key, value in labels.items() if value}


__all__ = ["ModelRoot", "ModelSnapshot", "Rejected"]
