"""D: diff and apply, between snapshots of one driver."""

from __future__ import annotations

import io

from hypothesis import strategies as st

from ....model import ChangeKind
from ..archives import WHITEOUT, names_in, rearranged
from ..case import Case
from ..model import ModelTree
from ..operations import Create, Operation, Utime, Write
from ..registry import prop
from ..tree import COMPARED, Tree


def _changed_layer(case: Case, *, most: int = 10) -> tuple[str | None, ModelTree, ModelTree]:
    """Make a committed ``changed`` on a drawn chain, or on nothing; returns its parent's name,
    and the models of both."""
    parent, above = None, ModelTree(case.subject.traits)
    if case.maybe():
        parent, trees = case.chain(most=2)
        above = trees[-1]
    tree = case.layer("changed", parent, above if parent else None, least=0, most=most)
    return parent, above, tree


@prop("D1", "What a snapshot changed, applied to another child of its parent, makes it the same")
def roundtrip(case: Case) -> None:
    subject = case.subject
    parent, _, tree = _changed_layer(case)
    subject.prepare("copy", parent)

    subject.apply_diff("copy", of="changed")

    case.shows("copy", tree)
    subject.same("copy", "changed")


@prop(
    "D2",
    "A diff holds only what changed and the directories above it; of no change, nothing",
)
def diff_minimal(case: Case) -> None:
    subject = case.subject
    name, trees = case.chain(most=2)
    subject.prepare("same", name)
    subject.tree("same")

    assert subject.changes("same") == [], f"changed, though nothing was: {subject.changes('same')}"
    assert names_in(subject.diff("same")) == [], "the diff of no change is not empty"
    tree = trees[-1].child()
    program = case.edit("same", tree, least=1)
    allowed = _touched(program, trees[-1], tree)
    extra = {name for name in _paths_in(subject.diff("same")) if name not in allowed}
    assert not extra, f"in the diff, though nothing touched them: {sorted(extra)}"


def _touched(program: list[Operation], before: ModelTree, after: ModelTree) -> set[bytes]:
    """The paths that a program names, what lies above them, and below what it renames; a file
    counts by each of its names."""
    named: set[bytes] = set()
    for operation in program:
        named |= {operation.path}
        named |= {value for field in ("target", "source")
                  if isinstance(value := getattr(operation, field, None), bytes)}  # fmt: skip
    paths = before.inodes.keys() | after.inodes.keys()
    below = {path for path in paths for name in named if name and path.startswith(name + b"/")}
    for tree in (before, after):
        ids = {id(tree.inodes[path]) for path in named | below if path in tree.inodes}
        below |= {path for path, inode in tree.inodes.items() if id(inode) in ids}
    every = named | below
    for path in list(every):
        parts = path.split(b"/")
        every |= {b"/".join(parts[:depth]) for depth in range(len(parts))}
    return every


def _paths_in(archive: bytes) -> set[bytes]:
    """What the members of an archive are about; a whiteout is about what it says is gone."""
    found = set()
    for name in names_in(archive):
        above, slash, base = name.rpartition("/")
        if base.startswith(".wh..wh."):
            found.add(above)
        else:
            found.add(f"{above}{slash}{base.removeprefix(WHITEOUT)}")
    return {name.encode("utf-8", "surrogateescape") for name in found} - {b"."}


@prop(
    "D3",
    "Changes say what was added, modified and deleted; mounted or not, and as the diff",
)
def changes_agree(case: Case) -> None:
    subject = case.subject
    name, trees = case.chain(most=2)
    parent = trees[-1]
    subject.prepare("key", name)
    tree = parent.child()
    program = case.edit("key", tree)

    with subject.attached("key", read_only=True) as root:
        mounted = list(subject.layers.changes("key", root=root))
    said = subject.changes("key")

    assert mounted == said, f"mounted {mounted}, unmounted {said}"
    seen = {change.path.lstrip(b"/"): change.kind for change in said}
    assert len(seen) == len(said), f"a path is there twice: {said}"
    must = _changes(parent.frozen(), tree.frozen())
    missing = {path: kind.name for path, kind in must.items() if seen.get(path) is not kind}
    assert not missing, f"not said as {missing}: {said}"
    touched = _touched(program, parent, tree)
    wrong = [path for path, kind in seen.items() if path not in must
             and not (kind is ChangeKind.MODIFIED and path in touched)
             and not (kind is ChangeKind.DELETED and path not in tree.inodes)]  # fmt: skip
    assert not wrong, f"said to have changed: {wrong}"
    archived = _paths_in(subject.diff("key"))
    lost = {path for path, kind in seen.items() if kind is not ChangeKind.DELETED} - archived
    assert not lost, f"changed, and not in the diff: {lost}"


