"""Whiteouts in every form, against a reference that knows only the rules (D6, D7, D8).

The reference: what a layer deletes it deletes from the lower layers, first; then come its entries,
parents before children. Whatever order the archive has, and in whatever form the tree keeps it, the
merged tree is the reference's.
"""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowage.errors import NotSupported
from stowage.layers.diff import pack_tree, tree_changes
from stowage.layers.tree import Tree
from stowage.layers.unpack import unpack
from stowage.model import ChangeKind, WhiteoutForm

from .archives import MTIME, Entry, archive, folder, hard, root_of
from .trees import Model, Node, build, directory, file, observe

pytestmark = pytest.mark.requires_root

PREFIX = "trusted.overlay."
IMPLIED = directory(mtime_ns=0)


@dataclass(frozen=True)
class Fact:
    """What the reference says of a path."""

    kind: str
    mode: int
    uid: int
    mtime_ns: int
    content: bytes = b""


def reference(lower: Model, entries: list[Entry]) -> dict[bytes, Fact]:
    tree = {path: _fact_of_node(node) for path, node in lower.items()}
    marks = [entry.name for entry in entries if b".wh." in entry.name]
    for mark in marks:
        parent, _, name = mark.rpartition(b"/")
        if tree.get(parent) is None or tree[parent].kind != "dir":
            continue
        if name == b".wh..wh..opq":
            _prune(tree, parent + b"/" if parent else b"")
        else:
            gone = (parent + b"/" if parent else b"") + name.removeprefix(b".wh.")
            tree.pop(gone, None)
            _prune(tree, gone + b"/")
    for entry in sorted(entries, key=lambda entry: entry.name):
        if entry.name in marks:
            continue
        parts = entry.name.split(b"/")
        for depth in range(1, len(parts)):
            above = b"/".join(parts[:depth])
            if above not in tree or tree[above].kind != "dir":
                tree[above] = Fact("dir", 0o755, 0, 0)
        kind = "dir" if entry.type == tarfile.DIRTYPE else "file"
        if kind == "file":
            _prune(tree, entry.name + b"/")
        mtime_ns = int(entry.mtime) * 1_000_000_000
        tree[entry.name] = Fact(kind, entry.mode, entry.uid, mtime_ns, entry.data)
    return tree


def _fact_of_node(node: Node) -> Fact:
    data = node.content[0][1] if node.content else b""
    return Fact(node.kind, node.mode, node.uid, node.mtime_ns, data)


def _prune(tree: dict[bytes, Fact], prefix: bytes) -> None:
    for path in [path for path in tree if path and path.startswith(prefix)]:
        del tree[path]


def facts(root: Path) -> dict[bytes, Fact]:
    found = {}
    for path, seen in observe(root).items():
        full = Path(os.fsdecode(os.path.join(os.fsencode(root), path)))
        is_dir = seen.kind == stat.S_IFDIR
        content = b"" if is_dir else full.read_bytes()
        found[path] = Fact("dir" if is_dir else "file", seen.mode, seen.uid, seen.mtime_ns, content)
    return found


# --- ways to hold a layer, each giving the merged tree ----------------------------------------


@contextmanager
def overlaid(upper: Path, lower: Path) -> Iterator[Path]:
    """The kernel's own view, read-only: nothing of ours decides what a mark means."""
    merged = upper.parent / "merged"
    merged.mkdir()
    options = f"lowerdir={upper}:{lower}"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "o", merged], check=True)
    try:
        yield merged
    finally:
        subprocess.run(["umount", merged], check=True)


def _held(place: Path, lower: Path, raw: bytes, tree: Callable[[int], Tree]) -> Path:
    upper = place / "upper"
    upper.mkdir(exist_ok=True)
    with root_of(upper) as root:
        unpack(io.BytesIO(raw), tree(root))
    return upper


def _opener(path: Path) -> Callable[[], int]:
    return lambda: os.open(path, os.O_RDONLY | os.O_DIRECTORY)


def as_full_tree(place: Path, lower: Path, raw: bytes) -> dict[bytes, Fact]:
    subprocess.run(["cp", "-a", f"{lower}/.", place / "copy"], check=True)
    with root_of(place / "copy") as root:
        unpack(io.BytesIO(raw), Tree(root))
    return facts(place / "copy")


def as_devices(place: Path, lower: Path, raw: bytes) -> dict[bytes, Fact]:
    upper = _held(place, lower, raw, lambda root: Tree(
        root, WhiteoutForm.OVERLAY, PREFIX, lower=_opener(lower)))  # fmt: skip
    with overlaid(upper, lower) as merged:
        return facts(merged)


