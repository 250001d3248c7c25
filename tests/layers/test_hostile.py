"""No archive reads, makes or changes anything outside its root (D12), in whatever order it goes."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stowage.errors import InvalidArchive, StowageError
from stowage.layers.diff import pack_tree, tree_changes
from stowage.layers.tree import Tree, open_directory
from stowage.layers.unpack import UnpackLimits, unpack
from stowage.model import WhiteoutForm

from .archives import Entry, archive, folder, hard, root_of, sym, unpack_into
from .trees import observe

pytestmark = pytest.mark.requires_root

SECRET = b"what nobody inside may see"


@contextmanager
def besieged(base: Path) -> Iterator[tuple[Path, Path]]:
    """A root with something precious beside it; both are gone in the end."""
    with tempfile.TemporaryDirectory(dir=base) as place:
        root, outside = Path(place, "root"), Path(place, "outside")
        root.mkdir()
        (outside / "dir").mkdir(parents=True)
        (outside / "secret").write_bytes(SECRET)
        (outside / "dir/inner").write_bytes(SECRET)
        yield root, outside


def leaked(root: Path, outside: Path) -> list[str]:
    """Where something of the outside shows inside."""
    inodes = {(outside / name).stat().st_ino for name in ("secret", "dir/inner")}
    found = []
    for above, _, names in os.walk(os.fsencode(root)):
        for name in names:
            path = os.path.join(above, name)
            status = os.lstat(path)
            regular = os.path.isfile(path) and not os.path.islink(path)
            if status.st_ino in inodes or (
                regular and SECRET in Path(os.fsdecode(path)).read_bytes()
            ):
                found.append(repr(path))
    return found


GOOD = [
    b"a", b"a/b", b"a/b/c", b"b", b"l", b"l/x", b"l/secret", b"l/dir/inner", b"l/l/x", b"m/secret",
    b"/a", b"a/./b", b"./l/new", b"//a//b", b"m/x", b".wh.l", b"l/.wh.secret", b"l/.wh.dir",
    b"l/.wh..wh..opq", b"a/.wh..wh..opq", b".wh..wh..opq", b".wh.a", b".wh..wh.plnk/1", b"a/.wh.b",
]  # fmt: skip
BAD = [
    b"../outside/secret", b"../outside/new", b"/../outside/new", b"a/../../outside/new", b"..",
    b"./../outside/new", b"a/..", b".", b"", b"/", b"./", b".wh..", b".wh...", b".wh.",
    b"../outside/.wh.secret", b".wh.x/y",
]  # fmt: skip
TARGETS = [
    b"..", b"../outside", b"../outside/secret", b"/", b"/outside/secret", b"/proc/self/root",
    b"/proc/self/cwd", b"/proc/self/fd/3", b"a", b"b", b"l", b"m", b".", b"a/b", b"l/secret",
    b"l/../outside/secret", b"/../outside/secret", b"../../../../../../../../etc/passwd",
    b"a/../../outside/secret", b"m/../..", b"x" * 4000,
]  # fmt: skip
KINDS = [tarfile.REGTYPE, tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.SYMTYPE,
         tarfile.LNKTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]  # fmt: skip


@st.composite
def sieges(draw: st.DrawFn, outside: str) -> list[Entry]:
    """Entries in any order; the targets include the true path of what lies outside."""
    true = os.fsencode(outside)
    ways_out = st.sampled_from([b"../outside", true, b"../outside/dir", true + b"/secret"])
    targets = st.one_of(ways_out, ways_out, st.sampled_from(TARGETS))
    busy = st.sampled_from([b"l", b"l", b"l/new", b"l/secret", b"l/dir/inner", b"a"])
    names = st.one_of(*[busy] * 6, *[st.sampled_from(GOOD)] * 6, st.sampled_from(BAD))
    return draw(
        st.lists(
            st.builds(
                Entry,
                names,
                st.sampled_from(KINDS),
                mode=st.sampled_from([0o777, 0o4755]),
                uid=st.just(1234),
                link=targets,
                device=st.sampled_from([(1, 3), (0, 0)]),
            ),
            min_size=1,
            max_size=9,
        )
    )


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.parametrize("layered", [False, True])
def test_nothing_outside_is_touched_by_any_order_of_entries(
    session_dir: Path, layered: bool, data: st.DataObject
) -> None:
    with besieged(session_dir) as (root, outside):
        before = observe(outside)
        entries = data.draw(sieges(str(outside)))
        with root_of(root) as descriptor:
            tree = Tree(descriptor)
            if layered:
                lower = Path(root.parent, "lower")
                lower.mkdir()
                (lower / "l").symlink_to(data.draw(st.sampled_from([str(outside), "../outside"])))
                (lower / "m").symlink_to("/")
                tree = Tree(
                    descriptor, WhiteoutForm.OVERLAY, "trusted.overlay.",
                    lower=lambda: os.open(lower, os.O_RDONLY | os.O_DIRECTORY),
                )  # fmt: skip
            try:
                unpack(io.BytesIO(archive(entries)), tree)
            except StowageError:
                pass
            if layered:
                list(tree_changes(tree))
                pack_tree(tree, io.BytesIO())

        assert observe(outside) == before
        assert leaked(root, outside) == []


@pytest.mark.parametrize(
    "entries",
    [
        [sym(b"l", b"../outside"), Entry(b"l/new")],
        [folder(b"l"), Entry(b"l/a"), sym(b"l", b"../outside"), Entry(b"l/new")],
        [sym(b"l", b"/proc/self/root"), Entry(b"l/new")],
        [sym(b"a", b"b"), sym(b"b", b"../outside"), Entry(b"a/new"), folder(b"a/dir", 0o777)],
        [sym(b"l", b"../outside/secret"), Entry(b"l", data=b"over it")],
        [sym(b"l", b"../outside/dir"), folder(b"l", 0o777)],
        [folder(b"d"), sym(b"d/up", b".."), sym(b"l", b"d/up/../../outside"), Entry(b"l/new")],
    ],
)
def test_known_ways_out_end_inside(session_dir: Path, entries: list[Entry]) -> None:
    with besieged(session_dir) as (root, outside):
        before = observe(outside)
        unpack_into(root, entries)

        assert observe(outside) == before
        assert leaked(root, outside) == []


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([Entry(b"../x")], "out of itself"),
        ([Entry(b"a/../../x")], "out of itself"),
        ([hard(b"h", b"../outside/secret")], "out of itself"),
        ([hard(b"h", b"/outside/secret")], "is no file"),
        ([sym(b"l", b"../outside"), hard(b"h", b"l/secret")], "is no file"),
        ([folder(b"d"), hard(b"h", b"d")], "is no file"),
        ([Entry(b"x"), hard(b"x/y", b"x")], "/x/y is a hard link to what it lies in"),
        ([Entry(b"x"), hard(b"x/d/y", b"x")], "/x/d/y is a hard link to what it lies in"),
        ([Entry(b"x"), sym(b"l", b"x"), hard(b"l/y", b"x")], "/l/y is a hard link to what it"),
        ([Entry(b"zero", tarfile.CHRTYPE, device=(0, 0))], "0:0"),
        ([Entry(b".wh.")], "whiteout of nothing"),
        ([Entry(b"d/.wh...")], "whiteout of nothing"),
        ([Entry(b".wh.d/f")], "lies in a whiteout"),
        ([sym(b"a", b"b"), sym(b"b", b"a"), Entry(b"a/f")], "in a circle"),
        ([Entry(b"n" * 300)], "cannot be unpacked"),
        ([Entry(b"", data=b"x")], "something else than a directory"),
        ([Entry(b"f", uid=0xFFFFFFFF)], "out of range"),
    ],
)
def test_what_cannot_be_is_refused_by_name(shm_dir: Path, entries: list[Entry], said: str) -> None:
    with pytest.raises(InvalidArchive) as caught:
        unpack_into(shm_dir, entries)

    assert said in str(caught.value)


def test_endless_symlinks_cost_no_endless_time(shm_dir: Path) -> None:
    """40 links of 4,000 bytes of ``d/../`` each would be 32,000 steps."""
    chain = [folder(b"d")]
    for number in range(39):
        chain.append(sym(b"l%d" % number, b"d/../" * 780 + b"l%d" % (number + 1)))
    chain += [folder(b"l39"), Entry(b"l0/f")]

    with pytest.raises(InvalidArchive, match="too long"):
        unpack_into(shm_dir, chain, UnpackLimits())


def test_a_directory_swapped_for_a_symlink_under_a_walk_is_not_followed(shm_dir: Path) -> None:
    """A container may still run while its changes are read: the walk meets a symlink, and stops."""
    (shm_dir / "root/d").mkdir(parents=True)
    (shm_dir / "outside").mkdir()
    with root_of(shm_dir / "root") as root:
        (shm_dir / "root/d").rmdir()
        (shm_dir / "root/d").symlink_to(shm_dir / "outside")

        with pytest.raises(OSError, match=r"symbolic links|Not a directory"):
            open_directory(root, b"d")
