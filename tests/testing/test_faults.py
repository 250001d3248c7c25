"""The fault injector strikes exactly where its rules say."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stowage.effects import effect
from stowage.errors import InvalidArgument
from stowage.testing.faults import Fault, FaultObserver, inject, parse_faults


def touch(name: str, done: list[str]) -> None:
    with effect(name):
        done.append(name)


def test_only_the_nth_match_fails() -> None:
    done: list[str] = []

    with inject("effect=mount.*:n=2:errno=ENOSPC") as faults:
        touch("mount.move", done)
        touch("file.rename", done)
        with pytest.raises(OSError, match=r"injected at mount\.attach") as caught:
            touch("mount.attach", done)
        touch("mount.attach", done)

    assert caught.value.errno == errno.ENOSPC
    assert done == ["mount.move", "file.rename", "mount.attach"]
    assert faults.counts == {"mount.move": 1, "file.rename": 1, "mount.attach": 2}


def test_without_a_number_every_match_fails() -> None:
    with inject("effect=*:errno=EIO"):
        for _ in range(2):
            with pytest.raises(OSError, match="injected"):
                touch("e", [])


def test_after_means_that_it_has_happened() -> None:
    done: list[str] = []

    with inject("effect=e:after:errno=EIO"), pytest.raises(OSError, match="injected"):
        touch("e", done)

    assert done == ["e"]


def test_nothing_is_injected_once_the_context_is_left() -> None:
    with inject("effect=*:errno=EIO"):
        pass

    touch("e", [])


def test_a_delay_passes_the_effect_on() -> None:
    done: list[str] = []

    with inject("effect=e:delay=0.01"):
        started = time.monotonic()
        touch("e", done)

    assert time.monotonic() - started >= 0.01
    assert done == ["e"]


def test_a_call_is_matched_by_hook_or_by_driver_and_hook() -> None:
    faults = FaultObserver("call=storage_seal:n=2:errno=EIO;call=vfs/*:n=1:errno=EPERM")

    with faults.observer_call("overlay", "storage_seal", {}):
        pass
    with (
        pytest.raises(OSError, match="injected") as caught,
        faults.observer_call("overlay", "storage_seal", {}),
    ):
        pass
    assert caught.value.errno == errno.EIO
    with (
        pytest.raises(OSError, match="injected") as caught,
        faults.observer_call("vfs", "storage_probe", {}),
    ):
        pass
    assert caught.value.errno == errno.EPERM


PROGRAM = """
from stowage.effects import effect, observe
from stowage.testing.faults import FaultObserver
faults = FaultObserver()
observe(lambda name, facts: faults.observer_effect(name, facts))
for name in "abc":
    with effect(name):
        print(name, flush=True)
"""


def run_program(rules: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "STOWAGE_FAULTS": rules},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_environment_can_kill_a_process_at_an_effect() -> None:
    ended = run_program("effect=b:kill")

    assert ended.returncode == -signal.SIGKILL
    assert ended.stdout == "a\n"


def test_a_recording_lists_what_could_be_hit(tmp_path: Path) -> None:
    record = tmp_path / "record"
    ended = run_program(f"record:{record}")

    assert ended.returncode == 0
    assert [line.split()[1:] for line in record.read_text().splitlines()] == [
        ["effect", "a"], ["effect", "b"], ["effect", "c"],
    ]  # fmt: skip


def test_rules_are_parsed_into_faults() -> None:
    assert parse_faults("effect=a:n=1:kill; call=b:after:delay=0.5 ;record:/x") == (
        Fault("effect", "a", nth=1, kill=True),
        Fault("call", "b", after=True, delay_seconds=0.5),
    )


@pytest.mark.parametrize(
    "rule",
    ["x", "effect=", "thing=a:kill", "effect=a", "effect=a:n=x:kill", "effect=a:errno=ENOPE",
     "effect=a:hurt", "effect=a:delay=soon"],
)  # fmt: skip
def test_a_malformed_rule_is_named(rule: str) -> None:
    with pytest.raises(InvalidArgument, match=f"invalid fault '{rule}'"):
        parse_faults(rule)
