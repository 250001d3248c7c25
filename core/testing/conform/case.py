"""A case: what a property gets, once for each example."""

from __future__ import annotations

import errno
from typing import Protocol, TypeVar

from hypothesis import strategies as st

from ...model import StorageCapabilities
from .footprint import Footprint, footprint
from .model import ModelTree
from .operations import Operation
from .strategies import operations
from .subject import Subject, assert_model

T = TypeVar("T")


class Trial(Protocol):
    """Who runs the property: see ``runner``."""

    def fresh(self) -> Subject: ...
    def note(self, error: BaseException) -> None: ...
    def spoiled(self) -> None: ...


class Case:
    """One example of a property: the subject, empty, and the choices that differ each time.

    *examples* is how many the whole run takes of this property, for those with ``once`` that
    make examples by themselves; *seed* is what these start from.
    """

    def __init__(
        self,
        subject: Subject,
        data: st.DataObject | None,
        examples: int,
        seed: int,
        trial: Trial,
    ) -> None:
        self.subject = subject
        self._data = data
        self.examples = examples
        self.seed = seed
        self._trial = trial

    @property
    def brief(self) -> bool:
        """Whether so few examples were asked for that long ones are to be made shorter."""
        return self.examples < 10

    @property
    def capabilities(self) -> StorageCapabilities:
        return self.subject.capabilities

    def draw(self, strategy: st.SearchStrategy[T], label: str = "") -> T:
        """Draw a value; smaller ones are tried first once the property failed."""
        assert self._data is not None, "a property with once=True has nothing to draw from"
        return self._data.draw(strategy, label or None)

    def fresh(self) -> Subject:
        """Begin another example of a property that makes them by itself; the subject is empty."""
        self.subject = self._trial.fresh()
        return self.subject

    def failed(self, error: BaseException) -> None:
        """Note what failed in such an example, before it is raised on."""
        self._trial.note(error)

    def untouched(self) -> Footprint:
        """Return the footprint of the root without snapshots, once the driver was used: what it
        makes for good at its first use is there."""
        self.subject.prepare("first")
        self.subject.commit("first layer", "first")
        self.subject.remove("first layer")
        self.subject.drain()
        return footprint(self.subject.root)

    def spoiled(self) -> None:
        """Say that the root was damaged on purpose: the next example gets another."""
        self._trial.spoiled()

    def maybe(self) -> bool:
        """Draw yes or no."""
        return self.draw(st.booleans())

    def one_of(self, *values: T) -> T:
        """Draw one of *values*."""
        return self.draw(st.sampled_from(values))

    # --- trees -----------------------------------------------------------------------------------

    def program(self, tree: ModelTree, *, least: int = 0, most: int = 8) -> list[Operation]:
        """Draw operations that suit *tree*, and do them on it."""
        return [operation for operation, _ in self._program(tree, least, most)]

    def _program(
        self, tree: ModelTree, least: int, most: int
    ) -> list[tuple[Operation, frozenset[int]]]:
        count = self.draw(st.integers(least, most))
        made = []
        for _ in range(count):
            operation = self.draw(operations(tree))
            made.append((operation, tree.act(operation)))
        return made

    def edit(self, key: str, tree: ModelTree, *, least: int = 0, most: int = 8) -> list[Operation]:
        """Draw operations and do them on the active snapshot *key* and on its model *tree*.

        Each must end alike; afterwards the snapshot must show what the model says.
        """
        program = self._program(tree, least, most)
        if program:
            done = self.subject.perform(key, *(operation for operation, _ in program))
            for (operation, allowed), number in zip(program, done, strict=True):
                assert_outcome(operation, allowed, number)
        assert_model(tree, self.subject.tree(key), repr(key))
        return [operation for operation, _ in program]

    def layer(
        self,
        name: str,
        parent: str | None = None,
        above: ModelTree | None = None,
        *,
        least: int = 1,
        most: int = 8,
    ) -> ModelTree:
        """Make a committed layer called *name* by a drawn program; returns its model.

        *above* is the model of the parent.
        """
        key = f"{name}-key"
        self.subject.prepare(key, parent)
        tree = above.child() if above else ModelTree(self.subject.traits)
        self.edit(key, tree, least=least, most=most)
        self.subject.commit(name, key)
        return tree

    def chain(
        self, *, least: int = 1, most: int = 3, operations: int = 6
    ) -> tuple[str, list[ModelTree]]:
        """Make a chain of committed layers ``layer1``, …; returns the last one's name and the
        models of all, the base's first."""
        count = self.draw(st.integers(least, most))
        trees: list[ModelTree] = []
        for number in range(1, count + 1):
            parent = f"layer{number - 1}" if number > 1 else None
            above = trees[-1] if trees else None
            trees.append(self.layer(f"layer{number}", parent, above, most=operations))
        return f"layer{count}", trees

    def shows(self, key: str, tree: ModelTree) -> None:
        """*key* must show what *tree* says."""
        assert_model(tree, self.subject.tree(key), repr(key))


def assert_outcome(operation: Operation, allowed: frozenset[int], number: int) -> None:
    """Raise AssertionError unless an operation ended with one of the errnos that it must fail
    with, or succeeded if there are none."""
    said = errno.errorcode.get(number, str(number)) if number else "success"
    if (number in allowed) if allowed else number == 0:
        return
    wanted = " or ".join(sorted(errno.errorcode[one] for one in allowed)) or "success"
    raise AssertionError(f"{operation!r} ended with {said}, expected {wanted}")


__all__ = ["Case", "assert_outcome"]
