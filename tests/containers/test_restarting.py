"""Containers that run again: by their policy, by hand, after a reboot; whatever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

import pytest
from msgspec.structs import replace

from stowage.containers.model import ContainerRecord, ContainerState
from stowage.containers.restarts import RestartFacts, parse_restart_policy
from stowage.errors import FailedPrecondition, InvalidArgument
from stowage.linux.process import wait_gone

from .boxes import Boxes, until

#: Counts its runs in a file and ends with 3.
FAILS = ("sh", "-c", "echo x >> /runs; exit 3")


def start(boxes: Boxes, *command: str, policy: str, **asked: Any) -> ContainerRecord:
    return boxes.start(*command, restart=parse_restart_policy(policy), **asked)


def now(boxes: Boxes, record: ContainerRecord) -> ContainerRecord:
    return boxes.containers.get(record.id)


def in_state(boxes: Boxes, record: ContainerRecord, state: ContainerState) -> ContainerRecord:
    until(lambda: now(boxes, record).state is state, f"the state {state.value}")
    return now(boxes, record)


def slow_down(boxes: Boxes, record: ContainerRecord) -> None:
    """Make the next wait before a restart a minute."""
    restarts = replace(now(boxes, record).runtime.restarts, wait_ms=60_000)
    with boxes.context.locked(record.id, "test"):
        boxes.context.rows.update(now(boxes, record), restarts=restarts)


def waiting(boxes: Boxes) -> ContainerRecord:
    """A container that waits a minute to be restarted."""
    record = start(boxes, "sleep", "60", policy="always")
    slow_down(boxes, record)
    process = now(boxes, record).runtime.process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    in_state(boxes, record, ContainerState.RESTARTING)
    until(lambda: now(boxes, record).runtime.monitor_process, "somebody to wait")
    return now(boxes, record)


def actions(boxes: Boxes, record: ContainerRecord) -> list[str]:
    rows = boxes.engine.metastore.read().execute(
        "SELECT action FROM journal WHERE actor = ? AND type = 'container' ORDER BY seq",
        (record.id,),
    )
    return [row["action"] for row in rows]


def test_a_failing_container_is_restarted_as_often_as_it_asked(boxes: Boxes) -> None:
    record = start(boxes, *FAILS, policy="on-failure:2")
    ended = in_state(boxes, record, ContainerState.EXITED)

    assert ended.runtime.restarts.count == 2
    assert ended.runtime.exit_code == 3
    assert actions(boxes, record) == ["create", *(["start", "die"] * 3)]
    until(lambda: not boxes.processes(), "conmon and its exit command to end")
    boxes.containers.start(record.id)
    assert now(boxes, record).runtime.restarts.count == 0


def test_waiting_ends_with_each_run(boxes: Boxes) -> None:
    """As in Docker: a restart does not make `wait` wait on."""
    record = start(boxes, "sh", "-c", "sleep 0.2; exit 7", policy="always")

    assert boxes.containers.wait(record.id, timeout_seconds=30) == 7
    assert boxes.containers.wait(record.id, timeout_seconds=30) == 7


def test_what_is_restarting_counts_as_running(boxes: Boxes) -> None:
    """And refuses what needs a process, in Docker's words."""
    record = waiting(boxes)

    assert boxes.containers.pid(record.id) == 0
    with pytest.raises(FailedPrecondition, match=r"^Container \w+ is restarting, wait until"):
        boxes.shell(record, "true")
    with pytest.raises(FailedPrecondition, match=r"^Container \w+ is restarting, wait until"):
        boxes.containers.pause(record.id)
    with pytest.raises(FailedPrecondition, match=r"remove a restarting container \w+\. Stop the"):
        boxes.containers.remove(record.id)
    with pytest.raises(FailedPrecondition, match="attach to a restarting container, wait until"):
        boxes.containers.attach(record.id)
    assert boxes.containers.start(record.id).state is ContainerState.RESTARTING


@pytest.mark.parametrize("verb", ["stop", "kill", "remove"])
def test_its_user_ends_the_waiting(boxes: Boxes, verb: str) -> None:
    """Nobody waits on, and it stays ended."""
    record = waiting(boxes)
    waiter = record.runtime.monitor_process
    assert waiter is not None
    assert waiter.alive
    if verb == "remove":
        boxes.containers.remove(record.id, force=True)
    else:
        getattr(boxes.containers, verb)(record.id)

    assert wait_gone(waiter, 10)
    boxes.open()
    if verb == "remove":
        assert boxes.containers.list() == []
    else:
        after = now(boxes, record)
        assert (after.state, after.runtime.exit_code) == (ContainerState.EXITED, 137)


def test_what_was_stopped_stays_so_and_what_was_signalled_does_not(boxes: Boxes) -> None:
    script = "trap 'exit 5' HUP; while :; do sleep 0.02; done"
    record = start(boxes, "sh", "-c", script, policy="always")
    until(lambda: "sleep" in boxes.shell(record, "ps"), "the trap to be set")
    boxes.containers.kill(record.id, "HUP")
    until(lambda: now(boxes, record).runtime.restarts.count == 1, "a restart")
    in_state(boxes, record, ContainerState.RUNNING)
    boxes.containers.stop(record.id, 0)

    assert now(boxes, record).state is ContainerState.EXITED
    assert now(boxes, record).runtime.restarts.stopped


def test_a_killed_waiter_is_followed_by_another(boxes: Boxes) -> None:
    record = waiting(boxes)
    waiter = record.runtime.monitor_process
    assert waiter is not None
    os.kill(waiter.pid, signal.SIGKILL)
    assert wait_gone(waiter, 10)
    assert now(boxes, record).state is ContainerState.RESTARTING
    restarts = replace(record.runtime.restarts, due_ns=0)
    boxes.context.rows.update(now(boxes, record), restarts=restarts)
    boxes.open()

    assert in_state(boxes, record, ContainerState.RUNNING).runtime.restarts.count == 1


