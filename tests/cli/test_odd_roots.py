"""Roots whose paths hold the characters that other programs give a meaning to."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable

import pytest

from stowage.cli import main
from stowage.testing.lab import Lab

NAME = "c:a,b\\c\nnew line"

pytestmark = pytest.mark.requires("containers", "conmon", "busybox")


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_a_root_may_have_any_path(
    lab: Lab, capfd: pytest.CaptureFixture[str], runtime: str
) -> None:
    """run, run -d, exec and logs work, errors keep their words, and nothing lands beside it."""
    if shutil.which(runtime) is None:
        pytest.skip(f"{runtime} is not installed")
    beside = lab.directory / "odd"
    root = beside / NAME

    def stowage(*words: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main(["--root", str(root), "--default-runtime", runtime, *words])
        return code, *capfd.readouterr()

    try:
        assert stowage("bootstrap", "-q", "busybox")[0] == 0
        run = ("run", "--network", "none")
        assert stowage(*run, "--rm", "busybox", "echo", "ok")[:2] == (0, "ok\n")
        code, _, err = stowage(*run, "--rm", "busybox", "nosuch")
        assert (code, "executable file not found in $PATH" in err) == (127, True)
        script = "echo hi; while [ ! -e /end ]; do sleep 0.05; done; exit 3"
        assert stowage(*run, "-d", "--name", "box", "busybox", "sh", "-c", script)[0] == 0
        assert _soon_logged(stowage) == "hi\n"
        assert stowage("exec", "box", "touch", "/end")[0] == 0
        assert stowage("wait", "box")[1] == "3\n"
        assert [entry.name for entry in beside.iterdir()] == [NAME]
    finally:
        stowage("rm", "-f", "box")
        shutil.rmtree(beside)


def _soon_logged(stowage: Callable[..., tuple[int, str, str]]) -> str:
    deadline = time.monotonic() + 10
    while not (text := stowage("logs", "box")[1]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return text
