"""conmon's exit command looks before it starts for good."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stowage.cli.finished import is_finished
from stowage.containers.model import ContainerSpec
from stowage.engine import Engine
from stowage.images.bootstrap import busybox

pytestmark = pytest.mark.requires("containers")


def _words(engine: Engine, container: str, run: str) -> list[str]:
    layout = engine.layout
    return [
        "--data-root", str(layout.data_root), "--exec-root", str(layout.exec_root),
        "container", "finish", container, run,
    ]  # fmt: skip


def test_only_an_end_that_is_recorded_is_finished(tmp_path: Path) -> None:
    with Engine(tmp_path) as engine:
        busybox(engine.images)
        spec = ContainerSpec(image="busybox", command=("sleep", "100"), network="none")
        made = engine.containers.create(spec)
        record = engine.containers.start(made.id)
        try:
            assert not is_finished(_words(engine, record.id, record.runtime.run))
            assert is_finished(_words(engine, record.id, "another"))
            assert not is_finished(_words(engine, record.id, record.runtime.run)[2:])

            engine.containers.kill(record.id)
            engine.containers.wait(record.id)

            assert is_finished(_words(engine, record.id, record.runtime.run))
        finally:
            engine.containers.remove(record.id, force=True)
        assert is_finished(_words(engine, record.id, record.runtime.run))


def test_who_holds_the_lock_is_waited_for(tmp_path: Path) -> None:
    with Engine(tmp_path) as engine:
        container = "c" * 64
        lease = engine.containers._context.locks.acquire(
            f"container-{container}", exclusive=True, subject="it", purpose="a test"
        )
        words = _words(engine, container, "run")
        process = subprocess.Popen([sys.executable, "-P", "-m", "stowage", *words])
        try:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.5)
        finally:
            lease.close()
        assert process.wait(20) == 0


def test_without_a_root_there_is_doubt(tmp_path: Path) -> None:
    words = ["--data-root", str(tmp_path), "--exec-root", "x", "container", "finish", "i", "r"]

    assert not is_finished(words)
