"""Roots with a layer store, opened as the engine opens them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from stowage.engine import Engine
from stowage.layers.store import LayerStore

OpenLayers = Callable[..., LayerStore]
MakeArchive = Callable[[Mapping[str, bytes]], io.BytesIO]


@pytest.fixture
def open_layers(shm_dir: Path) -> Iterator[OpenLayers]:
    """Open the test's root once more: ``open_layers(driver="vfs", root=None)``."""
    engines: list[Engine] = []

    def open_one(driver: str = "vfs", root: Path | None = None) -> LayerStore:
        engine = Engine(root or shm_dir / "root", storage_driver=driver)
        engines.append(engine)
        return engine.layers

    yield open_one
    for engine in engines:
        engine.close()


@pytest.fixture
def layers(open_layers: OpenLayers) -> LayerStore:
    """A layer store on vfs, in a fresh root on tmpfs."""
    return open_layers()


@pytest.fixture
def root(shm_dir: Path) -> Path:
    """The directory of the root of ``open_layers``; data-root is ``root / "data"``."""
    return shm_dir / "root"


@pytest.fixture
def archive() -> MakeArchive:
    """Make a plain tar archive of files: ``archive({"etc/motd": b"hi"})``."""

    def make(files: Mapping[str, bytes]) -> io.BytesIO:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        out.seek(0)
        return out

    return make
