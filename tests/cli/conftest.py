"""A root with an image in it, and the command line as a function."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
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


@pytest.fixture
def stowage(cli_root: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """``stowage("ps", "-a")`` on that root, in this process."""

    def run(*words: str) -> Done:
        capfd.readouterr()
        code = main(["--root", str(cli_root), *words])
        out, err = capfd.readouterr()
        return Done(code, out, err)

    return run
