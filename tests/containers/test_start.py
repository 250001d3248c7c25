"""Containers under conmon: they outlive who starts them; logs, exec, signals, removal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from stowage.containers.exec import ExecSpec
from stowage.containers.model import ContainerState
from stowage.containers.processes import first_process
from stowage.containers.runtime import Runtime
from stowage.containers.streams import Streams
from stowage.errors import (
    AlreadyExists,
    Busy,
    CommandFailed,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)
from stowage.linux.cgroups import Cgroup
from stowage.linux.process import ProcessIdentity

from .boxes import Boxes, until


def logged(boxes: Boxes, reference: str) -> str:
    return b"".join(entry.text for entry in boxes.containers.logs(reference)).decode()


def monitor_of(boxes: Boxes, reference: str) -> ProcessIdentity:
    monitor = boxes.containers.get(reference).runtime.monitor_process
    assert monitor is not None
    return monitor


def test_a_started_container_runs_on_its_own_and_its_end_is_recorded(boxes: Boxes) -> None:
    record = boxes.start("sh", "-c", "echo out; echo err >&2; sleep 0.3; exit 7", name="box")

    assert record.state is ContainerState.RUNNING
    assert boxes.containers.pid("box") > 0
    assert boxes.containers.wait("box") == 7
    after = boxes.containers.get("box")
    assert after.state is ContainerState.EXITED
    assert after.runtime.exit_code == 7
    entries = sorted((entry.stream, entry.text) for entry in boxes.containers.logs("box"))
    assert entries == [("stderr", b"err\n"), ("stdout", b"out\n")]
    kept = str(boxes.context.files(record.id).kept)
    assert [place for place in boxes.leftovers() if place != kept] == []


def test_conmon_inherits_no_directory(boxes: Boxes) -> None:
    record = boxes.start("sleep", "60")
    assert record.runtime.monitor_process is not None
    held = Path(f"/proc/{record.runtime.monitor_process.pid}/fd")
    targets = [Path(os.readlink(entry)) for entry in held.iterdir()]

    assert any(str(target).startswith("net:[") for target in targets)
    assert not any(str(target).startswith("mnt:[") for target in targets)
    assert not any(target.is_dir() for target in targets)


def test_its_starter_may_be_killed(boxes: Boxes) -> None:
    script = (
        "import sys, os, signal\n"
        "from stowage.engine import Engine\n"
        "engine = Engine(sys.argv[1])\n"
        "engine.containers.start(sys.argv[2])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    record = boxes.containers.create(boxes.spec("sleep", "60"))
    starter = subprocess.run([sys.executable, "-c", script, boxes.root, record.id], check=False)
    boxes.open()

    assert starter.returncode == -signal.SIGKILL
    assert boxes.containers.get(record.id).state is ContainerState.RUNNING
    assert boxes.shell(record, "echo alive") == "alive\n"
    boxes.containers.remove(record.id, force=True)
    until(lambda: not boxes.processes(), "the processes to end")
    assert boxes.leftovers() == []


def test_the_command_itself_finishes_a_container(boxes: Boxes) -> None:
    """conmon's exit command is ``stowage … container finish``."""
    boxes.context._exit_command = None
    record = boxes.start("sh", "-c", "exit 3", auto_remove=True)

    assert boxes.containers.wait(record.id) == 3
    until(lambda: not boxes.processes(), "conmon to end")
    assert boxes.containers.list() == []
    boxes.open()


def test_an_end_is_recorded_only_of_the_run_that_has_ended(boxes: Boxes) -> None:
    first = boxes.start("sleep", "60")
    with pytest.raises(FailedPrecondition, match="has not ended"):
        boxes.containers.finish(first.id, first.runtime.run)
    boxes.containers.kill(first.id)
    boxes.containers.wait(first.id)
    again = boxes.containers.start(first.id)
    boxes.containers.finish(first.id, first.runtime.run)
    boxes.containers.finish(first.id, "")

    assert again.runtime.run != first.runtime.run
    assert boxes.containers.get(first.id).state is ContainerState.RUNNING
    assert boxes.shell(again, "echo well") == "well\n"


def test_restarting_keeps_what_was_written(boxes: Boxes) -> None:
    record = boxes.start("sh", "-c", "echo again >> /log; cat /log")
    boxes.containers.wait(record.id)
    boxes.containers.start(record.id)
    boxes.containers.wait(record.id)

    assert logged(boxes, record.id) == "again\nagain\nagain\n"


def test_stop_asks_and_then_kills(boxes: Boxes) -> None:
    polite = boxes.start("sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.05; done")
    deaf = boxes.start("sleep", "60")
    until(lambda: boxes.shell(polite, "ps").count("sleep"), "the trap to be set")
    boxes.containers.stop(polite.id)
    boxes.containers.stop(deaf.id, timeout_seconds=0.1)

    assert boxes.containers.get(polite.id).runtime.exit_code == 5
    assert boxes.containers.get(deaf.id).runtime.exit_code == 137


