"""``check`` finds what is missing, orphaned or modified; ``gc`` and ``df`` agree with it."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path

import pytest

from stowage.errors import Busy, DataLoss
from stowage.layers.check import CheckKind
from stowage.layers.store import LayerStore
from stowage.model import SnapshotInfo

pytestmark = pytest.mark.requires_root

OpenLayers = Callable[..., LayerStore]
MakeArchive = Callable[[Mapping[str, bytes]], BytesIO]


@pytest.fixture
def layer(layers: LayerStore, archive: MakeArchive) -> SnapshotInfo:
    """A committed layer with the files ``a`` and ``dir/b``."""
    return layers.add_layer(archive({"a": b"1", "dir/b": b"2" * 5000}))


@pytest.fixture
def own(root: Path, layer: SnapshotInfo) -> Path:
    """The directory that vfs keeps the layer's tree in."""
    return root / "data" / "storage" / "vfs" / str(layer.id) / "fs"


def kinds(layers: LayerStore, *, full: bool = False) -> list[CheckKind]:
    return [finding.kind for finding in layers.check(full=full)]


def test_a_whole_root_has_no_findings(layers: LayerStore, layer: SnapshotInfo) -> None:
    layers.prepare("work", layer.name)

    assert layers.check(full=True) == []


def test_a_modified_file_is_named(layers: LayerStore, layer: SnapshotInfo, own: Path) -> None:
    (own / "a").write_bytes(b"9")

    assert kinds(layers) == []
    (finding,) = layers.check(full=True)
    assert finding.kind is CheckKind.LAYER_CONTENT_MODIFIED
    assert finding.subject == layer.name
    assert "/a" in finding.details
    with pytest.raises(DataLoss, match="/a"):
        layers.export(layer.name, BytesIO())


def test_a_deleted_file_is_found(layers: LayerStore, own: Path) -> None:
    (own / "dir" / "b").unlink()

    assert kinds(layers, full=True) == [CheckKind.LAYER_CONTENT_MODIFIED]


def test_a_missing_directory_is_found(layers: LayerStore, own: Path) -> None:
    shutil.rmtree(own.parent)

    assert CheckKind.LAYER_MISSING in kinds(layers)


def test_a_missing_part_is_found(layers: LayerStore, own: Path) -> None:
    shutil.rmtree(own)

    assert kinds(layers) == [CheckKind.LAYER_MISSING]


def test_a_missing_recipe_is_found(layers: LayerStore, layer: SnapshotInfo, root: Path) -> None:
    (recipe,) = (root / "data" / "recipes").iterdir()
    recipe.unlink()

    assert kinds(layers) == [CheckKind.LAYER_DATA_MISSING]
    with pytest.raises(DataLoss, match="recipe"):
        layers.export(layer.name, BytesIO())


