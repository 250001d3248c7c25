"""The state machine: any sequence of verbs and file operations, held against the model.

After every step the list, the kinds, parents and labels, and what each snapshot shows, are what
the model says; committed usage stays as it was. Names are few, so that each step meets what others
left, and wrong requests are as welcome as right ones: each must fail with its class and change
nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import reject
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ...errors import Busy, StowageError
from ...model import Kind
from .case import assert_outcome
from .graph import ModelRoot, Rejected
from .operations import Operation
from .strategies import label_sets, operations
from .subject import Subject, assert_model

_NAMES = st.sampled_from(["a", "b", "c", "d", "e"])
_PARENTS = st.one_of(st.none(), _NAMES)


class StorageMachine(RuleBasedStateMachine):
    """One run; *subject* is empty when it starts, *failed* is told what broke."""

    def __init__(self, subject: Subject, failed: Callable[[BaseException], None]) -> None:
        super().__init__()
        self.subject = subject
        self.failed = failed
        self.model = ModelRoot(subject.traits)

    # --- helpers ---------------------------------------------------------------------------------

    def both(self, method: str, real: tuple[object, ...], model: Callable[[], None]) -> None:
        """Do a verb to the driver and to the model; both must succeed or fail alike."""
        expected = self.expectation(model)
        self.watch(lambda: self.agree(method, real, expected))

    @staticmethod
    def expectation(model: Callable[[], None]) -> type[StowageError] | None:
        """Do a verb to the model; return the class of error it must fail with, or None."""
        try:
            model()
        except Rejected as rejected:
            return rejected.kind
        return None

    def agree(
        self, method: str, real: tuple[object, ...], expected: type[StowageError] | None
    ) -> None:
        if expected is None:
            getattr(self.subject, method)(*real)
        else:
            self.subject.refused(expected, method, *real)

    def watch(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self.failed(error)
            raise

    def pick(self, *kinds: Kind) -> list[str]:
        return self.model.named(*kinds)

    # --- containerd's verbs ----------------------------------------------------------------------

    @rule(key=_NAMES, parent=_PARENTS, labels=label_sets())
    def prepare(self, key: str, parent: str | None, labels: dict[str, str]) -> None:
        def make() -> None:
            self.model.make(Kind.ACTIVE, key, parent, {})

        self.both("prepare", (key, parent), make)
        if self.model.snapshots.get(key) and labels:
            self.both("label", (key, labels), lambda: self.model.label(key, labels))

    @precondition(lambda self: self.subject.capabilities.quota_size)
    @rule(key=_NAMES, parent=_PARENTS)
    def prepare_limited(self, key: str, parent: str | None) -> None:
        """A limit changes nothing of what is shown."""
        expected = self.expectation(lambda: self.model.make(Kind.ACTIVE, key, parent, {}))
        self.watch(lambda: self.prepare_with(key, parent, expected))

    def prepare_with(
        self, key: str, parent: str | None, expected: type[StowageError] | None
    ) -> None:
        try:
            self.subject.prepare(key, parent, options=["size=64M"])
        except StowageError as error:
            if expected is None or not isinstance(error, expected):
                raise
        else:
            assert expected is None, f"a limited {key!r} is made, expected {expected.__name__}"

    @rule(kind=st.sampled_from(list(Kind)))
    def walk(self, kind: Kind) -> None:
        """The list by kind is the model's."""
        self.watch(lambda: self.check_walk(kind))

    def check_walk(self, kind: Kind) -> None:
        listed = sorted(info.name for info in self.subject.walk(f"kind=={kind.value}"))
        assert listed == self.pick(kind), f"of kind {kind.value} are {listed}"

    @rule(key=_NAMES, parent=_PARENTS)
    def view(self, key: str, parent: str | None) -> None:
        self.both("view", (key, parent), lambda: self.model.make(Kind.VIEW, key, parent, {}))

    @rule(name=_NAMES, key=_NAMES)
    def commit(self, name: str, key: str) -> None:
        self.both("commit", (name, key), lambda: self.model.commit(name, key, {}))

    @rule(key=_NAMES)
    def remove(self, key: str) -> None:
        self.both("remove", (key,), lambda: self.model.remove(key))

    # --- contents --------------------------------------------------------------------------------

    @precondition(lambda self: self.pick(Kind.ACTIVE))
    @rule(data=st.data())
    def edit(self, data: st.DataObject) -> None:
        """Do a few operations through the mount of an active snapshot."""
        key = data.draw(st.sampled_from(self.pick(Kind.ACTIVE)))
        snapshot = self.model.get(key)
        program: list[tuple[Operation, frozenset[int]]] = []
        for _ in range(data.draw(st.integers(1, 5))):
            operation = data.draw(operations(snapshot.tree))
            program.append((operation, snapshot.tree.act(operation)))
        self.watch(lambda: self.perform(key, program))

    def perform(self, key: str, program: list[tuple[Operation, frozenset[int]]]) -> None:
        done = self.subject.perform(key, *(operation for operation, _ in program))
        for (operation, allowed), number in zip(program, done, strict=True):
            assert_outcome(operation, allowed, number)

    @precondition(lambda self: self.pick(Kind.COMMITTED))
    @rule(data=st.data(), key=_NAMES)
    def copy(self, data: st.DataObject, key: str) -> None:
        """Apply a layer's diff to a new child of its parent, which then is the same."""
        of = data.draw(st.sampled_from(self.pick(Kind.COMMITTED)))
        if key in self.model.snapshots:
            reject()
        source = self.model.get(of)
        parent = self.model.name_of(source.parent)
        self.both("prepare", (key, parent), lambda: self.model.make(Kind.ACTIVE, key, parent, {}))
        self.watch(lambda: self.subject.apply_diff(key, of))
        self.model.get(key).tree = source.tree.copy()
        name = f"{key}+"
        self.both("commit", (name, key), lambda: self.model.commit(name, key, {}))
        self.watch(lambda: self.subject.same(name, of))
        self.both("remove", (name,), lambda: self.model.remove(name))

    @precondition(lambda self: self.model.snapshots)
    @rule(data=st.data())
    def usage(self, data: st.DataObject) -> None:
        """It is never negative, and what a committed layer occupies stays as it was."""
        key = data.draw(st.sampled_from(self.pick()))
        self.watch(lambda: self.use(key))

    def use(self, key: str) -> None:
        snapshot, now = self.model.get(key), self.subject.usage(key)
        assert now.size_bytes >= 0, f"{key!r} occupies {now}"
        assert now.inodes >= 0, f"{key!r} occupies {now}"
        if snapshot.kind is Kind.COMMITTED:
            before, snapshot.usage = snapshot.usage or now, now
            assert before == now, f"usage of {key!r} was {before} and is {now}"

    # --- mounts ----------------------------------------------------------------------------------

    @precondition(lambda self: self.pick(Kind.ACTIVE))
    @rule(data=st.data())
    def mount_and_unmount(self, data: st.DataObject) -> None:
        """While it is mounted it can be neither removed nor committed."""
        key = data.draw(st.sampled_from(self.pick(Kind.ACTIVE)))
        self.watch(lambda: self.use_mount(key))

    def use_mount(self, key: str) -> None:
        self.subject.mount(key)
        self.subject.refused(Busy, "remove", key)
        self.subject.refused(Busy, "commit", "never", key)
        self.subject.unmount(key)

    # --- the root as a whole ---------------------------------------------------------------------

    @rule()
    def reopen(self) -> None:
        self.watch(self.subject.reopen)

    @precondition(lambda self: self.model.snapshots)
    @rule(data=st.data(), at=st.integers(1, 40))
    def kill(self, data: st.DataObject, at: int) -> None:
        """Kill a process in the middle of a verb: afterwards it was done, or it was not."""
        verb = data.draw(st.sampled_from(["prepare", "commit", "remove"]))
        key = data.draw(_NAMES)
        after = self.model.copy()
        call: tuple[object, ...]
        try:
            if verb == "prepare":
                parent = data.draw(_PARENTS)
                call = ("prepare", key, parent)
                after.make(Kind.ACTIVE, key, parent, {})
            elif verb == "commit":
                name = data.draw(_NAMES)
                call = ("commit", name, key)
                after.commit(name, key, {})
            else:
                call = ("remove", key)
                after.remove(key)
        except Rejected:
            reject()
        self.watch(lambda: self.killed(call, at, after))

    def killed(self, call: tuple[object, ...], at: int, after: ModelRoot) -> None:
        fate = self.subject.elsewhere(call, faults=f"effect=*:n={at}:kill")
        assert not fate.error, f"{call} failed elsewhere: {fate.error}"
        if fate.finished or set(self.subject.names()) == set(after.snapshots):
            self.model = after

    # --- what must hold --------------------------------------------------------------------------

    @invariant()
    def listed(self) -> None:
        self.watch(self.check_list)

    def check_list(self) -> None:
        real = {
            info.name: (info.kind.value, info.parent, dict(info.labels))
            for info in self.subject.walk()
        }
        model = {
            name: (one.kind.value, self.model.name_of(one.parent), one.labels)
            for name, one in self.model.snapshots.items()
        }
        assert real == model, f"listed are {real}, expected {model}"

    @invariant()
    def shown(self) -> None:
        self.watch(self.check_trees)

    def check_trees(self) -> None:
        for name, one in self.model.snapshots.items():
            assert_model(one.tree, self.subject.tree(name), repr(name))


__all__ = ["StorageMachine"]
