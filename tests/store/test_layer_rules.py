"""The layer store keeps containerd's state rules: which error, in which state, and what stays."""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from stowage.errors import AlreadyExists, DataLoss, FailedPrecondition, InvalidArgument, NotFound
from stowage.layers.store import LayerStore
from stowage.model import Change, ChangeKind, Kind

pytestmark = pytest.mark.requires_root


def write(layers: LayerStore, key: str, name: str, content: bytes = b"x") -> None:
    with layers.attached(key) as root:
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644, dir_fd=root)
        os.write(descriptor, content)
        os.close(descriptor)


def read(layers: LayerStore, key: str, name: str) -> bytes:
    with layers.attached(key, read_only=True) as root:
        descriptor = os.open(name, os.O_RDONLY, dir_fd=root)
        try:
            return os.read(descriptor, 1 << 16)
        finally:
            os.close(descriptor)


@pytest.fixture
def base(layers: LayerStore) -> LayerStore:
    """A store with one committed snapshot called ``base`` that holds the file ``f``."""
    layers.prepare("work")
    write(layers, "work", "f", b"first")
    layers.commit("base", "work")
    return layers


def test_commit_replaces_the_key_by_the_name(base: LayerStore) -> None:
    info = base.stat("base")

    assert (info.kind, info.parent) == (Kind.COMMITTED, None)
    assert info.usage is not None
    assert info.chain_id == info.diff_id is not None
    with pytest.raises(NotFound):
        base.stat("work")


def test_a_commit_without_a_name_is_named_by_its_chain(base: LayerStore) -> None:
    base.prepare("work", "base")
    write(base, "work", "g")

    info = base.commit(None, "work")

    assert info.name == info.chain_id
    assert info.chain_id != info.diff_id


def test_a_missing_parent_is_not_found_and_leaves_nothing(layers: LayerStore) -> None:
    with pytest.raises(NotFound, match="nobody"):
        layers.prepare("work", "nobody")

    assert list(layers.walk()) == []


def test_a_parent_must_be_committed(layers: LayerStore) -> None:
    layers.prepare("work")

    with pytest.raises(InvalidArgument, match="not a committed snapshot"):
        layers.prepare("child", "work")
    with pytest.raises(InvalidArgument, match="not a committed snapshot"):
        layers.view("child", "work")


@pytest.mark.parametrize("taken", ["active", "view", "base"])
def test_keys_and_names_share_one_space(base: LayerStore, taken: str) -> None:
    base.prepare("active")
    base.view("view", "base")
    before = base.stat(taken)

    for make in (base.prepare, base.view):
        with pytest.raises(AlreadyExists):
            make(taken)

    assert base.stat(taken) == before


def test_a_taken_name_leaves_the_active_snapshot_usable(base: LayerStore) -> None:
    base.prepare("work", "base")
    write(base, "work", "g")

    with pytest.raises(AlreadyExists):
        base.commit("base", "work")

    write(base, "work", "g", b"again")
    assert base.commit("other", "work").parent == "base"


def test_commit_names_what_is_wrong_in_containerds_order(base: LayerStore) -> None:
    base.view("view", "base")

    with pytest.raises(AlreadyExists):
        base.commit("base", "missing")
    with pytest.raises(NotFound):
        base.commit("new", "missing")
    with pytest.raises(FailedPrecondition):
        base.commit("new", "view")
    with pytest.raises(FailedPrecondition):
        base.commit("new", "base")


def test_commit_replaces_labels(layers: LayerStore) -> None:
    layers.prepare("work", labels={"a": "1"})

    assert layers.commit("done", "work", labels={"b": "2"}).labels == {"b": "2"}


def test_a_parent_cannot_be_removed_before_its_children(base: LayerStore) -> None:
    base.prepare("child", "base")

    with pytest.raises(FailedPrecondition, match="parent of others"):
        base.remove("base")

    base.remove("child")
    base.remove("base")
    assert list(base.walk()) == []


def test_a_removed_key_can_be_used_again_at_once_and_is_fresh(layers: LayerStore) -> None:
    layers.prepare("work")
    write(layers, "work", "f")
    first = layers.stat("work")

    layers.remove("work")
    second = layers.prepare("work")

    assert second.id > first.id
    with layers.attached("work") as root:
        assert os.listdir(root) == []


def test_removing_what_is_not_there_is_not_found(layers: LayerStore) -> None:
    with pytest.raises(NotFound):
        layers.remove("nothing")


def test_mounts_of_a_committed_snapshot_are_refused(base: LayerStore) -> None:
    with pytest.raises(FailedPrecondition, match="committed"):
        base.mounts("base")


