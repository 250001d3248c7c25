"""Killed at any instant, a process leaves nothing that the next start does not put in order."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable

import pytest

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
    spawn: Spawn, assert_in_order: Callable[[], None], rounds: Rounds
) -> None:
    """Neither meets an error that it did not ask for, and what is left checks clean."""
    seconds = rounds(6, 120)
    everything = "apply,run,start,commit,rm,rmi,prepare"
    workers = [spawn(seed, seconds, everything) for seed in (1, 2)]
    for worker in workers:
        _, errors = worker.communicate(timeout=seconds + 120)

        assert worker.returncode == 0, errors
    assert_in_order()
