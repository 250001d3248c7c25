"""Diffs of full trees: what they say is what it takes to turn one into the other."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given

from stowage.layers.diff import compare_changes, pack_comparison
from stowage.layers.tree import Tree
from stowage.layers.unpack import unpack
from stowage.model import Change, ChangeKind

from .trees import Model, build, differences, models, observe

pytestmark = pytest.mark.requires_root


@contextmanager
def opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def trees(base: Path, *several: Model, last_backwards: bool = False) -> Iterator[list[Path]]:
    """Each model as a directory of its own, gone in the end."""
    with tempfile.TemporaryDirectory(dir=base) as place:
        paths = []
        for number, model in enumerate(several):
            path = Path(place) / str(number)
            path.mkdir()
            last = number == len(several) - 1
            build(path, model, backwards=last and last_backwards)
            paths.append(path)
        yield paths


def diff(before: Path | None, after: Path, sealed_ns: int | None = None) -> bytes:
    out = io.BytesIO()
    with opened(after) as child:
        if before is None:
            pack_comparison(None, child, out, sealed_ns=sealed_ns)
        else:
            with opened(before) as parent:
                pack_comparison(parent, child, out, sealed_ns=sealed_ns)
    return out.getvalue()


def apply(archive: bytes, path: Path) -> None:
    with opened(path) as root:
        unpack(io.BytesIO(archive), Tree(root))


@given(models(), models())
def test_a_diff_turns_one_tree_into_the_other(
    session_dir: Path, before: Model, after: Model
) -> None:
    """D1: apply(diff(A → B), A) is B in everything that stat, xattrs, holes and contents show."""
    with trees(session_dir, before, after) as (one, other):
        apply(diff(one, other), one)

        assert differences(observe(one), observe(other)) == []


@given(models())
def test_a_diff_from_nothing_makes_the_tree_again(session_dir: Path, model: Model) -> None:
    with trees(session_dir, model, {}) as (one, empty):
        apply(diff(None, one), empty)

        assert differences(observe(empty), observe(one)) == []


@given(models())
def test_equal_trees_differ_in_nothing(session_dir: Path, model: Model) -> None:
    """D2: no entry at all, contents compared."""
    with trees(session_dir, model, model) as (one, other):
        assert diff(one, other) == bytes(1024)


@given(models(), models())
def test_a_diff_is_the_same_twice_and_for_equal_trees(
    session_dir: Path, before: Model, after: Model
) -> None:
    """D10: not a byte hangs on inode numbers, the clock or the order of directories."""
    with trees(session_dir, before, after, after, last_backwards=True) as (one, other, again):
        assert diff(one, other) == diff(one, other) == diff(one, again)


@given(models(), models())
def test_changes_name_what_differs(session_dir: Path, before: Model, after: Model) -> None:
    """D3, against a reference that compares two observations."""
    with trees(session_dir, before, after) as (one, other):
        old, new = observe(one), observe(other)
        with opened(one) as parent, opened(other) as child:
            said = list(compare_changes(parent, child, sealed_ns=None))

    expected: dict[bytes, ChangeKind] = {}
    for path in old.keys() - new.keys():
        above = [path[:at] for at, byte in enumerate(path) if byte == ord("/")]
        if all(part in new and new[part].kind == old[part].kind for part in above):
            expected[path] = ChangeKind.DELETED
    for path, seen in new.items():
        if path not in old:
            expected[path] = ChangeKind.ADDED
        elif seen != old[path]:
            expected[path] = ChangeKind.MODIFIED
    linked = {path for path in new if _group(new, path) != _group(old, path)}
    for path in linked & old.keys() & new.keys():
        expected[path] = ChangeKind.MODIFIED
    for path in [*expected]:
        while path := path.rpartition(b"/")[0]:
            expected.setdefault(path, ChangeKind.MODIFIED)
    expected.pop(b"", None)
    assert said == [Change(b"/" + path, kind) for path, kind in sorted(expected.items())]


def _group(tree: dict, path: bytes) -> set[bytes]:  # type: ignore[type-arg]  # of observe()
    if path not in tree or not tree[path].links:
        return {path}
    return {other for other, seen in tree.items() if seen.links == tree[path].links}
