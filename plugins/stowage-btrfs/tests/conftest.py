"""A btrfs of one's own for these tests; needs root and a loop device."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stowage.testing.abilities import missing
from stowage.testing.conform import Subject
from stowage.testing.conform.places import place


@pytest.fixture(scope="session")
def disk() -> Iterator[Path]:
    """The top directory of a fresh btrfs."""
    for ability in ("mounts", "btrfs"):
        if reason := missing(ability):
            pytest.skip(f"needs {ability}: {reason}")
    with place("btrfs") as root:
        yield root


@pytest.fixture
def subject(disk: Path) -> Iterator[Subject]:
    """The driver in an empty root; nothing of it may be left afterwards."""
    before = set(os.listdir(disk))
    with Subject.open("btrfs", on=disk) as opened:
        yield opened
    assert set(os.listdir(disk)) == before


@pytest.fixture
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


@pytest.fixture
def subvolumes() -> Callable[[Path], int]:
    """How many subvolumes stand below one, by btrfs-progs."""

    def count(directory: Path) -> int:
        listed = subprocess.run(
            ["btrfs", "subvolume", "list", "-o", str(directory)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        return len(listed.stdout.splitlines())

    return count
