"""A process killed at any of its effects leaves each layer whole or absent, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.requires_root

SCENARIOS = [
    "open", "commit", "apply", "add", "remove", "init", "mount", "mounted", "bring",
]  # fmt: skip


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_kill_at_any_effect_is_made_good(
    scenario: str, shm_dir: Path, rounds: Callable[[int, int], int]
) -> None:
    """Every 13th effect in the short profile, another start per driver; every one in the full."""
    program = Path(__file__).with_name("crash.py")
    short, full = rounds(1, 0), rounds(0, 1)
    drivers = ["overlay", "vfs"] if full else ["overlay" if len(scenario) % 2 else "vfs"]
    for driver in drivers:
        done = subprocess.run(
            [sys.executable, program, scenario, driver, shm_dir, "13" if short else "1"],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