def test_the_stop_signal_is_the_containers(boxes: Boxes) -> None:
    script = "trap 'exit 6' USR1; while :; do sleep 0.05; done"
    record = boxes.start("sh", "-c", script, stop_signal="SIGUSR1")
    until(lambda: boxes.shell(record, "ps").count("sleep"), "the trap to be set")
    boxes.containers.stop(record.id)

    assert boxes.containers.get(record.id).runtime.exit_code == 6


def test_kill_refuses_what_does_not_run(boxes: Boxes) -> None:
    record = boxes.containers.create(boxes.spec("true", name="still"))

    with pytest.raises(FailedPrecondition, match="Cannot kill container: still: Container"):
        boxes.containers.kill("still")
    with pytest.raises(InvalidArgument, match="Invalid signal: NOPE"):
        boxes.containers.kill(record.id, "NOPE")


def test_removing_a_running_container_takes_force(boxes: Boxes) -> None:
    record = boxes.start("sleep", "60")

    with pytest.raises(FailedPrecondition, match="You cannot remove a running container"):
        boxes.containers.remove(record.id)
    boxes.containers.remove(record.id, force=True)
    with pytest.raises(NotFound, match=f"No such container: {record.id}"):
        boxes.containers.get(record.id)
    until(lambda: not boxes.processes(), "the processes to end")
    assert boxes.leftovers() == []


def test_its_snapshot_is_in_use_while_it_runs(boxes: Boxes) -> None:
    record = boxes.start("sleep", "60", name="holder")

    with pytest.raises(Busy, match="holder"):
        boxes.engine.layers.attach(record.snapshot, driver=record.driver).close()


