"""What was renamed since a tree was copied, though no file in it shows that anything happened.

All files have the same size and time, and all times are set back: only the status change times
tell, and those only of what a file system counts as changed by a renaming.
"""

from __future__ import annotations

import io
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowage.layers import compare
from stowage.layers.context import file_system_clock
from stowage.layers.diff import compare_changes, pack_comparison
from stowage.linux.files import RENAME_EXCHANGE, renameat2
from stowage.model import Change, ChangeKind

from .archives import root_of, unpack_into
from .trees import Model, build, differences, directory, file, observe

pytestmark = pytest.mark.requires_root

MTIME_NS = 1_600_000_000_000_000_000


class Copied(NamedTuple):
    """A tree, its copy, and the time when they were equal."""

    parent: Path
    child: Path
    sealed_ns: int


@contextmanager
def copied(base: Path, model: Model) -> Iterator[Copied]:
    with tempfile.TemporaryDirectory(dir=base) as place:
        parent, child = Path(place, "parent"), Path(place, "child")
        parent.mkdir()
        build(parent, model)
        subprocess.run(["cp", "-a", parent, child], check=True)
        made_ns = time.time_ns()
        while (sealed_ns := file_system_clock()) <= made_ns:
            time.sleep(0.001)  # else all of it seems to have changed just now
        yield Copied(parent, child, sealed_ns)


def settle(tree: Path) -> None:
    """Set the modification times back, where they changed."""
    for above, _, names in os.walk(tree):
        for path in [above, *(os.path.join(above, name) for name in names)]:
            if os.stat(path).st_mtime_ns != MTIME_NS:
                os.utime(path, ns=(0, MTIME_NS))


def applied(trees: Copied) -> list[str]:
    """What still differs when the diff has been applied to the parent."""
    out = io.BytesIO()
    with root_of(trees.parent) as parent, root_of(trees.child) as child:
        pack_comparison(parent, child, out, sealed_ns=trees.sealed_ns)
    unpack_into(trees.parent, out.getvalue())
    return differences(observe(trees.parent), observe(trees.child))


VERSIONS: Model = {
    b"": directory(), b"app": directory(), b"app/v1": directory(), b"app/v1/etc": directory(),
    b"app/v1/etc/conf": file(b"AAAA"), b"app/v2": directory(), b"app/v2/etc": directory(),
    b"app/v2/etc/conf": file(b"BBBB"),
}  # fmt: skip


def test_a_directory_in_the_place_of_another_takes_its_files_along(disk_dir: Path) -> None:
    with copied(disk_dir, VERSIONS) as trees:
        app = trees.child / "app"
        (app / "v1").rename(app / "old")
        (app / "v2").rename(app / "v1")
        settle(trees.child)

        assert applied(trees) == []
        assert (trees.parent / "app/v1/etc/conf").read_bytes() == b"BBBB"


@pytest.mark.parametrize("what", ["v1", "v1/etc", "v1/etc/conf"])
def test_names_that_were_exchanged_are_changes(disk_dir: Path, what: str) -> None:
    """On xfs not even the two that change places get another ctime."""
    with copied(disk_dir, VERSIONS) as trees:
        app = trees.child / "app"
        one, other = os.fsencode(app / what), os.fsencode(app / what.replace("v1", "v2"))
        renameat2(-1, one, -1, other, RENAME_EXCHANGE)
        settle(trees.child)
        with root_of(trees.parent) as parent, root_of(trees.child) as child:
            said = list(compare_changes(parent, child, sealed_ns=trees.sealed_ns))

        conf = Change(b"/app/v1/etc/conf", ChangeKind.MODIFIED)
        assert conf in said
        assert applied(trees) == []


def test_no_contents_are_read_beneath_what_nobody_touched(
    shm_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[bytes] = []

    def same_file(new: int, old: int, name: bytes) -> bool:
        read.append(name)
        return True

    monkeypatch.setattr(compare, "_same_file", same_file)
    model = VERSIONS | {b"var": directory(), b"var/log": directory(), b"var/log/old": file(b"x")}
    with copied(shm_dir, model) as trees:
        (trees.child / "var/log/new").touch()
        with root_of(trees.parent) as parent, root_of(trees.child) as child:
            list(compare_changes(parent, child, sealed_ns=trees.sealed_ns))

    assert read == [b"old"]


# --- anything ---------------------------------------------------------------------------------

DIRECTORIES = ["a", "b", "a/c", "b/c"]
PATHS = st.sampled_from(
    [*DIRECTORIES, *(f"{above}/{name}" for above in DIRECTORIES for name in "fg")]
)
CONTENTS = st.sampled_from([b"AAAA", b"BBBB"])


@st.composite
def twins(draw: st.DrawFn) -> Model:
    """Directories that hold much the same names; files that stat(2) cannot tell apart."""
    model: Model = {b"": directory()}
    for path in DIRECTORIES:
        above = path.encode()
        model[above] = directory()
        model[above + b"/f"] = file(draw(CONTENTS))
        if draw(st.booleans()):
            model[above + b"/g"] = file(draw(CONTENTS))
    return model


TOPS = st.sampled_from(DIRECTORIES)
STEPS = st.one_of(
    st.tuples(st.just("exchange"), TOPS, TOPS, CONTENTS),
    st.tuples(st.just("rename"), TOPS, st.sampled_from(["new", "a/new", *DIRECTORIES]), CONTENTS),
    st.tuples(
        st.sampled_from(["rename", "exchange", "link", "unlink", "write", "make"]),
        PATHS,
        PATHS,
        CONTENTS,
    ),
)


def take(step: tuple[str, str, str, bytes], tree: Path) -> None:
    """Do what a process could; what cannot be done is left."""
    verb, first, second, content = step
    one, other = tree / first, tree / second
    try:
        if verb == "rename":
            one.rename(other)
        elif verb == "exchange":
            renameat2(-1, os.fsencode(one), -1, os.fsencode(other), RENAME_EXCHANGE)
        elif verb == "link":
            os.link(one, other)
        elif verb == "unlink":
            one.unlink()
        elif verb == "write":
            one.write_bytes(content)
        else:
            one.mkdir()
    except OSError:
        pass


@given(model=twins(), steps=st.lists(STEPS, min_size=1, max_size=6))
def test_whatever_is_renamed_the_diff_turns_the_parent_into_the_child(
    session_dir: Path, model: Model, steps: list[tuple[str, str, str, bytes]]
) -> None:
    with copied(session_dir, model) as trees:
        for step in steps:
            take(step, trees.child)
        settle(trees.child)

        assert applied(trees) == []