def _changes(before: Tree, after: Tree) -> dict[bytes, ChangeKind]:
    """What must be said: of what is deleted, the topmost. The root is no entry."""
    found = {}
    for path in before.keys() | after.keys():
        if not path:
            continue
        above = path.rpartition(b"/")[0]
        if path not in before:
            found[path] = ChangeKind.ADDED
        elif path in after:
            fields = [field for field in COMPARED if field != "group"]
            if any(getattr(before[path], f) != getattr(after[path], f) for f in fields):
                found[path] = ChangeKind.MODIFIED
        elif above in after and after[above].kind == "directory":
            found[path] = ChangeKind.DELETED
    return found


@prop("D4", "A change of the same size in the same second, or nanosecond, is in the diff")
def subsecond(case: Case) -> None:
    subject = case.subject
    second = case.one_of(0, 1, 1_700_000_000) * 10**9
    nanoseconds = case.draw(st.integers(0, 999_999_999))
    later = case.one_of(nanoseconds, (nanoseconds + 1) % 10**9)
    subject.prepare("work")
    subject.done("work", Create(b"file", b"before"), Utime(b"file", second + nanoseconds))
    subject.done("work", Create(b"other", b"before"), Utime(b"other", second + nanoseconds))
    subject.commit("layer", "work")
    subject.prepare("key", "layer")
    subject.done("key", Write(b"file", b"after!"), Utime(b"file", second + later))

    paths = {change.path for change in subject.changes("key")}
    assert paths == {b"/file"}, f"changed: {paths}"
    subject.commit("changed", "key")
    subject.prepare("copy", "layer")
    subject.apply_diff("copy", of="changed")
    subject.same("copy", "changed")


@prop("D5", "The size that a diff is said to have is its length, and what applying it says")
def diffsize_agrees(case: Case) -> None:
    subject = case.subject
    parent, _, _ = _changed_layer(case)
    out = io.BytesIO()
    packed = subject.layers.diff("changed", out)
    subject.prepare("copy", parent)
    unpacked = subject.layers.apply("copy", io.BytesIO(out.getvalue()))

    length = len(out.getvalue())
    assert (packed.size_bytes, unpacked.size_bytes) == (length, length)
    assert packed.entries == unpacked.entries, f"{packed.entries} packed, {unpacked.entries} not"
    assert packed.diff_id == unpacked.diff_id, "packing and unpacking give different diffIDs"


@prop("D6", "The order of the members of an archive, marks and parents included, changes nothing")
def order_insensitive(case: Case) -> None:
    subject = case.subject
    parent, _, tree = _changed_layer(case)
    archive = subject.diff("changed")
    order = case.draw(st.permutations(range(len(names_in(archive)))))
    subject.prepare("copy", parent)

    subject.apply("copy", rearranged(archive, order))

    case.shows("copy", tree)


@prop("D10", "A diff is the same bytes each time, also after the root was opened anew")
def deterministic(case: Case) -> None:
    subject = case.subject
    _changed_layer(case)
    first = subject.diff("changed")
    assert subject.diff("changed") == first, "the second diff differs from the first"
    subject.tree("changed")  # reading it moves times of access, which no diff may hold
    subject.reopen()
    assert subject.diff("changed") == first, "the diff after reopening differs"


@prop("D9", "A layer that came as an archive is given back byte for byte")
def exact_replay(case: Case) -> None:
    subject = case.subject
    parent, _, tree = _changed_layer(case)
    archive = subject.diff("changed")
    if case.maybe():  # with whatever padding
        archive += bytes(512 * case.draw(st.integers(0, 30)))
    added = subject.add_layer(archive, parent)

    assert subject.export(added.name) == archive, "the archive is not what it was"
    case.shows(added.name, tree)
