"""On a file system without a free byte, what is not needed any more can still be removed."""

from __future__ import annotations

import gc
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
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


EATER = """
import os, sys, time
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
while os.getppid() == int(sys.argv[2]):
    try:
        while True:
            os.write(file, bytes(4096))
            print("full", flush=True) if not os.fstat(file).st_size % (1 << 20) else None
    except OSError:
        print("full", flush=True)
        time.sleep(0.0002)
"""


@pytest.fixture
def eaten_disk(small_disk: Path) -> Iterator[Callable[[], None]]:
    """``eaten_disk()`` fills the disk, and has every byte that is freed eaten at once."""
    eaters: list[subprocess.Popen[bytes]] = []

    def eat() -> None:
        fill(small_disk)
        words = [sys.executable, "-c", EATER, str(small_disk / "eaten"), str(os.getpid())]
        eaters.append(subprocess.Popen(words, stdout=subprocess.PIPE))
        assert eaters[0].stdout is not None
        assert eaters[0].stdout.read(4) == b"full"

    yield eat
    for eater in eaters:
        eater.kill()
        eater.communicate()


def test_removal_works_although_all_that_is_freed_is_eaten(
    small_disk: Path, eaten_disk: Callable[[], None]
) -> None:
    """By a container that writes its log, say: not even the ballast comes back."""
    root = small_disk / "root"
    with Engine(root, storage_driver="vfs") as engine:
        for number in range(20):
            engine.layers.prepare(f"work{number}")
    eaten_disk()
    (root / "data" / "ballast").unlink()

    for number in range(20):
        with Engine(root) as engine:
            engine.layers.remove(f"work{number}")
    with Engine(root) as engine:
        assert list(engine.layers.walk()) == []
        assert [row["action"] for row in journal(engine)].count("remove") == 20


def test_a_killed_removal_on_a_full_disk_is_finished_by_the_next(
    small_disk: Path, eaten_disk: Callable[[], None]
) -> None:
    """What it wrote into the reserve is found there."""
    root = small_disk / "root"
    with Engine(root, storage_driver="vfs") as engine:
        engine.layers.prepare("work")
    eaten_disk()
    (root / "data" / "ballast").unlink()

    script = (
        "import os, sys; from stowage import Engine\n"
        "e = Engine(sys.argv[1]); e.layers.remove('work'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script, str(root)], check=False)
    with Engine(root) as engine:
        assert list(engine.layers.walk()) == []
        assert [row["action"] for row in journal(engine)][-1] == "remove"


def journal(engine: Engine) -> list[sqlite3.Row]:
    return engine.metastore.read().execute("SELECT * FROM journal ORDER BY seq").fetchall()


def test_who_rests_on_a_full_disk_keeps_nobody_out(small_disk: Path) -> None:
    """Without room for an index to share, the database belongs to one process at a time."""
    root = small_disk / "root"
    with Engine(root, storage_driver="vfs") as engine:
        engine.layers.prepare("work")
    fill(small_disk)
    read = [
        sys.executable,
        "-c",
        "import sys; from stowage import Engine; Engine(sys.argv[1]).layers.stat('work')",
        str(root),
    ]

    with Engine(root) as engine:
        engine.layers.stat("work")
        waiting = subprocess.Popen(read)
        engine.metastore.rest()
        assert waiting.wait(60) == 0
        assert engine.layers.stat("work").name == "work"


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
