"""Processes that do anything to one root at once leave a root that ``check`` calls clean."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path

import pytest

from stowage.errors import StowageError
from stowage.layers.store import LayerStore
from stowage.linux.mountinfo import read_mountinfo

pytestmark = pytest.mark.requires_root

OpenLayers = Callable[..., LayerStore]
MakeArchive = Callable[[Mapping[str, bytes]], BytesIO]


@pytest.mark.parametrize("driver", ["overlay", "vfs"])
def test_hammering_processes_leave_a_clean_root(
    driver: str, root: Path, open_layers: OpenLayers, rounds: Callable[[int, int], int]
) -> None:
    program = Path(__file__).with_name("hammer.py")
    seconds = str(rounds(2, 60))
    processes = [
        subprocess.Popen(
            [sys.executable, program, root, str(seed), seconds, driver],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for seed in range(3)
    ]
    outputs = [process.communicate()[0] for process in processes]

    assert [process.returncode for process in processes] == [0, 0, 0], "\n".join(outputs)
    layers = open_layers(driver)
    assert layers.check(full=True) == []
    assert layers.drain(20) == 0
    infos = list(layers.walk())
    storage = root / "data" / "storage" / driver
    assert {path.name for path in storage.iterdir()} == {str(info.id) for info in infos}
    assert not [entry for entry in read_mountinfo() if entry.target.startswith(f"{root}/")]


def test_threads_that_add_the_same_layer_end_with_one(
    layers: LayerStore, archive: MakeArchive
) -> None:
    made, failed = [], []

    def add() -> None:
        try:
            made.append(layers.add_layer(archive({"f": b"x" * 1000})))
        except StowageError as error:
            failed.append(error)

    threads = [threading.Thread(target=add) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failed == []
    assert len({info.id for info in made}) == 1
    assert len(list(layers.walk())) == 1
    layers.drain()
    assert layers.check(full=True) == []


def test_of_a_removal_and_a_child_exactly_one_wins(
    layers: LayerStore, open_layers: OpenLayers
) -> None:
    other = open_layers()
    for _ in range(20):
        layers.prepare("work")
        layers.commit("base", "work")
        results: list[str] = []

        def run(name: str, act: Callable[[], object], results: list[str] = results) -> None:
            try:
                act()
                results.append(name)
            except StowageError:
                pass

        threads = [
            threading.Thread(target=run, args=("remove", lambda: layers.remove("base"))),
            threading.Thread(target=run, args=("child", lambda: other.prepare("child", "base"))),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(results) == 1, results
        if results == ["child"]:
            layers.remove("child")
            layers.remove("base")