def as_xattrs(place: Path, lower: Path, raw: bytes) -> dict[bytes, Fact]:
    upper = _held(place, lower, raw, lambda root: Tree(
        root, WhiteoutForm.OVERLAY, PREFIX, True, lower=_opener(lower)))  # fmt: skip
    with overlaid(upper, lower) as merged:
        return facts(merged)


def as_named_files(place: Path, lower: Path, raw: bytes) -> dict[bytes, Fact]:
    upper = _held(place, lower, raw, lambda root: Tree(
        root, WhiteoutForm.OCI, lower=_opener(lower)))  # fmt: skip
    return _union(facts(upper), facts(lower))


def _union(upper: dict[bytes, Fact], lower: dict[bytes, Fact]) -> dict[bytes, Fact]:
    """A branch of aufs over another (aufs(5)): a whiteout hides a name, in its own branch too."""
    merged = {}
    for path, fact in lower.items():
        hidden = False
        parts = path.split(b"/") if path else []
        for depth, name in enumerate(parts):
            above = b"/".join(parts[:depth])
            prefix = above + b"/" if above else b""
            hidden |= prefix + b".wh." + name in upper
            hidden |= prefix + b".wh..wh..opq" in upper
            mine = upper.get(prefix + name)
            hidden |= mine is not None and depth + 1 < len(parts) and mine.kind != "dir"
        if not hidden:
            merged[path] = fact
    for path, fact in upper.items():
        parts = path.split(b"/")
        if any(part.startswith(b".wh.") for part in parts):
            continue
        twin = b"/".join([*parts[:-1], b".wh." + parts[-1]])
        assert twin not in upper, f"{path!r} would be hidden by its own whiteout"
        merged[path] = fact
    return merged


FORMS = [as_full_tree, as_devices, as_xattrs, as_named_files]


# --- strategies -------------------------------------------------------------------------------

