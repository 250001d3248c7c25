"""A root with an image in it, and the command line as a function."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from stowage.cli import main
from stowage.testing.abilities import missing
from stowage.testing.lab import Lab


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """Its only line of output; fails the test unless the command succeeded."""
        assert self.code == 0, self.err
        (line,) = self.out.splitlines()
        return line


Run = Callable[..., Done]


@pytest.fixture(scope="module")
def cli_root(lab: Lab) -> Iterator[Path]:
    """A root on tmpfs with the image busybox; what is left in it is removed."""
    for ability in ("mounts", "busybox"):
        if reason := missing(ability):
            pytest.skip(f"needs {ability}: {reason}")
    root = lab.directory / "cli"
    assert main(["--root", str(root), "bootstrap", "-q", "busybox"]) == 0
    yield root
    from stowage import Engine

    with Engine(root) as engine:
        for record in engine.containers.list():
            engine.containers.remove(record.id, force=True)
    shutil.rmtree(root)


@dataclass(frozen=True, slots=True)
class ForkServer:
    """One that listens on *path*."""

    path: Path
    pid: int

    def children(self) -> list[int]:
        """Those that run a command now."""
        words = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [int(word) for word in words]


@contextmanager
def fork_server_at(path: Path) -> Iterator[ForkServer]:
    """A fork server for the command line, which listens on *path*."""
    words = [sys.executable, "-P", "-m", "stowage", "system", "fork-server"]
    environment = {**os.environ, "STOWAGE_FORK_SERVER": str(path)}
    said = subprocess.run(words, env=environment, check=True, capture_output=True, text=True).stdout
    yield ForkServer(path, int(said.split()[2]))
    subprocess.run([*words, "--stop"], env=environment, check=True)


@pytest.fixture
def stowage(cli_root: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """``stowage("ps", "-a")`` on that root, in this process."""

    def run(*words: str) -> Done:
        capfd.readouterr()
        code = main(["--root", str(cli_root), *words])
        out, err = capfd.readouterr()
        return Done(code, out, err)

    return run
