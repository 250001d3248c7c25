"""Images and layers move to another driver: verified, resumable, and nothing lost on the way."""

from __future__ import annotations

import gc
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stowage.engine import Engine
from stowage.errors import AlreadyExists, DataLoss, NoSpace, NotFound, NotSupported
from stowage.images.rows import Image
from stowage.images.service import Images
from stowage.layers.transfer import Step
from stowage.linux.mount import syscall_mount, unmount
from stowage.testing.faults import inject

from .archive_makers import docker_files, layer, tar

pytestmark = pytest.mark.requires_root

ONE, TWO, THREE = layer({"a": "1"}), layer({"b": "2"}), layer({"c": "3"})


def loaded(images: Images, name: str, *layers: bytes) -> Image:
    images.load(io.BytesIO(tar(docker_files([name], layers))))
    return images.resolve(name)


def where(engine: Engine, image: Image) -> list[str]:
    """The drivers of its layers, as ``"overlay 1"``, base first."""
    return sorted(
        f"{info.driver} {image.chain.index(info.name)}"
        for info in engine.layers.walk()
        if info.name in image.chain
    )


def give_back(engine: Engine, image: Image, driver: str, *layers: bytes) -> None:
    for name, archive in zip(image.chain, layers, strict=True):
        out = io.BytesIO()
        engine.layers.export(name, out, driver=driver)
        assert out.getvalue() == archive


def test_an_image_moves_and_gives_its_archives_back(engine: Engine, images: Images) -> None:
    image = loaded(images, "a:b", ONE, TWO)
    steps: list[Step] = []
    plan = engine.migration("overlay2", ["a:b"])

    (moved,) = plan.move(plan.chains[0], told=steps.append)

    assert (moved.source, moved.target) == ("vfs", "overlay")
    assert tuple(moved.copied) == image.chain == tuple(reversed(moved.removed))
    assert (moved.kept, moved.containers) == ([], [])
    assert [(step.doing, step.number, step.total) for step in steps] == [
        ("copying", 1, 2), ("copying", 2, 2), ("verifying", 1, 2), ("verifying", 2, 2),
    ]  # fmt: skip
    assert where(engine, image) == ["overlay 0", "overlay 1"]
    give_back(engine, image, "overlay", ONE, TWO)
    assert engine.layers.check(full=True) == []
    assert engine.migrate("overlay", "a:b") == []


def test_with_keep_it_is_on_both(engine: Engine, images: Images) -> None:
    image = loaded(images, "a:b", ONE)

    (moved,) = engine.migrate("overlay", "a:b", keep=True)

    assert (tuple(moved.kept), moved.removed) == (image.chain, [])
    assert where(engine, image) == ["overlay 0", "vfs 0"]
    (again,) = engine.migrate("overlay", "a:b")
    assert (again.copied, tuple(again.removed)) == ([], image.chain)


def test_another_image_keeps_the_layers_that_it_shares(engine: Engine, images: Images) -> None:
    """Whether they lie below its own, or are all that it has."""
    base = loaded(images, "base:1", ONE)
    image, other = loaded(images, "a:b", ONE, TWO), loaded(images, "c:d", ONE, THREE)

    (moved,) = engine.migrate("overlay", "a:b")

    assert (tuple(moved.removed), tuple(moved.kept)) == (image.chain[1:], base.chain)
    assert where(engine, image) == ["overlay 0", "overlay 1", "vfs 0"]
    assert where(engine, other) == ["overlay 0", "vfs 0", "vfs 1"]
    engine.migrate("overlay", everything=True)
    assert {info.driver for info in engine.layers.walk()} == {"overlay"}
    give_back(engine, other, "overlay", ONE, THREE)


def test_all_takes_layers_of_no_image_but_none_of_the_host(engine: Engine, shm_dir: Path) -> None:
    layers = engine.layers
    bottom = layers.add_layer(io.BytesIO(ONE))
    top = layers.add_layer(io.BytesIO(TWO), bottom.name)
    layers.prepare("mine", bottom.name)
    layers.commit("named", "mine")
    (shm_dir / "host").mkdir()
    layers.prepare("box", driver="overlay", host_root=shm_dir / "host")

    done = engine.migrate("overlay", everything=True)

    assert {moved.name for moved in done} == {top.name, "named"}
    assert {info.driver for info in layers.walk()} == {"overlay"}
    assert layers.check(full=True) == []


def test_a_layer_in_use_stays_and_its_user_goes_on(engine: Engine) -> None:
    layer_name = engine.layers.add_layer(io.BytesIO(ONE)).name
    engine.layers.prepare("work", layer_name)

    (moved,) = engine.migrate("overlay", layer_name)

    assert (moved.removed, moved.kept) == ([], [layer_name])
    with engine.layers.attached("work", driver="vfs") as root:
        assert os.listdir(root) == ["a"]


