"""Changes by transaction, against the core's own comparison of two whole trees."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stowage.layers.diff import compare_changes, pack_comparison
from stowage.linux.files import RENAME_EXCHANGE, renameat2
from stowage.testing.conform import Create, Link, Mkdir, ModelTree, Rename, Subject, Unlink, Write
from stowage.testing.conform.strategies import operations

EXAMPLES = 400 if os.environ.get("STOWAGE_TEST_PROFILE") == "full" else 15


def assert_as_compared(subject: Subject, parent: str, child: str) -> None:
    """What the driver's candidates give must be what a walk over both whole trees gives."""
    with (
        subject.attached(parent, read_only=True) as before,
        subject.attached(child, read_only=True) as now,
    ):
        naive = sorted(compare_changes(before, now, sealed_ns=None))
        archive = io.BytesIO()
        pack_comparison(before, now, archive, sealed_ns=None)
    assert subject.changes(child) == naive
    written = io.BytesIO()
    subject.layers.diff(child, written)
    assert written.getvalue() == archive.getvalue()


def candidates(subject: Subject, child: int, parent: int) -> list[bytes]:
    root = subject.storage_root
    found = subject.handle.changes(root / str(child), [root / str(parent)])
    assert found is not None, "the core is told to walk"
    return [change.path for change in found]


@settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
@given(data=st.data())
def test_any_program_gives_the_changes_of_a_walk(disk: Path, data: st.DataObject) -> None:
    with Subject.open("btrfs", on=disk) as subject:
        tree = ModelTree(subject.traits)
        for name, parent in (("one", None), ("two", "one"), ("three", "two")):
            subject.prepare(f"{name}-key", parent)
            program = []
            for _ in range(data.draw(st.integers(1, 12))):
                operation = data.draw(operations(tree))
                tree.act(operation)
                program.append(operation)
            subject.perform(f"{name}-key", *program)
            if parent is not None:
                assert_as_compared(subject, parent, f"{name}-key")
            subject.commit(name, f"{name}-key")
            if parent is not None:
                assert_as_compared(subject, parent, name)
            tree = tree.child()


@pytest.fixture
def family(subject: Subject) -> Subject:
    """A parent with two full directories, and its untouched child; snapshots 1 and 2."""
    subject.prepare("base")
    for name in (b"d", b"e"):
        subject.done("base", Mkdir(name), Mkdir(name + b"/sub"))
        subject.done("base", *(Create(name + b"/sub/%d" % n, b"text") for n in range(200)))
    subject.done("base", Link(b"outside", source=b"d/sub/7"), Create(b"d/sub/only"))
    subject.commit("parent", "base")
    subject.prepare("child", "parent")
    return subject


def test_only_what_was_written_is_looked_at(family: Subject) -> None:
    family.done("child", Write(b"d/sub/5", b"new"))

    assert candidates(family, 2, 1) == [b"/d/sub/5"]


def test_an_untouched_child_has_no_candidates(family: Subject) -> None:
    assert candidates(family, 2, 1) == []


def test_a_renamed_directory_is_new_with_all_beneath(family: Subject) -> None:
    """Its files' inodes stay unwritten, and a link to one of them elsewhere is a change, too."""
    family.done("child", Rename(b"d", b"moved"))

    assert b"/outside" in candidates(family, 2, 1)
    assert_as_compared(family, "parent", "child")


def test_two_directories_that_changed_places_are_looked_through(family: Subject) -> None:
    family.done("child", Unlink(b"e/sub/3"))
    with family.attached("child") as root:
        renameat2(root, b"d", root, b"e", RENAME_EXCHANGE)

    assert {b"/d/sub/3", b"/d/sub/only", b"/e/sub/only"} <= set(candidates(family, 2, 1))
    assert_as_compared(family, "parent", "child")


def test_a_path_too_long_to_be_told_is_walked_to(family: Subject) -> None:
    with family.attached("child") as root:
        depth = os.dup(root)
        for _ in range(20):
            os.mkdir("n" * 250, dir_fd=depth)
            below = os.open("n" * 250, os.O_RDONLY, dir_fd=depth)
            os.close(depth)
            depth = below
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=depth))
        os.close(depth)

    assert len(family.changes("child")) == 21
