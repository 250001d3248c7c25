"""Killed at any instant, a process leaves nothing that the next start does not put in order."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stowage.engine import Engine

Spawn = Callable[[int, float, str], "subprocess.Popen[str]"]
Rounds = Callable[[int, int], int]

pytestmark = pytest.mark.requires("containers")


@pytest.mark.parametrize(
    "operations", ["apply,rmi", "start,commit,rm", "run", "apply,run,start,commit,rm,rmi"]
)
def test_a_kill_at_a_random_instant_leaves_the_root_in_order(
    operations: str, spawn: Spawn, assert_in_order: Callable[[], None], rounds: Rounds
) -> None:
    """Four kinds of work, killed after up to half a second of it, then a start."""
    for seed in range(rounds(4, 50)):
        worker = spawn(seed, 60, operations)
        time.sleep(random.Random(f"{operations}{seed}").uniform(0, 0.5))
        worker.kill()
        _, errors = worker.communicate()

        assert "Traceback" not in errors, errors
        assert_in_order()


def test_two_processes_hammering_one_root_end_in_order(
    root: Path, spawn: Spawn, assert_in_order: Callable[[], None], rounds: Rounds
) -> None:
    """Neither meets an error that it did not ask for, no two containers have anything of their
    own in common at any time, and what is left checks clean."""
    seconds = rounds(6, 120)
    everything = "apply,run,start,commit,rm,rmi,prepare"
    workers = [spawn(seed, seconds, everything) for seed in (1, 2)]
    seen = 0
    with Engine(root) as engine:
        while any(worker.poll() is None for worker in workers):
            seen = max(seen, assert_nothing_twice(engine))
            time.sleep(0.05)
    for worker in workers:
        _, errors = worker.communicate()

        assert worker.returncode == 0, errors
    assert seen > 1
    assert_in_order()


def assert_nothing_twice(engine: Engine) -> int:
    """Returns how many containers have an address now."""
    endpoints = [e for network in engine.networks.list()
                 for e in engine.networks.endpoints_on(network.id)]  # fmt: skip
    ports = [port for e in endpoints for port in e.ports]
    ours = {
        "name": [record.name for record in engine.containers.list()],
        "address": [str(one.ip) for e in endpoints for one in e.addresses],
        "link": [e.host_interface for e in endpoints if e.host_interface],
        "MAC address": [e.mac_address for e in endpoints if e.mac_address],
        "port": [f"{port.host_port}/{port.protocol}" for port in ports],
    }
    for what, found in ours.items():
        assert len(set(found)) == len(found), f"{what}: {sorted(found)}"
    return len(endpoints)