def test_mounts_are_pure(base: LayerStore) -> None:
    base.prepare("work", "base")

    assert base.mounts("work") == base.mounts("work")


def test_a_view_and_a_committed_snapshot_cannot_be_written(base: LayerStore) -> None:
    base.view("view", "base")

    for key in ("view", "base"):
        with base.attached(key) as root, pytest.raises(OSError, match="Read-only"):
            os.mkdir("d", dir_fd=root)


def test_a_child_sees_its_parent_and_never_changes_it(base: LayerStore) -> None:
    base.prepare("one", "base")
    base.prepare("two", "base")
    write(base, "one", "f", b"changed")

    assert read(base, "one", "f") == b"changed"
    assert read(base, "two", "f") == b"first"
    assert read(base, "base", "f") == b"first"
    assert base.changes("one") == [Change(b"/f", ChangeKind.MODIFIED)]
    assert base.changes("two") == []


def test_update_changes_labels_only_and_moves_the_time_on(layers: LayerStore) -> None:
    before = layers.prepare("work", labels={"a": "1", "b": "2"})

    after = layers.update("work", {"a": "3"}, "labels.a")
    assert after.labels == {"a": "3", "b": "2"}
    assert after.updated_ns > before.updated_ns
    assert layers.update("work", {}, "labels.b").labels == {"a": "3"}
    assert layers.update("work", {"c": "4"}).labels == {"c": "4"}
    for path in ("name", "parent", "kind", "created", "label"):
        with pytest.raises(InvalidArgument, match="cannot update"):
            layers.update("work", {}, path)
    with pytest.raises(NotFound):
        layers.update("missing", {})


def test_labels_have_a_limit(layers: LayerStore) -> None:
    layers.prepare("fits", labels={"k": "v" * 4095})

    with pytest.raises(InvalidArgument, match="too long"):
        layers.prepare("too-long", labels={"k": "v" * 4096})
    with pytest.raises(NotFound):
        layers.stat("too-long")


def test_an_unknown_snapshot_option_is_refused_and_leaves_nothing(layers: LayerStore) -> None:
    with pytest.raises(InvalidArgument, match="nonsense"):
        layers.prepare("work", options=["nonsense=1"])

    assert list(layers.walk()) == []


def test_a_key_is_needed(layers: LayerStore) -> None:
    with pytest.raises(InvalidArgument):
        layers.prepare("")
    layers.prepare("work")
    with pytest.raises(InvalidArgument):
        layers.commit("", "work")


def test_usage_is_frozen_at_commit(base: LayerStore) -> None:
    frozen = base.usage("base")
    base.prepare("child", "base")
    write(base, "child", "big", b"x" * 100_000)

    assert base.usage("base") == frozen == base.stat("base").usage
    assert base.stat("child").usage is None


def test_a_chain_is_nearest_first(base: LayerStore) -> None:
    parent = "base"
    for name in ("one", "two"):
        base.prepare("work", parent)
        base.commit(name, "work")
        parent = name

    assert [info.name for info in base.chain("two")] == ["two", "one", "base"]


def test_what_one_store_does_another_sees_at_once(
    layers: LayerStore, open_layers: Callable[[], LayerStore]
) -> None:
    other = open_layers()
    layers.prepare("work")

    assert other.stat("work") == layers.stat("work")
    other.remove("work")
    with pytest.raises(NotFound):
        layers.stat("work")


def test_reopening_changes_nothing(base: LayerStore, open_layers: Callable[[], LayerStore]) -> None:
    base.prepare("child", "base", labels={"a": "1"})
    write(base, "child", "g", b"kept")
    before = list(base.walk())
    base.close()

    again = open_layers()

    assert list(again.walk()) == before
    assert read(again, "child", "g") == b"kept"
    assert again.check(full=True) == []


def test_a_layer_comes_out_byte_for_byte(
    layers: LayerStore, archive: Callable[[Mapping[str, bytes]], io.BytesIO]
) -> None:
    given = archive({"a": b"1", "dir/b": b"2" * 70_000})

    info = layers.add_layer(given)
    out = io.BytesIO()

    assert info.name == info.chain_id == info.diff_id
    assert layers.export(info.name, out) == info.diff_id
    assert out.getvalue() == given.getvalue()
    assert read(layers, info.name, "a") == b"1"


def test_adding_a_layer_twice_reads_it_once(
    layers: LayerStore, archive: Callable[[Mapping[str, bytes]], io.BytesIO]
) -> None:
    first = layers.add_layer(archive({"a": b"1"}))
    unread = archive({"b": b"never read"})

    assert layers.add_layer(unread, diff_id=first.diff_id) == first
    assert unread.tell() == 0
    assert layers.add_layer(archive({"a": b"1"})) == first
    assert [info.name for info in layers.walk()] == [first.name]