def test_a_lost_monitor_is_a_failure_that_is_restarted(boxes: Boxes) -> None:
    """What conmon left is killed, and 137 recorded."""
    record = start(boxes, "sleep", "60", policy="on-failure")
    monitor, process = record.runtime.monitor_process, record.runtime.process
    assert monitor is not None
    assert process is not None
    os.kill(monitor.pid, signal.SIGKILL)
    wait_gone(monitor)
    boxes.open()

    assert not process.alive
    again = in_state(boxes, record, ContainerState.RUNNING)
    assert again.runtime.restarts.count == 1
    row = boxes.engine.metastore.read().execute(
        "SELECT attributes FROM journal WHERE actor = ? AND action = 'die'", (record.id,)
    )
    assert '"exitCode": "137"' in row.fetchone()[0].replace('":"', '": "')


def test_a_restart_that_fails_is_the_last(boxes: Boxes) -> None:
    record = start(boxes, "sh", "-c", "rm /bin/sh; exit 1", policy="always")
    ended = in_state(boxes, record, ContainerState.EXITED)

    assert ended.runtime.exit_code == 127
    assert "not found" in ended.runtime.error
    until(lambda: not boxes.processes(), "all to end")


# --- by hand --------------------------------------------------------------------------------------


def test_restarting_by_hand_stops_and_starts(boxes: Boxes) -> None:
    record = boxes.start("sleep", "60")
    again = boxes.containers.restart(record.id, 0)

    assert again.state is ContainerState.RUNNING
    assert again.runtime.process != record.runtime.process
    assert actions(boxes, record)[-5:] == ["kill", "die", "stop", "start", "restart"]
    boxes.containers.stop(record.id, 0)
    assert boxes.containers.restart(record.id).state is ContainerState.RUNNING


def test_one_that_goes_with_its_end_survives_a_restart(boxes: Boxes) -> None:
    record = boxes.start("sleep", "60", auto_remove=True)

    boxes.containers.restart(record.id, 0)

    assert now(boxes, record).state is ContainerState.RUNNING
    boxes.containers.stop(record.id, 0)
    assert boxes.containers.list() == []


def test_one_that_goes_with_its_end_goes_if_its_restart_was_killed(boxes: Boxes) -> None:
    """Killed between the stop and the start."""
    record = boxes.start("sleep", "60", auto_remove=True)
    script = (
        "import os, signal, sys\n"
        "from stowage.engine import Engine\n"
        "from stowage.containers import starting\n"
        "starting.start = lambda *words: os.kill(os.getpid(), signal.SIGKILL)\n"
        "Engine(sys.argv[1]).containers.restart(sys.argv[2], 0)\n"
    )
    command = [sys.executable, "-c", script, str(boxes.root), record.id]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert now(boxes, record).state is ContainerState.EXITED
    # recovery leaves alone what somebody has locked: conmon's exit command, for a moment
    until(lambda: not boxes.open().list(), "its removal")
    assert boxes.leftovers() == []


def test_a_run_in_process_has_no_policy(boxes: Boxes) -> None:
    with pytest.raises(InvalidArgument, match="cannot be restarted by a policy"):
        boxes.run("true", restart=parse_restart_policy("always"))
    with pytest.raises(InvalidArgument, match="cannot be restarted by a policy"):
        boxes.engine.run("busybox", ["true"], restart="always")
    made = boxes.engine.create("busybox", ["true"], network="none", restart="on-failure:2")
    assert str(made.spec.restart) == "on-failure:2"


# --- after a reboot -------------------------------------------------------------------------------


def reboot(boxes: Boxes, *records: ContainerRecord) -> None:
    """Kill all of them, and make their rows say that it was another boot."""
    for record in records:
        seen = now(boxes, record)
        with boxes.context.locked(record.id, "test"):
            for process in (seen.runtime.monitor_process, seen.runtime.process):
                if process is not None and process.alive:
                    os.kill(process.pid, signal.SIGKILL)
                    wait_gone(process, 10)
            restarts = replace(seen.runtime.restarts, boot_id="another")
            monitor = seen.runtime.monitor_process
            boxes.context.rows.update(
                seen,
                restarts=restarts,
                process=seen.runtime.process and replace(seen.runtime.process, boot_id="another"),
                monitor_process=monitor and replace(monitor, boot_id="another"),
            )


def test_a_reboot_ends_all_and_resuming_starts_what_is_to_run(boxes: Boxes) -> None:
    """Each with 255; nothing starts before, and a second resuming starts nothing."""
    plain = boxes.start("sleep", "60")
    always = start(boxes, "sleep", "60", policy="always")
    stopped = start(boxes, "sleep", "60", policy="unless-stopped")
    boxes.containers.stop(stopped.id, 0)
    failing = start(boxes, "sleep", "60", policy="on-failure")
    unready = waiting(boxes)
    reboot(boxes, plain, always, stopped, failing, unready)
    boxes.open()
    states = {record.id: record.state for record in boxes.containers.list()}
    assert set(states.values()) == {ContainerState.EXITED}
    assert now(boxes, plain).runtime.exit_code == 255
    resumed = boxes.containers.resume()

    assert [(record.id, error) for record, error in resumed] == [
        (always.id, None),
        (failing.id, None),
        (unready.id, None),
    ]
    assert now(boxes, always).runtime.restarts == RestartFacts(
        boot_id=now(boxes, always).runtime.restarts.boot_id
    )
    assert boxes.containers.resume() == []
    boxes.containers.stop(always.id, 0)
    assert boxes.containers.resume() == []
