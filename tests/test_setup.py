"""`make setup` on machines that lack something: it says what, and goes on.

The script runs on a copy of the checkout's top, with stand-ins for apt-get, dpkg-query, id, pip
and python first on PATH, so nothing of the machine is touched.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


class Machine:
    """A checkout and the commands that its set-up meets."""

    def __init__(self, base: Path) -> None:
        self.checkout = base / "checkout"
        self.commands = base / "commands"
        self.log = base / "log"
        (self.checkout / "scripts").mkdir(parents=True)
        self.commands.mkdir()
        for name in ("scripts/setup.sh", "pyproject.toml"):
            shutil.copy(ROOT / name, self.checkout / name)
        self.command("id", "echo 0")
        self.command("dpkg-query", "exit 1")
        self.command("apt-get", f'echo "apt-get $*" >>{self.log}')
        python = self.checkout / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(f'#!/bin/sh\necho "python $*" >>{self.log}\n')
        python.chmod(0o755)

    def command(self, name: str, script: str) -> None:
        path = self.commands / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def set_up(self, **environment: str) -> str:
        """Run it; returns what it said. Fails unless it exits with 0."""
        self.log.write_text("")
        path = f"{self.commands}:/usr/bin:/bin"
        done = subprocess.run(
            [self.checkout / "scripts" / "setup.sh"],
            env={"PATH": path, "HOME": os.environ["HOME"], **environment},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout

    @property
    def calls(self) -> list[str]:
        """What was called since ``set_up``, in order."""
        return self.log.read_text().splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def installing(machine: Machine) -> list[str]:
    return [call for call in machine.calls if " install " in call]


def test_all_missing_packages_are_asked_for_at_once(machine: Machine) -> None:
    machine.set_up()

    (call,) = [call for call in installing(machine) if call.startswith("apt-get")]
    assert {"crun", "conmon", "busybox-static"} <= set(call.split())


def test_packages_that_are_there_are_not_asked_for(machine: Machine) -> None:
    each = "case $p in -*|'$'*) ;; *) echo \"$p install ok installed\";; esac"
    words = f'for p in "$@"; do {each}; done'
    machine.command("dpkg-query", words)

    machine.set_up()

    assert not [call for call in machine.calls if call.startswith("apt-get")]


def test_a_package_that_cannot_be_installed_is_named_and_the_rest_goes_on(
    machine: Machine,
) -> None:
    """Each is tried by itself then; what the lost one would have brought is said."""
    machine.command(
        "apt-get",
        f'echo "apt-get $*" >>{machine.log}\n'
        'case "$*" in *conmon*) echo "E: Unable to locate package conmon"; exit 100;; esac',
    )

    said = machine.set_up()

    assert "Unable to locate package conmon" in said
    assert "could not install conmon; without it: detached containers" in said
    assert "could not install crun" not in said
    assert any(call.endswith(" crun") for call in machine.calls)
    assert any(call.startswith("python") and ".[dev]" in call for call in machine.calls)


def test_what_failed_is_not_tried_again_unless_asked(machine: Machine) -> None:
    """The second time is quick, and still says what is missing."""
    machine.command("apt-get", f'echo "apt-get $*" >>{machine.log}; exit 100')
    machine.set_up()

    said = machine.set_up()
    assert machine.calls == []
    assert "still without crun" in said

    machine.command("apt-get", f'echo "apt-get $*" >>{machine.log}')
    said = machine.set_up(STOWAGE_SETUP_RETRY="1")
    assert any(call.startswith("apt-get") for call in machine.calls)
    assert "still without" not in said


def test_the_package_lists_are_refreshed_only_when_an_install_fails(machine: Machine) -> None:
    machine.set_up()
    assert not [call for call in machine.calls if "update" in call]


def test_without_root_it_says_what_to_install_and_sets_up_the_rest(machine: Machine) -> None:
    machine.command("id", "echo 1000")

    said = machine.set_up()

    assert "not root" in said
    assert re.search(r"As root: apt-get install .*\bcrun\b", said)
    assert not [call for call in machine.calls if call.startswith("apt-get")]
    assert any(".[dev]" in call for call in machine.calls)


def test_an_extra_that_cannot_be_built_is_named_and_the_rest_goes_on(machine: Machine) -> None:
    python = machine.checkout / ".venv" / "bin" / "python"
    python.write_text(
        f'#!/bin/sh\necho "python $*" >>{machine.log}\ncase "$*" in *iptables*) exit 1;; esac\n'
    )

    said = machine.set_up()

    assert "could not install stowage[iptables]; without it: the firewall backend" in said
    assert "stowage[fuse]" not in said


def test_a_changed_pyproject_is_installed_again(machine: Machine) -> None:
    machine.set_up()
    machine.set_up()
    before = [call for call in machine.calls if ".[dev]" in call]
    with (machine.checkout / "pyproject.toml").open("a") as file:
        file.write("\n# changed\n")

    machine.set_up()

    assert before == []
    assert [call for call in machine.calls if ".[dev]" in call]


@pytest.mark.parametrize(
    "target", ["run", "test", "test-full", "lint", "types", "bench", "docs", "setup"]
)
def test_every_target_sets_up_by_itself(target: str) -> None:
    done = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", target],
        env={"PATH": os.environ["PATH"]},  # without what a make around us has left there
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert done.stdout.splitlines()[0] == "scripts/setup.sh"
