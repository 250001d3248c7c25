"""On a file system without a free byte, what is not needed any more can still be removed."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from stowage.engine import Engine
from stowage.errors import NoSpace, NotFound
from stowage.linux.mount import syscall_mount, unmount
from stowage.testing.disks import loop_mounted

pytestmark = pytest.mark.requires("mounts", "ext4")


@pytest.fixture(params=["ext4", "tmpfs"])
def small_disk(request: pytest.FixtureRequest, shm_dir: Path) -> Iterator[Path]:
    """A file system of 24 MiB, of which root may not use more than others."""
    if request.param == "tmpfs":
        place = shm_dir / "small"
        place.mkdir()
        syscall_mount("small", place, "tmpfs", 0, "size=24m")
        try:
            yield place
        finally:
            gc.collect()  # a cursor in a cycle keeps its database open
            unmount(place)
        return
    with loop_mounted("ext4", shm_dir, size_bytes=24 << 20, options="resuid=65534") as place:
        yield place


def fill(directory: Path) -> None:
    """Take every block and then every last byte that can be had."""
    for size in (1 << 20, 4096, 1):
        number = 0
        while True:
            try:
                with (directory / f"fill-{size}-{number}").open("wb") as file:
                    for _ in range(64 if size == 1 << 20 else 1):
                        file.write(b"x" * size)
                        file.flush()
            except OSError:
                break
            number += 1
            if size == 1 and number > 10:
                break


def free_bytes(directory: Path) -> int:
    facts = os.statvfs(directory)
    return facts.f_bavail * facts.f_frsize


@pytest.mark.parametrize("driver", ["overlay", "vfs"])
def test_removal_and_gc_work_with_no_byte_free(small_disk: Path, driver: str) -> None:
    root = small_disk / "root"
    with Engine(root, storage_driver=driver) as engine:
        layers = engine.layers
        layers.prepare("work")
        layers.commit("base", "work")
        layers.prepare("big", "base")
        with layers.attached("big") as top:
            descriptor = os.open("f", os.O_WRONLY | os.O_CREAT, dir_fd=top)
            os.write(descriptor, b"x" * (4 << 20))
            os.close(descriptor)
    assert (root / "data" / "ballast").stat().st_size == 1 << 20
    fill(small_disk)
    assert free_bytes(small_disk) == 0

    with Engine(root, storage_driver=driver) as engine:
        layers = engine.layers
        layers.remove("big")
        assert [info.name for info in layers.gc(lambda info: False).removed] == ["base"]
        assert list(layers.walk()) == []
        assert layers.check(full=True) == []

    assert free_bytes(small_disk) > 3 << 20
    for path in small_disk.glob("fill-*"):
        path.unlink()
    with Engine(root, storage_driver=driver) as engine:
        engine.layers.prepare("again")
    assert (root / "data" / "ballast").exists()


@pytest.mark.parametrize("driver", ["overlay", "vfs"])
def test_a_layer_that_does_not_fit_leaves_nothing(small_disk: Path, driver: str) -> None:
    import io
    import tarfile

    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("big")
        member.size = 40 << 20
        tar.addfile(member, io.BytesIO(os.urandom(1 << 20) * 40))
    archive.seek(0)

    with Engine(small_disk / "root", storage_driver=driver) as engine:
        layers = engine.layers
        before = free_bytes(small_disk)
        with pytest.raises(NoSpace):
            layers.add_layer(archive)
        assert layers.drain(20) == 0

        assert list(layers.walk()) == []
        assert layers.check(full=True) == []
        assert free_bytes(small_disk) > before - (2 << 20)
        with pytest.raises(NotFound):
            layers.stat("big")
