"""A root with both bundled drivers and its images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stowage.engine import Engine
from stowage.images.service import Images


@pytest.fixture
def engine(shm_dir: Path) -> Iterator[Engine]:
    """An engine on a fresh root; layers go to vfs, which needs no particular file system."""
    with Engine(shm_dir / "root", storage_driver="vfs") as engine:
        yield engine


@pytest.fixture
def images(engine: Engine) -> Images:
    return engine.images
