"""A root with busybox in it, and what must be true of a root that nobody works on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stowage.engine import Engine
from stowage.errors import NotFound
from stowage.linux.mountinfo import read_mountinfo
from stowage.linux.netlink import Netlink
from stowage.linux.rtnetlink import read_links

from .kills import wait_until_true

WORKER = Path(__file__).with_name("worker.py")


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    from stowage.images.bootstrap import busybox

    with Engine(tmp_path) as engine:
        busybox(engine.images)
    yield tmp_path
    _remove_containers(tmp_path)


def _remove_containers(root: Path) -> None:
    """Remove them all; an exit command of ``--rm`` may be quicker with one."""
    with Engine(root) as engine:
        for record in engine.containers.list():
            try:
                engine.containers.remove(record.id, force=True)
            except NotFound:
                continue


@pytest.fixture
def spawn(root: Path) -> Iterator[Callable[[int, float, str], subprocess.Popen[str]]]:
    """Start a worker on the root and wait until it works; none outlives the test."""
    workers: list[subprocess.Popen[str]] = []

    def start(seed: int, seconds: float, operations: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(WORKER), str(root), str(seed), str(seconds), operations],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        workers.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()[1]
        return process

    yield start
    for worker in workers:
        with worker:
            worker.kill()
            worker.communicate()


def processes_of(root: Path) -> list[str]:
    """Command lines that name the root, our own and its workers' left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(root) in command:
            found.append(f"{entry.name} {command}")
    return found


def _assert_containers_are_what_they_say(root: Path) -> None:
    """In a moment, for one that has just ended is recorded by its monitor, or removed."""
    with Engine(root) as engine:
        for record in engine.containers.list():
            wait_until_true(engine, record.id)


def _settled(root: Path) -> list[str]:
    """Give conmon's exit commands, which end by themselves, the time to; return who stays."""
    deadline = time.monotonic() + 20
    while (found := processes_of(root)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


@pytest.fixture
def assert_in_order(root: Path) -> Callable[[], None]:
    """The check of a root that nobody works on."""
    return lambda: _assert_in_order(root)


def _assert_in_order(root: Path) -> None:
    """Open the root as the next command would, look at its containers, remove them, and look at
    everything."""
    _assert_containers_are_what_they_say(root)
    _remove_containers(root)
    with Engine(root) as engine:
        assert _settled(root) == []
        engine.layers.drain(30)
        findings = engine.layers.check(full=True)
        assert [str(finding) for finding in findings] == []
        rows = engine.metastore.read().execute("SELECT driver, id, state FROM snapshots")
        recorded = {(row["driver"], str(row["id"])) for row in rows}
        unfinished = engine.metastore.read().execute(
            "SELECT name FROM snapshots WHERE state != 'ready' OR committing IS NOT NULL"
        )
        assert [row["name"] for row in unfinished] == []
        on_disk = {
            (driver.name, directory.name)
            for driver in engine.layout.storage.iterdir()
            for directory in driver.iterdir()
            if directory.name.isdigit()
        }
        assert on_disk == recorded
        assert list(engine.layout.trash.iterdir()) == []
        assert list(engine.layout.containers.iterdir()) == []
        locks = sorted(path.name for path in engine.layout.locks.iterdir())
        assert [name for name in locks if name.startswith(("container-", "freeze-"))] == []
        running = engine.layout.running(engine.metastore.root_id)
        bundles = running / "containers"
        assert not bundles.exists() or list(bundles.iterdir()) == []
        states = running / "runtime"
        assert not states.exists() or list(states.iterdir()) == []
        root_id = engine.metastore.root_id
        _assert_no_network(engine)
    assert _cgroups(root_id) == []
    assert [m.target for m in read_mountinfo() if m.target.startswith(str(root))] == []
    assert _settled(root) == []


def _assert_no_network(engine: Engine) -> None:
    """No endpoint, address, published port or link of a container is left; networks stay."""
    read = engine.metastore.read()
    assert [tuple(row) for row in read.execute("SELECT * FROM endpoints")] == []
    assert [tuple(row) for row in read.execute("SELECT * FROM addresses")] == []
    deadline = time.monotonic() + 20
    while (links := _links()) and time.monotonic() < deadline:
        time.sleep(0.02)  # the kernel reaps them with their namespace
    assert links == []
    for network in engine.networks.list():
        found = list(engine.network(network.driver).check(network, None, None))
        assert found == [] or found[0].endswith("is missing")  # it was never made


def _links() -> list[str]:
    with Netlink() as netlink:
        return [link.name for link in read_links(netlink) if link.name.startswith("stw")]


def _cgroups(root_id: str) -> list[Path]:
    """Those of the root's containers, in each hierarchy; others come and go beside them."""
    mount = Path("/sys/fs/cgroup")
    places = [mount, *(entry for entry in mount.iterdir() if entry.is_dir())]
    return [found for place in places for found in place.glob(f"stowage/{root_id}/*/")]