def test_what_has_changed_on_the_target_is_found_and_the_source_stays(
    engine: Engine, images: Images, shm_dir: Path
) -> None:
    """Also where the layer had come before: a lower layer's file that an upper one hides."""
    image = loaded(images, "a:b", ONE, layer({"a": "new"}))
    engine.migrate("overlay", "a:b", keep=True)
    storage = shm_dir / "root" / "data" / "storage" / "overlay"
    [hidden] = [path for path in storage.rglob("a") if path.read_text() == "1"]
    hidden.write_text("9")

    with pytest.raises(DataLoss):
        engine.migrate("overlay", "a:b")

    assert where(engine, image) == ["overlay 0", "overlay 1", "vfs 0", "vfs 1"]


def test_another_snapshot_of_that_name_is_refused(engine: Engine) -> None:
    for driver, archive in (("vfs", ONE), ("overlay", TWO)):
        engine.layers.prepare("work", driver=driver)
        engine.layers.apply("work", io.BytesIO(archive), driver=driver)
        engine.layers.commit("mine", "work", driver=driver)

    with pytest.raises(AlreadyExists, match="'overlay' has another snapshot called 'mine'"):
        engine.migrate("overlay", "mine")


def test_a_target_or_a_reference_that_is_not_there_changes_nothing(
    engine: Engine, images: Images
) -> None:
    image = loaded(images, "a:b", ONE)

    with pytest.raises(NotFound, match="nosuch"):
        engine.migrate("nosuch", "a:b")
    with pytest.raises(NotFound, match="other"):
        engine.migrate("overlay", "a:b", "other")
    assert where(engine, image) == ["vfs 0"]


def test_a_driver_that_does_not_work_here_is_refused(engine: Engine, images: Images) -> None:
    image = loaded(images, "a:b", ONE)

    with inject("effect=mount.*:errno=EPERM"), pytest.raises(NotSupported, match="to migrate to"):
        engine.migrate("overlay", "a:b")

    assert where(engine, image) == ["vfs 0"]


def test_without_space_nothing_is_lost(shm_dir: Path) -> None:
    """Three megabytes fit as two layers of overlay, but not as two whole trees beside them."""
    place = shm_dir / "small"
    place.mkdir()
    syscall_mount("small", place, "tmpfs", 0, "size=16m")
    big = os.urandom(2_000_000).hex()
    try:
        with Engine(place / "root", storage_driver="overlay") as engine:
            image = loaded(engine.images, "a:b", layer({"big": big}), layer({"more": big}))
            with pytest.raises(NoSpace):
                engine.migrate("vfs", "a:b")
            engine.layers.drain()
            assert {f"overlay {number}" for number in (0, 1)} <= set(where(engine, image))
            for name in image.chain:
                engine.layers.export(name, io.BytesIO(), driver="overlay")
            assert engine.layers.check(full=True) == []
    finally:
        gc.collect()  # a cursor in a cycle keeps its database open
        unmount(place)


PROGRAM = """
import sys
from stowage.engine import Engine
with Engine(sys.argv[1], observers=["faults"]) as engine:
    engine.migrate(sys.argv[2], everything=True)
"""


def in_a_process(root: Path, target: str, rules: str) -> int:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(root), target],
        env={**os.environ, "STOWAGE_FAULTS": rules},
        check=False,
    ).returncode


def test_a_killed_migration_loses_nothing_and_is_resumed(
    shm_dir: Path, rounds: Callable[[int, int], int]
) -> None:
    """Killed at effects all over its way (in the full profile at each), then asked for again."""
    root, record = shm_dir / "root", shm_dir / "record"
    with Engine(root, storage_driver="vfs") as engine:
        image = loaded(engine.images, "a:b", ONE, TWO)
    assert in_a_process(root, "overlay", f"record:{record}") == 0
    effects = [line for line in record.read_text().splitlines() if " effect " in line]
    assert len(effects) > 50
    number, target, killed = 3, "vfs", 0

    while number < len(effects):
        source = "overlay" if target == "vfs" else "vfs"
        code = in_a_process(root, target, f"effect=*:n={number}:kill")
        killed += code < 0
        with Engine(root) as engine:
            for position, name in enumerate(image.chain):
                holders = [one for one in where(engine, image) if one.endswith(f" {position}")]
                assert holders, f"{name} is lost after a kill at effect {number}"
                for holder in holders:
                    engine.layers.export(name, io.BytesIO(), driver=holder.split()[0])
            engine.migrate(target, "a:b")
            assert where(engine, image) == [f"{target} 0", f"{target} 1"]
            give_back(engine, image, target, ONE, TWO)
            engine.layers.drain()
            assert engine.layers.check(full=True) == []
        number += rounds(max(len(effects) // 8, 1), 1)
        target = source

    assert killed > 5