NAMES = st.sampled_from([b"a", b"b", b"c"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(b"/".join)


@st.composite
def lowers(draw: st.DrawFn) -> Model:
    model: Model = {b"": directory(mtime_ns=7)}
    for path in draw(st.lists(PATHS, max_size=8)):
        parts = path.split(b"/")
        for depth in range(1, len(parts)):
            above = b"/".join(parts[:depth])
            if model.setdefault(above, directory(0o750, uid=5, mtime_ns=11)).kind != "dir":
                break
        else:
            node = st.sampled_from([file(b"old", uid=6), directory(0o711, uid=4, mtime_ns=13)])
            model.setdefault(path, draw(node))
    return model


@st.composite
def layers(draw: st.DrawFn) -> list[Entry]:
    """Entries without two of one path, none below a file of the same layer; and marks."""
    entries: dict[bytes, Entry] = {}
    for path in draw(st.lists(PATHS, max_size=5, unique=True)):
        parts = path.split(b"/")
        above = [b"/".join(parts[:depth]) for depth in range(1, len(parts))]
        if any(name in entries and entries[name].type != tarfile.DIRTYPE for name in above):
            continue
        if any(other.startswith(path + b"/") for other in entries):
            entries[path] = folder(path, 0o700, uid=9)
        else:
            new = st.sampled_from([Entry(path, data=b"new", uid=8), folder(path, 0o700, uid=9)])
            entries[path] = draw(new)
    for path in draw(st.lists(PATHS, max_size=4, unique=True)):
        parent, _, name = path.rpartition(b"/")
        prefix = parent + b"/" if parent else b""
        if not any(
            prefix[:-1] == other or prefix.startswith(other + b"/")
            for other, entry in entries.items()
            if entry.type != tarfile.DIRTYPE
        ):
            mark = draw(st.sampled_from([b".wh." + name, b".wh." + name, b".wh..wh..opq"]))
            entries[prefix + mark] = Entry(prefix + mark)
    return list(draw(st.permutations(list(entries.values()))))


@pytest.mark.parametrize("form", FORMS)
@given(lower=lowers(), entries=layers())
def test_a_layer_in_any_order_and_form_gives_the_references_tree(
    session_dir: Path,
    form: Callable[[Path, Path, bytes], dict[bytes, Fact]],
    lower: Model,
    entries: list[Entry],
) -> None:
    with tempfile.TemporaryDirectory(dir=session_dir) as name:
        place = Path(name)
        (place / "lower").mkdir()
        (place / "copy").mkdir()
        build(place / "lower", lower)

        merged = form(place, place / "lower", archive(entries))

    assert merged == reference(lower, entries)


@pytest.mark.parametrize("form", FORMS)
@given(lower=lowers(), entries=layers())
def test_explicit_whiteouts_and_opaque_markers_mean_the_same(
    session_dir: Path,
    form: Callable[[Path, Path, bytes], dict[bytes, Fact]],
    lower: Model,
    entries: list[Entry],
) -> None:
    """D8: each opaque marker spelt out as a whiteout of every lower name."""
    spelt: list[Entry] = []
    for entry in entries:
        parent, _, base = entry.name.rpartition(b"/")
        if base != b".wh..wh..opq":
            spelt.append(entry)
            continue
        prefix = parent + b"/" if parent else b""
        for path in lower:
            if path and path.rpartition(b"/")[0] == parent:
                spelt.append(Entry(prefix + b".wh." + path.rpartition(b"/")[2]))
    with tempfile.TemporaryDirectory(dir=session_dir) as name:
        results = []
        for number, variant in enumerate([entries, spelt]):
            place = Path(name, str(number))
            (place / "lower").mkdir(parents=True)
            (place / "copy").mkdir()
            build(place / "lower", lower)
            results.append(form(place, place / "lower", archive(variant)))

    assert results[0] == results[1]


# --- native diff ------------------------------------------------------------------------------


@pytest.mark.parametrize("xattrs", [False, True])
@pytest.mark.parametrize("named", [False, True])
@given(lower=lowers(), entries=layers())
def test_a_trees_own_diff_makes_the_same_tree_again(
    session_dir: Path, xattrs: bool, named: bool, lower: Model, entries: list[Entry]
) -> None:
    """Packing a tree of changes and unpacking it elsewhere loses nothing."""
    with tempfile.TemporaryDirectory(dir=session_dir) as name:
        place = Path(name)
        (place / "lower").mkdir()
        (place / "copy").mkdir()
        build(place / "lower", lower)
        form = WhiteoutForm.OCI if named else WhiteoutForm.OVERLAY
        prefix = "" if named else PREFIX

        def tree(root: int) -> Tree:
            return Tree(root, form, prefix, xattrs, _opener(place / "lower"))

        upper = _held(place, place / "lower", archive(entries), tree)
        out = io.BytesIO()
        with root_of(upper) as root:
            pack_tree(tree(root), out)
            changes = list(tree_changes(tree(root)))

        merged = as_full_tree(place, place / "lower", out.getvalue())
        expected = reference(lower, entries)
    assert merged == expected
    gone = {b"/" + path for path in lower if path not in expected}
    said = {change.path for change in changes if change.kind is ChangeKind.DELETED}
    assert {path for path in gone if _listed(path[1:], expected)} == said
    assert {b"/" + path for path in expected if path not in lower} == {
        change.path for change in changes if change.kind is ChangeKind.ADDED
    }


def _listed(path: bytes, tree: dict[bytes, Fact]) -> bool:
    """What lay in a directory that is gone, or a file now, is not listed one by one."""
    above = tree.get(path.rpartition(b"/")[0])
    return above is not None and above.kind == "dir"


def test_what_a_container_did_on_an_overlay_is_what_its_diff_says(shm_dir: Path) -> None:
    lower, merged = shm_dir / "lower", shm_dir / "merged"
    for name in ("lower", "upper", "work", "merged", "copy"):
        (shm_dir / name).mkdir()
    build(lower, {
        b"": directory(), b"etc": directory(0o750, uid=3), b"etc/passwd": file(b"root"),
        b"etc/old": file(b"old"), b"touched": directory(), b"touched/in": file(b"x"),
        b"again": directory(), b"again/a": file(b"a"), b"again/b": file(b"b"),
        b"again/sub": directory(), b"again/sub/deep": file(b"deep"), b"file": file(b"f"),
    })  # fmt: skip
    options = f"lowerdir={lower},upperdir={shm_dir}/upper,workdir={shm_dir}/work"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "o", merged], check=True)
    try:
        (merged / "etc/passwd").write_text("changed")
        (merged / "etc/old").unlink()
        (merged / "etc/new").write_text("new")
        os.link(merged / "etc/new", merged / "etc/twin")
        with (merged / "touched/in").open("r+"):
            pass  # copied up, and its directory with it, and nothing else
        subprocess.run(["rm", "-r", merged / "again"], check=True)
        (merged / "again/sub").mkdir(parents=True)
        (merged / "again/b").write_text("other")
        (merged / "file").unlink()
        (merged / "file").mkdir()
        expected = observe(merged)
    finally:
        subprocess.run(["umount", merged], check=True)

    out = io.BytesIO()
    with root_of(shm_dir / "upper") as root:
        tree = Tree(root, WhiteoutForm.OVERLAY, PREFIX, lower=_opener(lower))
        changes = {change.path: change.kind.letter for change in tree_changes(tree)}
        pack_tree(tree, out)
    subprocess.run(["cp", "-a", f"{lower}/.", shm_dir / "copy"], check=True)
    with root_of(shm_dir / "copy") as root:
        unpack(io.BytesIO(out.getvalue()), Tree(root))

    assert observe(shm_dir / "copy") == expected
    assert changes == {
        b"/etc": "C", b"/etc/passwd": "C", b"/etc/old": "D", b"/etc/new": "A", b"/etc/twin": "A",
        b"/touched": "C", b"/touched/in": "C", b"/again": "C", b"/again/a": "D",
        b"/again/b": "C", b"/again/sub": "C", b"/again/sub/deep": "D", b"/file": "C",
    }  # fmt: skip


