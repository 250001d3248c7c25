"""Containers on btrfs, by the commands that a user types."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stowage.testing.abilities import missing


class Commands:
    def __init__(self, root: Path) -> None:
        self.prefix = [sys.executable, "-m", "stowage", "--root", str(root)]
        self.prefix += ["--storage-driver", "btrfs", "--bridge", "none"]

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self.prefix, *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def stowage(disk: Path, subvolumes: Callable[[Path], int]) -> Iterator[Commands]:
    for ability in ("containers", "conmon", "busybox"):
        if reason := missing(ability):
            pytest.skip(f"needs {ability}: {reason}")
    commands = Commands(disk / "root")
    yield commands
    commands("rm", "-f", "one")
    commands("rmi", "two", "busybox")
    commands("gc")
    assert subvolumes(disk) == 0


def test_run_exec_diff_commit_and_run_again(stowage: Commands) -> None:
    stowage("bootstrap", "busybox")
    stowage("run", "-d", "--net", "none", "--name", "one", "--storage-opt", "size=64M",
            "busybox", "sleep", "600")  # fmt: skip
    stowage("exec", "one", "sh", "-c", "echo new > /root/file; rm -r /var")
    assert stowage("diff", "one").splitlines() == ["C /root", "A /root/file", "D /var"]

    stowage("commit", "one", "two")

    assert stowage("run", "--rm", "--net", "none", "two", "cat", "/root/file") == "new\n"
    assert "btrfs" in stowage("info")
