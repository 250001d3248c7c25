"""The union file system of the driver ``fuse`` beside Debian's fuse-overlayfs, file by file."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from time import perf_counter

from stowage import Engine
from stowage.linux.copytree import copy_tree
from stowage.linux.mount import mounted_at, unmount

from .measure import Figure
from .places import run

RIVAL = "fuse-overlayfs"
FILES, FILE_BYTES = 5_000, 4096
LARGE_BYTES, BLOCK_BYTES = 512 << 20, 1 << 20
_START_SECONDS = 10.0

Mounted = Callable[[], AbstractContextManager[Path]]


class FuseBench:
    """Both mount the same *tree* as their lower layer on the file system at *place*."""

    def __init__(self, kind: str, place: Path, tree: Path, rounds: int) -> None:
        self.kind = kind
        self.place = place
        self.tree = tree
        self.rounds = rounds

    def figures(self) -> Iterator[Figure]:
        """Yield the figures; each round mounts both anew, in turn the one and the other first.

        Raises:
            RuntimeError: if fuse-overlayfs is not installed.
        """
        if shutil.which(RIVAL) is None:
            raise RuntimeError(f"{RIVAL} is not installed (apt-get install {RIVAL})")
        with Engine(self.place / "fuse-root", storage_driver="fuse") as engine:
            engine.layers.prepare("tree")
            with engine.layers.attached("tree") as root:
                copy_tree(self.tree, root)
            engine.layers.commit("base", "tree")
            lower = self.place / "lower"
            lower.mkdir()
            copy_tree(self.tree, lower)
            sides: Mapping[str, Mounted] = {
                "ours": lambda: _ours(engine),
                "rival": lambda: _rival(self.place, lower),
            }
            yield from self._measured(sides)

    def _measured(self, sides: Mapping[str, Mounted]) -> Iterator[Figure]:
        times: dict[str, dict[str, list[float]]] = {}
        for number in range(self.rounds):
            for side in sorted(sides, reverse=bool(number % 2)):
                with sides[side]() as mounted:
                    for step, seconds in _steps(mounted):
                        measured = times.setdefault(step, {"ours": [], "rival": []})
                        measured[side].append(seconds)
        for step, measured in times.items():
            title = f"{self.kind}: fuse, {step}"
            yield Figure(title, RIVAL, None, measured["ours"], measured["rival"])


@contextmanager
def _ours(engine: Engine) -> Iterator[Path]:
    engine.layers.prepare("child", "base")
    try:
        with engine.layers.mounted("child") as mounted:
            yield mounted
    finally:
        engine.layers.remove("child")


@contextmanager
def _rival(place: Path, lower: Path) -> Iterator[Path]:
    upper, work, mounted = place / "upper", place / "work", place / "merged"
    for directory in (upper, work, mounted):
        directory.mkdir()
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    server = subprocess.Popen(
        [RIVAL, "-f", "-o", options, str(mounted)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not mounted_at(mounted):
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{RIVAL} did not mount")
            time.sleep(0.005)
        yield mounted
        unmount(mounted)
    finally:
        server.terminate()
        server.wait()
        for directory in (upper, work, mounted):
            shutil.rmtree(directory)


def _steps(mounted: Path) -> Iterator[tuple[str, float]]:
    """Do everything once on a fresh mount and yield how long each step took."""
    for title, act in (
        ("find -size of a Debian root, first time", lambda: _find(mounted)),
        ("the same again", lambda: _find(mounted)),
        ("tar of it", lambda: _tar(mounted)),
        ("tar of it again", lambda: _tar(mounted)),
    ):
        yield title, _timed(act)
    directory = mounted / "bench"
    directory.mkdir()
    names = [f"{directory}/{number}" for number in range(FILES)]
    content = b"x" * FILE_BYTES
    for title, each in (
        ("create of 5,000 files of 4 KiB", lambda name: _create(name, content)),
        ("stat of them", os.stat),
        ("stat of them again", os.stat),
        ("open, read and close", _read),
        ("unlink", os.unlink),
    ):
        yield title, _timed(lambda each=each: [each(name) for name in names])  # type: ignore[misc]
    large = str(mounted / "large")
    yield "sequential write of 512 MiB", _timed(lambda: _write_large(large))
    yield "sequential read of it", _timed(lambda: _read_large(large))


def _timed(act: Callable[[], object]) -> float:
    start = perf_counter()
    act()
    return perf_counter() - start


def _find(mounted: Path) -> None:
    run("find", str(mounted), "-size", "+1000000")


def _tar(mounted: Path) -> None:
    run("sh", "-c", 'tar -C "$0" -cf - . | cat > /dev/null', str(mounted))


def _create(name: str, content: bytes) -> None:
    descriptor = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    os.write(descriptor, content)
    os.close(descriptor)


def _read(name: str) -> None:
    descriptor = os.open(name, os.O_RDONLY)
    os.read(descriptor, FILE_BYTES)
    os.close(descriptor)


def _write_large(name: str) -> None:
    block = b"y" * BLOCK_BYTES
    descriptor = os.open(name, os.O_CREAT | os.O_WRONLY)
    for _ in range(LARGE_BYTES // BLOCK_BYTES):
        os.write(descriptor, block)
    os.close(descriptor)


def _read_large(name: str) -> None:
    descriptor = os.open(name, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    while os.read(descriptor, BLOCK_BYTES):
        pass
    os.close(descriptor)
