"""A load that is killed at any of its effects leaves nothing but layers that are collected."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stowage.engine import Engine
from stowage.errors import StowageError
from stowage.testing.faults import inject

from .archive_makers import docker_files, layer, tar

ONE, TWO = layer({"a": "1"}), layer({"b": "2"})
ARCHIVE = tar(docker_files(["a:b"], [ONE, TWO]))

PROGRAM = """
import sys
from stowage.engine import Engine
with Engine(sys.argv[1], storage_driver="vfs", observers=["faults"]) as engine:
    with open(sys.argv[2], "rb") as archive:
        engine.images.load(archive)
"""


def load_in_a_process(root: Path, archive: Path, rules: str) -> int:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(root), str(archive)],
        env={**os.environ, "STOWAGE_FAULTS": rules},
        check=False,
    ).returncode


def settled(engine: Engine) -> None:
    """Everything that the root holds belongs to an image that is whole, or is collected."""
    engine.images.collect()
    for image in engine.images.list():
        for name in image.chain:
            engine.layers.export(name, io.BytesIO())
    assert engine.layers.check(full=True, is_referenced=lambda info: True) == []
    if not engine.images.list():
        assert list(engine.layers.walk()) == []


@pytest.mark.requires_root
def test_a_killed_load_is_absent_or_whole(shm_dir: Path) -> None:
    """Every seventh effect; the next start of the root puts it in order."""
    archive, record = shm_dir / "archive.tar", shm_dir / "record"
    archive.write_bytes(ARCHIVE)
    assert load_in_a_process(shm_dir / "whole", archive, f"record:{record}") == 0
    effects = [line for line in record.read_text().splitlines() if " effect " in line]
    assert len(effects) > 20

    for number in range(2, len(effects), 7):
        root = shm_dir / f"root-{number}"
        ended = load_in_a_process(root, archive, f"effect=*:n={number}:kill")
        assert ended == -signal.SIGKILL
        with Engine(root, storage_driver="vfs") as engine:
            settled(engine)
            (image,) = engine.images.load(io.BytesIO(ARCHIVE))
            assert image.tags == ("a:b",)


@pytest.mark.requires_root
def test_a_full_disk_at_any_effect_leaves_the_root_in_order(engine: Engine) -> None:
    """In process, so what was begun is taken back at once."""
    images = engine.images
    images.list()
    with inject() as counting:
        images.load(io.BytesIO(ARCHIVE))
    images.remove("a:b")
    total = sum(counting.counts.values())

    for number in range(1, total + 1, 3):
        with inject(f"effect=*:n={number}:errno=ENOSPC"):
            try:
                images.load(io.BytesIO(ARCHIVE))
            except (StowageError, OSError):
                assert images.list() == []
        for image in images.list():
            images.remove(image.id)
        settled(engine)