def test_a_layer_that_is_not_the_one_meant_is_refused(
    layers: LayerStore, archive: Callable[[Mapping[str, bytes]], io.BytesIO]
) -> None:
    from stowage.errors import DataLoss

    with pytest.raises(DataLoss, match="not the one that was meant"):
        layers.add_layer(archive({"a": b"1"}), diff_id="sha256:" + "0" * 64)

    assert list(layers.walk()) == []
    layers.drain()
    assert layers.df().recipes_bytes == 0


def test_a_junk_archive_leaves_nothing(layers: LayerStore) -> None:
    with pytest.raises(InvalidArgument):
        layers.add_layer(io.BytesIO(b"\x00junk" * 1000))

    layers.drain()
    assert list(layers.walk()) == []
    assert layers.df().in_trash == 0
    assert layers.check(full=True) == []


def test_what_was_applied_and_then_written_to_is_packed_anew(
    layers: LayerStore, archive: Callable[[Mapping[str, bytes]], io.BytesIO]
) -> None:
    layers.prepare("work")
    applied = layers.apply("work", archive({"a": b"1"}))
    write(layers, "work", "b")

    info = layers.commit("done", "work")

    assert info.diff_id != applied.diff_id
    assert layers.check(full=True) == []


def test_what_was_applied_keeps_its_archive(
    layers: LayerStore, archive: Callable[[Mapping[str, bytes]], io.BytesIO]
) -> None:
    layers.prepare("work")
    given = archive({"a": b"1"})
    applied = layers.apply("work", given)

    info = layers.commit("done", "work")
    out = io.BytesIO()
    layers.export("done", out)

    assert info.diff_id == applied.diff_id
    assert out.getvalue() == given.getvalue()


def test_bring_gives_another_driver_the_same_chain(
    layers: LayerStore, archive: Callable[[Mapping[str, bytes]], io.BytesIO]
) -> None:
    bottom = layers.add_layer(archive({"a": b"1"}))
    top = layers.add_layer(archive({"b": b"2"}), bottom.name)

    layers.bring(top.name, "vfs", "overlay")

    brought = layers.stat(top.name, driver="overlay")
    assert (brought.chain_id, brought.parent) == (top.chain_id, bottom.name)
    with layers.attached(top.name, driver="overlay") as root:
        assert sorted(os.listdir(root)) == ["a", "b"]
    layers.bring(top.name, "vfs", "overlay")
    assert len(list(layers.walk(driver="overlay"))) == 2
    assert layers.check(full=True) == []


@pytest.mark.parametrize("how", ["changed", "added", "removed"])
def test_bring_finds_what_no_recipe_tells_of(base: LayerStore, root: Path, how: str) -> None:
    """The upper layer's archive does not hold the file; on vfs the tree does all the same."""
    base.prepare("work", "base")
    write(base, "work", "g")
    name = base.commit("top", "work").name
    [tree] = [path.parent for path in (root / "data").rglob("g") if path.is_file()]
    if how == "changed":
        (tree / "f").write_bytes(b"other")
    elif how == "added":
        (tree / "new").touch()
    else:
        (tree / "f").unlink()

    with pytest.raises(DataLoss, match="/new" if how == "added" else "/f"):
        base.bring(name, "vfs", "overlay")


def test_bring_passes_over_sockets(base: LayerStore) -> None:
    """No archive can hold one, and a container that ends leaves some."""
    base.prepare("work", "base")
    with base.attached("work") as root, socket.socket(socket.AF_UNIX) as listening:
        os.mkdir("run", dir_fd=root)
        listening.bind(f"/proc/self/fd/{root}/run/socket")
    name = base.commit("top", "work").name

    base.bring(name, "vfs", "overlay")

    assert base.stat(name, driver="overlay").parent == "base"


def test_diff_against_any_other_snapshot(
    base: LayerStore, archive: Callable[[Mapping[str, bytes]], io.BytesIO]
) -> None:
    import tarfile

    base.prepare("work", "base")
    write(base, "work", "g")
    base.commit("middle", "work")
    base.prepare("top", "middle")
    write(base, "top", "h")

    def names(parent: str | None) -> set[str]:
        out = io.BytesIO()
        base.diff("top", out, parent=parent)
        out.seek(0)
        with tarfile.open(fileobj=out) as tar:
            return {member.name.strip("./") for member in tar if member.isreg()}

    assert names("middle") == {"h"}
    assert names("base") == {"g", "h"}
    assert names(None) == {"f", "g", "h"}