def test_a_damaged_recipe_is_found(layers: LayerStore, layer: SnapshotInfo, root: Path) -> None:
    (recipe,) = (root / "data" / "recipes").iterdir()
    content = bytearray(recipe.read_bytes())
    content[len(content) // 2] ^= 0xFF
    recipe.write_bytes(content)

    assert kinds(layers, full=True) == [CheckKind.LAYER_INCORRECT_DIGEST]


def test_an_orphan_is_found_and_collected(
    layers: LayerStore, layer: SnapshotInfo, root: Path
) -> None:
    (root / "data" / "storage" / "vfs" / "999" / "fs").mkdir(parents=True)
    (root / "data" / "trash" / "vfs-998").mkdir()

    assert kinds(layers) == [CheckKind.LAYER_UNACCOUNTED] * 2
    layers.gc(lambda info: True)
    assert layers.check() == []
    assert not (root / "data" / "storage" / "vfs" / "999").exists()


def test_what_nobody_owns_among_containers_and_recipes_is_found_and_collected(
    layers: LayerStore, layer: SnapshotInfo, root: Path
) -> None:
    data = root / "data"
    strays = [data / "containers" / "deadbeef", data / "recipes" / "junk"]
    for stray in strays:
        (stray / "inside").mkdir(parents=True)
    (data / "recipes" / ("0" * 64)).write_bytes(b"a kill may leave this")

    assert kinds(layers) == [CheckKind.LAYER_UNACCOUNTED] * 2
    layers.gc(lambda info: True)
    assert layers.check(full=True) == []
    assert not any(stray.exists() for stray in strays)
    assert len(os.listdir(data / "recipes")) == 1


def test_what_has_no_driver_is_told_and_left_where_it_is(layers: LayerStore, root: Path) -> None:
    alone = root / "data" / "storage" / "other" / "1"
    trashed = root / "data" / "trash" / "other-2"
    for stray in (alone, trashed):
        stray.mkdir(parents=True)

    collected = layers.gc(lambda info: True)

    assert collected.left == ()
    assert alone.is_dir()
    assert trashed.is_dir()
    found = layers.check()
    assert [finding.kind for finding in found] == [CheckKind.LAYER_UNACCOUNTED] * 2
    assert "install its driver" in found[0].remedy


def test_a_wrong_chain_is_found(layers: LayerStore, layer: SnapshotInfo, root: Path) -> None:
    with sqlite3.connect(root / "data" / "metadata.db") as connection:
        connection.execute("UPDATE snapshots SET chain_id = 'sha256:0'")
    connection.close()

    assert kinds(layers) == [CheckKind.LAYER_INCORRECT_DIGEST]


def test_an_unreferenced_layer_is_found_when_asked(layers: LayerStore, layer: SnapshotInfo) -> None:
    (finding,) = layers.check(is_referenced=lambda info: False)

    assert finding.kind is CheckKind.LAYER_UNREFERENCED


def test_what_gets_stuck_in_the_trash_is_named_and_stops_nothing_else(
    layers: LayerStore, root: Path
) -> None:
    from stowage.linux.mount import syscall_mount, unmount

    first = layers.prepare("first")
    second = layers.prepare("second")
    inside = root / "data" / "storage" / "vfs" / str(first.id) / "fs"
    syscall_mount("foreign", inside, "tmpfs", 0)
    (inside / "kept").write_text("x")
    layers.remove("first")
    layers.remove("second")
    try:
        assert layers.drain(5) == 1
        assert kinds(layers) == [CheckKind.TRASH_STUCK]
        assert not (root / "data" / "trash" / f"vfs-{second.id}").exists()
        assert (root / "data" / "trash" / f"vfs-{first.id}" / "fs" / "kept").exists()
    finally:
        unmount(root / "data" / "trash" / f"vfs-{first.id}" / "fs")
    assert layers.drain(5) == 0
    assert layers.check() == []


def test_gc_takes_what_nothing_refers_to_and_its_parents_in_turn(
    layers: LayerStore, layer: SnapshotInfo, archive: MakeArchive, root: Path
) -> None:
    top = layers.add_layer(archive({"c": b"3"}), layer.name)
    kept = layers.add_layer(archive({"d": b"4"}))
    layers.prepare("work", kept.name)
    assert layers.gc(lambda info: info.name == top.name).removed == ()

    collected = layers.gc(lambda info: False)

    assert [info.name for info in collected.removed] == [top.name, layer.name]
    assert collected.size_bytes > 0
    assert collected.left == ()
    assert {info.name for info in layers.walk()} == {kept.name, "work"}
    assert len(os.listdir(root / "data" / "recipes")) == 1


def test_gc_waits_for_nobody_and_names_who_adds_layers(
    layers: LayerStore, layer: SnapshotInfo
) -> None:
    with layers.keeping(), layers.keeping(), pytest.raises(Busy, match="layer store"):
        layers.gc(lambda info: False)

    layers.gc(lambda info: False)
    assert list(layers.walk()) == []


def test_df_counts_what_is_recorded(layers: LayerStore, layer: SnapshotInfo) -> None:
    layers.prepare("one", layer.name)
    layers.prepare("two", layer.name)

    usage = layers.df()

    assert usage.size_bytes == layers.usage(layer.name).size_bytes
    assert [info.name for info in usage.layers] == [layer.name, "one", "two"]
    assert usage.recipes_bytes > 0


def test_a_number_given_out_again_after_a_loss_of_power_is_no_trouble(
    layers: LayerStore, root: Path
) -> None:
    storage = root / "data" / "storage" / "vfs"
    (storage / "1" / "fs").mkdir(parents=True)
    (storage / "1" / "fs" / "leftover").write_text("x")

    assert layers.prepare("work").id == 1
    with layers.attached("work") as top:
        assert os.listdir(top) == []
    assert layers.drain(5) == 0
    assert layers.check(full=True) == []


@pytest.mark.parametrize("way", ["boot", "gc"])
def test_a_removal_that_a_loss_of_power_half_undid_is_undone_whole(
    layers: LayerStore, layer: SnapshotInfo, open_layers: OpenLayers, root: Path, way: str
) -> None:
    """The rename reached the disk, the transaction before it did not."""
    layers.close()
    data = root / "data"
    (data / "storage" / "vfs" / str(layer.id)).rename(data / "trash" / f"vfs-{layer.id}")
    if way == "boot":
        with sqlite3.connect(data / "metadata.db") as connection:
            connection.execute("UPDATE settings SET value = 'another' WHERE name = 'boot-id'")
        connection.close()

    again = open_layers()
    if way == "gc":
        assert [f.remedy for f in again.check()][-1] == "'stowage gc' brings it back"
        again.gc(lambda info: True)

    assert again.drain(5) == 0
    assert [info.name for info in again.walk()] == [layer.name]
    assert again.check(full=True) == []


def test_a_stray_in_the_trash_never_takes_the_directory_of_its_number(
    layers: LayerStore, layer: SnapshotInfo, root: Path
) -> None:
    """The number was given out again after a loss of power."""
    (root / "data" / "trash" / f"vfs-{layer.id}").mkdir()

    layers.gc(lambda info: True)

    assert layers.drain(5) == 0
    assert layers.check(full=True) == []
    assert os.listdir(root / "data" / "trash") == []


def test_after_a_boot_orphans_are_found_and_removed(
    layers: LayerStore, layer: SnapshotInfo, open_layers: OpenLayers, root: Path
) -> None:
    layers.close()
    data = root / "data"
    (data / "storage" / "vfs" / "77").mkdir()
    (data / "recipes" / ("0" * 64)).write_bytes(b"torn")
    (data / "locks" / "vfs-77").touch()
    with sqlite3.connect(data / "metadata.db") as connection:
        connection.execute("UPDATE settings SET value = 'another' WHERE name = 'boot-id'")
    connection.close()

    again = open_layers()

    assert again.drain(5) == 0
    assert again.check(full=True) == []
    assert not (data / "storage" / "vfs" / "77").exists()
    assert not (data / "locks" / "vfs-77").exists()
    assert len(os.listdir(data / "recipes")) == 1


def test_a_copied_root_mounts_again_and_remembers_how(
    open_layers: OpenLayers, root: Path, ext4_dir: Path, shm_dir: Path
) -> None:
    """Overlay's index makes the kernel refuse (ESTALE) an upper directory that was copied."""
    import subprocess

    layers = open_layers("overlay", ext4_dir / "root")
    layers.prepare("work")
    layers.commit("base", "work")
    layers.prepare("box", "base")
    with layers.attached("box") as top:
        os.mkdir("d", dir_fd=top)
    layers.close()
    copy = ext4_dir / "copy"
    subprocess.run(["cp", "-a", ext4_dir / "root", copy], check=True)

    copied = open_layers("overlay", copy)
    for _ in range(2):
        with copied.attached("box") as top:
            assert os.listdir(top) == ["d"]
    with sqlite3.connect(copy / "data" / "metadata.db") as connection:
        options = connection.execute("SELECT options FROM snapshots WHERE name = 'box'").fetchone()
    connection.close()
    assert options == ('["index=off"]',)
    assert copied.check(full=True) == []
