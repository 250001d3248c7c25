"""The pytest door: a class to inherit, with one test for each property.

::

    from stowage.testing.conform import StorageDriverTests

    class TestMine(StorageDriverTests):
        driver = "mine"

``pytest -k L3`` runs one of them. A test fails with the shrunk program and a script that does it
again; one whose capability the driver does not claim is skipped and says so.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar
from zlib import crc32

import pytest

from .places import place
from .registry import Property, find_properties
from .report import failure_lines
from .runner import Bench, Plan, require_working, run_property


class StorageDriverTests:
    """Inherit it, and name the driver.

    *on* is a directory, or ``ext4``, ``xfs``, ``btrfs`` for a file system made for the tests
    (which takes root); without it, pytest's own temporary directory. *examples* and
    *seconds_each* limit each property; ``STOWAGE_CONFORM_EXAMPLES`` wins over the former, and
    then there is no limit of time. *seed* is fixed, so that a failure comes again. *names* picks
    properties, as ``stowage conform storage --property`` does; without any it is all of them.
    """

    driver: ClassVar[str | type]
    options: ClassVar[Sequence[str]] = ()
    on: ClassVar[str | Path | None] = None
    examples: ClassVar[int] = 10
    seconds_each: ClassVar[float | None] = 2.0
    seed: ClassVar[int] = 1
    names: ClassVar[Sequence[str]] = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.names:
            kept = {one.name for one in find_properties(cls.names)}
            for one in find_properties():
                if one.name not in kept:
                    setattr(cls, f"test_{one.slug}", None)

    @pytest.fixture(scope="class")
    @classmethod
    def bench(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
        """The driver under test, in a place that all tests of the class share."""
        where = cls.on if cls.on is not None else tmp_path_factory.mktemp("conform")
        with place(where) as directory, Bench(cls.driver, directory, cls.options) as bench:
            require_working(bench.subject)
            yield bench

    def _hold(self, one: Property, bench: Bench) -> None:
        asked = os.environ.get("STOWAGE_CONFORM_EXAMPLES")
        plan = Plan(
            int(asked) if asked else self.examples,
            self.seed + crc32(one.name.encode()),
            None if asked else self.seconds_each,
        )
        until = None if plan.seconds is None else time.monotonic() + plan.seconds
        outcome = run_property(one, bench, plan, until)
        if outcome.status == "skipped":
            pytest.skip(f"the driver does not claim it: {outcome.reason}"
                        if outcome.reason.startswith("capability") else outcome.reason)  # fmt: skip
        if outcome.status == "failed":
            pytest.fail("\n".join(failure_lines(outcome)), pytrace=False)


def _test_of(one: Property) -> Callable[[StorageDriverTests, Bench], None]:
    def test(self: StorageDriverTests, bench: Bench) -> None:
        self._hold(one, bench)

    test.__name__ = f"test_{one.slug}"
    test.__qualname__ = f"StorageDriverTests.{test.__name__}"
    test.__doc__ = one.text
    return test


for _one in find_properties():
    setattr(StorageDriverTests, f"test_{_one.slug}", _test_of(_one))

__all__ = ["StorageDriverTests"]
