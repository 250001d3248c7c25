"""`make run`'s tour goes through to its end, with containers and without."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOUR = Path(__file__).resolve().parent.parent / "scripts" / "tour.py"


def toured(*prefix: str, directory: Path) -> str:
    """Run the tour to its end, return what it printed; it leaves nothing in *directory*."""
    done = subprocess.run(
        [*prefix, sys.executable, TOUR], capture_output=True, text=True, cwd=directory,
        env={**os.environ, "TMPDIR": str(directory)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert os.listdir(directory) == []
    return done.stdout


@pytest.mark.requires("containers", "overlay", "conmon", "busybox")
def test_with_containers_every_chapter_is_shown(tmp_path: Path) -> None:
    said = toured(directory=tmp_path)

    for wanted in (
        "native_diff",
        "hello from",
        "D /etc/group",
        "I float",
        "cargo",
        "clean",
        "0.0.0.0:8080->80/tcp",
        "A /home/index.html",
    ):
        assert wanted in said
    assert said.count("Ahoy from 172.17.0.2") == 4
    assert "Left out" not in said
    assert "D /etc/passwd" in said


@pytest.mark.requires_root
def test_without_cap_sys_admin_the_missing_ability_is_named(tmp_path: Path) -> None:
    """As in a CI container: root, but no mounts; layers are still made on vfs."""
    drop = ("setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin")

    said = toured(*drop, directory=tmp_path)

    assert "Containers cannot run here: no CAP_SYS_ADMIN" in said
    assert "[('D', '/deck'), ('A', '/mast')]" in said
    assert "True" in said
