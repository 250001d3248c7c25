"""D: archives from anywhere: the rules of OCI layers, hostile and broken ones, compressions."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os

import zstandard
from hypothesis import strategies as st

from ....errors import InvalidArchive, StowageError
from ..archives import (
    Member,
    archive,
    directory,
    file,
    hardlink,
    opaque,
    rearranged,
    symlink,
    whiteout,
)
from ..case import Case
from ..footprint import assert_footprint, footprint
from ..model import ModelTree
from ..operations import Create, Mkdir
from ..registry import prop
from ..subject import Subject, assert_same
from ..tree import Tree, observe

_OLD = (
    Mkdir(b"dir"),
    Create(b"dir/old", b"old"),
    Mkdir(b"dir/sub"),
    Create(b"dir/sub/old", b"old"),
    Create(b"other", b"other"),
)


def _based(subject: Subject) -> None:
    """Make a layer ``base`` with things to delete, and an active child ``key`` of it."""
    subject.prepare("work")
    subject.done("work", *_OLD)
    subject.commit("base", "work")
    subject.prepare("key", "base")


def _names(subject: Subject, key: str) -> set[str]:
    return {path.decode() for path in subject.tree(key)} - {""}


@prop("D7", "A mark hides what lies below, never what its own layer brings, in whatever order")
def whiteout_scope(case: Case) -> None:
    subject = case.subject
    _based(subject)
    marks, gone, kept = case.one_of(
        ([whiteout("dir/old")], {"dir/old"}, [file("dir/old", b"new")]),
        ([opaque("dir")], {"dir/old", "dir/sub", "dir/sub/old"}, [file("dir/new", b"new")]),
        ([whiteout("dir")], {"dir/old", "dir/sub", "dir/sub/old"}, [file("dir/new", b"new")]),
        ([opaque("dir/sub"), whiteout("other")], {"dir/sub/old", "other"}, [file("x", b"new")]),
    )
    brought = kept if case.maybe() else []
    members = case.draw(st.permutations([*marks, *brought]))

    subject.apply("key", archive(members))

    expected = ({path.decode() for path in (op.path for op in _OLD)} - gone) | {
        member.name for member in brought
    }
    if marks == [whiteout("dir")] and not brought:
        expected -= {"dir"}
    assert _names(subject, "key") == expected, f"there are {_names(subject, 'key')}"


@prop("D7b", "A mark for what is not there leaves no trace, neither in a base nor in a child")
def whiteout_of_nothing(case: Case) -> None:
    subject = case.subject
    _based(subject)
    subject.prepare("alone")
    key = case.one_of("alone", "key")
    members = [whiteout("new/a/gone"), opaque("new/b"), whiteout("absent"), file("new/c/here")]

    subject.apply(key, archive(case.draw(st.permutations(members))))

    names = _names(subject, key)
    below = {path.decode() for path in (op.path for op in _OLD)} if key == "key" else set()
    assert names - {"new/a", "new/b"} == below | {"new", "new/c", "new/c/here"}, f"there: {names}"
    subject.commit("layer", key)
    subject.same("layer", subject.prepare("child", "layer").name)


@prop("D8", "A directory emptied by a mark for each name or by an opaque mark is the same")
def both_forms(case: Case) -> None:
    subject = case.subject
    _based(subject)
    subject.prepare("other", "base")
    brought = [directory("dir", case.one_of(0o755, 0o700)), file("dir/new", b"new")]
    explicit = [whiteout("dir/old"), whiteout("dir/sub")]

    subject.apply("key", archive([*explicit, *brought]))
    subject.apply("other", archive([opaque("dir"), *brought]))

    ignoring = ("mtime_ns",)  # the root's: nothing in the archives sets it
    subject.same("key", "other", ignoring=ignoring)
    for key in ("key", "other"):
        subject.commit(f"{key}-layer", key)
    subject.same("key-layer", "other-layer", ignoring=ignoring)


def _good() -> bytes:
    return archive([directory("d"), file("d/f", b"content" * 500), symlink("l", "d")])


@prop("D11", "Junk, truncation, flipped bits: a typed error and nothing left, or a sound layer")
def junk_safe(case: Case) -> None:
    subject = case.subject
    good = _good()
    how = case.one_of("junk", "truncated", "flipped", "wrong compression")
    if how == "junk":
        data = case.draw(st.binary(min_size=1, max_size=2000))
    elif how == "truncated":
        data = good[: case.draw(st.integers(0, len(good) - 1024))]
    elif how == "flipped":
        at = case.draw(st.integers(0, len(good) - 1))
        bit = case.draw(st.integers(0, 7))
        data = good[:at] + bytes([good[at] ^ 1 << bit]) + good[at + 1 :]
    else:
        data = gzip.compress(good)[: case.draw(st.integers(1, 100))]
    subject.prepare("first")
    subject.commit("base", "first")
    subject.drain()
    names, before = subject.names(), footprint(subject.root)

    try:
        added = subject.add_layer(data)
    except InvalidArchive:
        pass
    except StowageError as error:
        raise AssertionError(f"{how}: {type(error).__name__}, expected InvalidArchive") from error
    else:
        subject.tree(added.name)
        subject.remove(added.name)

    assert subject.names() == names, f"left: {subject.names()}"
    subject.drain()
    assert_footprint(before, subject.root)


_OUTSIDE = "outside"
_PLACES = ["a", "l", "l/x", "a/b", "../outside/new", "l/secret", "a/l/x", "/abs", "./a/../l/x"]


def _hostile_members(outside: str) -> st.SearchStrategy[Member]:
    names = st.sampled_from([*_PLACES, f"{outside}/new", f"..{outside}/new"])
    targets = st.sampled_from(
        ["/", "..", "../..", "../../..", outside, f"{outside}/secret", "l", "a", "/proc/self/root",
         "l/secret", "../outside", "../outside/secret"]
    )  # fmt: skip
    return st.one_of(
        st.builds(file, names, st.just(b"written")),
        st.builds(directory, names),
        st.builds(symlink, names, targets),
        st.builds(hardlink, names, targets),
        st.builds(whiteout, names),
        st.builds(opaque, names),
    )


@prop("D12", "No archive makes, changes, removes or reads anything outside, whatever its links say")
def no_escape(case: Case) -> None:
    subject = case.subject
    outside = subject.root / _OUTSIDE
    if not outside.exists():
        outside.mkdir()
        (outside / "secret").write_bytes(b"secret")
    before = _look(str(outside))
    members = case.draw(st.lists(_hostile_members(str(outside)), min_size=1, max_size=6))
    parent = None
    if case.maybe():  # the trap may lie in the layer below
        subject.prepare("work")
        subject.apply("work", archive([symlink("l", str(outside)), directory("a")]))
        parent = subject.commit("base", "work").name
    subject.prepare("key", parent)

    try:
        subject.apply("key", archive(members))
    except InvalidArchive:
        pass

    assert_same(before, _look(str(outside)), "what lies outside")
    stolen = [path for path, node in subject.tree("key").items()
              if any(b"secret" in piece for _, piece in node.extents)]  # fmt: skip
    assert not stolen, f"what lies outside was read into {stolen}"
    assert not os.path.lexists("/abs"), "an absolute path was followed"


def _look(path: str) -> Tree:
    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return observe(root)
    finally:
        os.close(root)


@prop("D14", "Two diffs applied one after the other are one diff over both")
def merge_associative(case: Case) -> None:
    subject = case.subject
    first = case.layer("first")
    second = case.layer("second", "first", first)
    third = case.layer("third", "second", second)
    subject.prepare("stepwise", "first")
    subject.prepare("at once", "first")

    subject.apply_diff("stepwise", of="second")
    subject.commit("stepwise 2", "stepwise")
    subject.prepare("stepwise", "stepwise 2")
    subject.apply_diff("stepwise", of="third")
    subject.apply_diff("at once", of="third", parent="first")

    case.shows("stepwise", third)
    case.shows("at once", third)


@prop("D16", "A diff against any ancestor, or against nothing, is as right as against the parent")
def non_parent(case: Case) -> None:
    subject = case.subject
    name, trees = case.chain(least=2, most=4, operations=5)
    number = case.draw(st.integers(0, len(trees) - 1))
    ancestor = f"layer{number}" if number else None
    subject.prepare("copy", ancestor)

    subject.apply_diff("copy", of=name, parent=ancestor)

    case.shows("copy", trees[-1])


def _zstd(data: bytes) -> bytes:
    """Two frames and a skippable one (RFC 8878) between them."""
    half = len(data) // 2
    skippable = b"\x50\x2a\x4d\x18\x04\x00\x00\x00skip"
    pack = zstandard.ZstdCompressor().compress
    return pack(data[:half]) + skippable + pack(data[half:])


@prop("D18", "Plain, gzip of many members, zstd of many frames, xz and bzip2 give the same layer")
def decompress_any(case: Case) -> None:
    subject = case.subject
    tree = case.layer("layer", most=5)
    data = subject.diff("layer")
    half = case.draw(st.integers(0, len(data)))
    packed = case.one_of(
        data,
        gzip.compress(data),
        gzip.compress(data[:half]) + gzip.compress(data[half:]),
        _zstd(data),
        lzma.compress(data),
        bz2.compress(data),
    )
    subject.prepare("plain")
    subject.prepare("copy")

    assert subject.apply("copy", packed) == subject.apply("plain", data), "the diffIDs differ"
    case.shows("copy", tree)


@prop("D15", "A layer unpacked without its parents and given them later is the same",
      needs="rebase")  # fmt: skip
def rebase_equivalent(case: Case) -> None:
    subject = case.subject
    first = case.layer("first")
    second = case.layer("second", "first", first)
    subject.prepare("apart")
    subject.apply_diff("apart", of="second")
    handle = subject.handle

    handle.rebase(subject.directory("apart"), [subject.directory("first")])
    subject.layers._context.metastore.transact(lambda tx: tx.execute(
        "UPDATE snapshots SET parent_id = ? WHERE id = ?",
        (subject.stat("first").id, subject.stat("apart").id),
    ))  # fmt: skip

    case.shows("apart", second)


@prop("D6b", "Members whose parents come late or never find them as the layers below have them")
def late_parents(case: Case) -> None:
    subject = case.subject
    _based(subject)
    members = [
        directory("dir", 0o700, mtime=5),
        file("dir/a/b/c", b"deep"),
        directory("dir/a", 0o711, mtime=7),
        file("dir/sub/new", b"new"),
    ]
    data = archive(members)
    order = case.draw(st.permutations(range(len(members))))

    subject.apply("key", rearranged(data, order))

    seen = subject.tree("key")
    assert (seen[b"dir"].mode, seen[b"dir"].mtime_ns) == (0o700, 5 * 10**9), seen[b"dir"]
    assert (seen[b"dir/a"].mode, seen[b"dir/a"].mtime_ns) == (0o711, 7 * 10**9), seen[b"dir/a"]
    assert seen[b"dir/sub"].mode == 0o755, "a directory that the archive left out has changed"
    assert {b"dir/a/b/c", b"dir/sub/old", b"dir/sub/new", b"dir/old"} <= seen.keys(), sorted(seen)
    case.shows("base", ModelTree(subject.traits).all_of(_OLD))