def test_a_hard_link_to_a_lower_file_copies_it_up(shm_dir: Path) -> None:
    for name in ("lower", "upper"):
        (shm_dir / name).mkdir()
    build(shm_dir / "lower", {
        b"": directory(), b"d": directory(0o700, uid=5, mtime_ns=99),
        b"d/f": file(b"content", uid=7, mode=0o4711, xattrs=(("user.k", b"v"),)),
    })  # fmt: skip
    with root_of(shm_dir / "upper") as root:
        tree = Tree(root, WhiteoutForm.OVERLAY, PREFIX, lower=_opener(shm_dir / "lower"))
        unpack(io.BytesIO(archive([hard(b"new", b"d/f")])), tree)

    seen = observe(shm_dir / "upper")
    assert seen[b"new"].links == seen[b"d/f"].links == b"d/f"
    assert (seen[b"d"].mode, seen[b"d"].uid, seen[b"d"].mtime_ns) == (0o700, 5, 99)
    assert seen[b"d/f"] == observe(shm_dir / "lower")[b"d/f"]


def test_a_nested_overlays_own_marks_are_escaped_and_come_back(shm_dir: Path) -> None:
    """Podman in a container: its layers carry marks that the outer overlay must not obey."""
    (shm_dir / "upper").mkdir()
    entry = folder(b"d", pax={"SCHILY.xattr.trusted.overlay.opaque": "y"})
    with root_of(shm_dir / "upper") as root:
        tree = Tree(root, WhiteoutForm.OVERLAY, PREFIX)
        unpack(io.BytesIO(archive([entry])), tree)
        out = io.BytesIO()
        pack_tree(tree, out)

    names = os.listxattr(shm_dir / "upper/d")
    assert names == ["trusted.overlay.overlay.opaque"]
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        assert tar.getmember("d").pax_headers["SCHILY.xattr.trusted.overlay.opaque"] == "y"


@pytest.mark.parametrize("mark", ["metacopy", "redirect"])
def test_a_tree_that_is_not_the_whole_truth_is_refused(shm_dir: Path, mark: str) -> None:
    (shm_dir / "d").mkdir()
    os.setxattr(shm_dir / "d", f"trusted.overlay.{mark}", b"/elsewhere")
    with root_of(shm_dir) as root, pytest.raises(NotSupported, match=mark):
        list(tree_changes(Tree(root, WhiteoutForm.OVERLAY, PREFIX)))


def test_a_name_that_would_mean_a_deletion_cannot_be_packed(shm_dir: Path) -> None:
    (shm_dir / ".wh.passwd").touch()
    with root_of(shm_dir) as root, pytest.raises(NotSupported, match=r"/\.wh\.passwd"):
        pack_tree(Tree(root, WhiteoutForm.OVERLAY, PREFIX), io.BytesIO())


def test_the_marks_of_old_aufs_images_are_passed_over(shm_dir: Path) -> None:
    names = [b".wh..wh.aufs", b".wh..wh.plnk", b".wh..wh.plnk/12.34", b".wh..wh.orph", b"real"]
    with root_of(shm_dir) as root:
        unpack(io.BytesIO(archive([Entry(name, data=b"x" * 600) for name in names])), Tree(root))

    assert os.listdir(shm_dir) == ["real"]
    assert (shm_dir / "real").stat().st_mtime == MTIME