def test_names_conflict_in_dockers_words(boxes: Boxes) -> None:
    first = boxes.containers.create(boxes.spec("true", name="web"))

    with pytest.raises(AlreadyExists) as refusal:
        boxes.containers.create(boxes.spec("true", name="web"))
    assert refusal.value.brief == (
        f'Conflict. The container name "/web" is already in use by container "{first.id}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )
    boxes.containers.rename("web", "other")
    assert boxes.containers.get("other").id == boxes.containers.get(first.id[:10]).id == first.id


def test_a_start_that_fails_leaves_it_created(boxes: Boxes) -> None:
    record = boxes.containers.create(boxes.spec("nosuchcmd"))

    with pytest.raises(CommandFailed) as failure:
        boxes.containers.start(record.id)
    after = boxes.containers.get(record.id)
    assert failure.value.exit_code == after.runtime.exit_code == 127
    assert after.state is ContainerState.CREATED
    assert after.runtime.error == failure.value.brief
    until(lambda: not boxes.processes(), "conmon to end")
    assert boxes.leftovers() == [str(boxes.context.files(record.id).kept)]


def test_a_runtime_that_hangs_keeps_nothing_else_from_going(
    boxes: Boxes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    record = boxes.start("sleep", "60")
    hanging = tmp_path / "hanging"
    hanging.write_text("#!/bin/sh\nexec sleep 30\n")
    hanging.chmod(0o755)
    monkeypatch.setattr("stowage.containers.runtime._TIMEOUT_SECONDS", 0.2)
    stuck = Runtime("crun", str(hanging), boxes.context.default_runtime.root)
    with pytest.raises(CommandFailed, match="did not end within"):
        stuck.start(record.id, tmp_path / "log")
    monkeypatch.setattr(boxes.context, "runtime_of", lambda record: stuck)
    boxes.containers.remove(record.id, force=True)
    until(lambda: not boxes.processes(), "conmon to end")

    assert boxes.containers.list() == []
    assert [place for place in boxes.leftovers() if "/runtime/" not in place] == []
    boxes.open()
    assert boxes.leftovers() == []


def test_what_recovery_does_not_expect_does_not_keep_the_root_closed(
    boxes: Boxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes.containers.create(boxes.spec("true"))
    stray = boxes.context.files("cd" * 32)
    stray.make_kept()
    with monkeypatch.context() as patched:
        patched.setattr("stowage.containers.recovery._sweep", lambda *a: 1 / 0)
        assert len(boxes.open().list()) == 1
    boxes.open()
    assert not stray.kept.exists()


def test_one_whose_processes_do_not_die_has_not_ended(
    boxes: Boxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = boxes.start("sleep", "60")
    endpoints = boxes.engine.networks.endpoints(record.id)

    def stuck(cgroup: Cgroup) -> None:
        raise TimeoutError

    with monkeypatch.context() as patched:
        patched.setattr(Cgroup, "kill", stuck)
        with pytest.raises(Busy, match="does not end"):
            boxes.containers.remove(record.id, force=True)
        until(lambda: not boxes.processes(), "conmon to end")
        boxes.open()
        assert boxes.containers.get(record.id).state is ContainerState.RUNNING
        assert boxes.engine.networks.endpoints(record.id) == endpoints
    boxes.open()
    assert boxes.containers.get(record.id).state is ContainerState.EXITED


def test_a_pid_file_is_not_believed_about_others(boxes: Boxes) -> None:
    record, other = boxes.start("sleep", "60"), boxes.start("sleep", "60")
    assert other.runtime.process is not None
    boxes.context.files(record.id).pid_file.write_text(str(other.runtime.process.pid))
    unknown = replace(record, runtime=replace(record.runtime, process=None))

    assert first_process(boxes.context, unknown) == record.runtime.process


# --- exec -------------------------------------------------------------------------------------


def test_exec_is_inside(boxes: Boxes) -> None:
    record = boxes.start("sleep", "60", hostname="inside", env=("A=1",))
    said = boxes.shell(
        record, "hostname; id -u; pwd; echo $A$B; ps", env=("B=2",), user="app", working_dir="/tmp"
    ).splitlines()

    assert said[:4] == ["inside", "1000", "/tmp", "12"]
    assert said[5].split()[0] == "1"


def test_exec_feeds_and_gives_the_exit_code(boxes: Boxes) -> None:
    record = boxes.start("sleep", "60")
    done = boxes.containers.exec(
        record.id, ExecSpec(("sh", "-c", "cat; echo e >&2; exit 9")), Streams(stdin=b"fed")
    )

    assert (done.exit_code, done.stdout, done.stderr) == (9, b"fed", b"e\n")


def test_exec_detached_returns_at_once(boxes: Boxes) -> None:
    record = boxes.start("sleep", "60")
    begun = time.monotonic()
    boxes.containers.exec(
        record.id, ExecSpec(("sh", "-c", "sleep 0.5; touch /made; sleep 60"), detach=True)
    )

    assert time.monotonic() - begun < 30
    until(lambda: "/made" in boxes.shell(record, "ls -d /made"), "the file to be made")


@pytest.mark.parametrize(
    "script",
    [
        "echo up; sleep 25 & wait",
        "echo up; (sleep 25 & sleep 25) & exec sleep 25",
    ],
)
def test_a_time_out_ends_all_that_an_exec_started(boxes: Boxes, script: str) -> None:
    record = boxes.start("sleep", "60")
    begun = time.monotonic()
    done = boxes.containers.exec(record.id, ExecSpec(("sh", "-c", script)), timeout_seconds=1)

    assert done.timed_out
    assert done.stdout == b"up\n"
    assert time.monotonic() - begun < 15
    assert "sleep 25" not in boxes.shell(record, "ps")
    assert boxes.containers.get(record.id).state is ContainerState.RUNNING


def test_an_exec_ends_with_its_process_and_leaves_others_running(boxes: Boxes) -> None:
    record = boxes.start("sleep", "60")
    done = boxes.containers.exec(record.id, ExecSpec(("sh", "-c", "sleep 25 & echo up")))

    assert (done.exit_code, done.stdout) == (0, b"up\n")
    assert "sleep 25" in boxes.shell(record, "ps")


def test_an_exec_that_times_out_before_it_runs_never_does(boxes: Boxes) -> None:
    record = boxes.start("sleep", "60")
    command = ExecSpec(("sh", "-c", "touch /ran; sleep 25"))
    done = boxes.containers.exec(record.id, command, timeout_seconds=0)

    assert done.timed_out
    assert "sleep 25" not in boxes.shell(record, "sleep 0.2; ps")
    assert boxes.containers.get(record.id).state is ContainerState.RUNNING


def test_exec_refuses_in_dockers_words(boxes: Boxes) -> None:
    record = boxes.start("sleep", "60")
    for command, code in (("nosuch", 127), ("/etc/passwd", 126)):
        with pytest.raises(CommandFailed) as failure:
            boxes.containers.exec(record.id, ExecSpec((command,)))
        assert failure.value.exit_code == code
    with pytest.raises(CommandFailed, match="resolves to '/proc") as failure:
        boxes.containers.exec(record.id, ExecSpec(("ls",), working_dir="/proc/self/fd/9"))
    assert failure.value.exit_code == 126
    boxes.containers.kill(record.id)
    boxes.containers.wait(record.id)
    with pytest.raises(FailedPrecondition, match=f"Container {record.id} is not running"):
        boxes.containers.exec(record.id, ExecSpec(("true",)))


# --- logs -------------------------------------------------------------------------------------


def test_following_the_log_ends_with_the_container(boxes: Boxes) -> None:
    script = "for n in 1 2 3; do echo $n; sleep 0.1; done; echo -n end"
    record = boxes.start("sh", "-c", script)
    followed = [entry.text for entry in boxes.containers.logs(record.id, follow=True)]

    assert b"".join(followed) == b"1\n2\n3\nend"
    boxes.containers.wait(record.id)


def test_the_journal_tells_a_containers_life(boxes: Boxes) -> None:
    record = boxes.start("sh", "-c", "exit 2", name="told", auto_remove=True)
    boxes.containers.wait(record.id)
    rows = boxes.engine.metastore.read().execute(
        "SELECT action FROM journal WHERE actor = ? AND type = 'container' ORDER BY seq",
        (record.id,),
    )

    assert [row["action"] for row in rows] == ["create", "start", "die", "destroy"]
