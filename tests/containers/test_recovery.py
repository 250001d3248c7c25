"""What a kill leaves is found and finished when the root is next opened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stowage.containers.model import ContainerState
from stowage.linux.process import wait_gone

from .boxes import Boxes, until

_RUN = """
import sys
from stowage.containers.model import ContainerSpec
from stowage.containers.streams import Streams
from stowage.engine import Engine
engine = Engine(sys.argv[1])
remove = sys.argv[2] == "rm"
spec = ContainerSpec("busybox", tuple(sys.argv[4:]), network="none", auto_remove=remove)
if sys.argv[3]:
    import os, signal
    from contextlib import contextmanager
    from stowage import effects
    @contextmanager
    def killer(name, facts):
        if name == sys.argv[3]:
            os.kill(os.getpid(), signal.SIGKILL)
        yield
    effects.observe(killer)
engine.containers.run(spec, Streams(stdout=1, stderr=2))
"""


def victim(
    boxes: Boxes, *command: str, remove: bool = False, at: str = ""
) -> subprocess.Popen[bytes]:
    """An engine of its own that runs a container, and is killed at the effect *at*."""
    words = [sys.executable, "-c", _RUN, str(boxes.root), "rm" if remove else "keep", at, *command]
    return subprocess.Popen(words, stdout=subprocess.PIPE)


def processes_in(boxes: Boxes) -> set[int]:
    return boxes.context.cgroup_parent.processes()


@pytest.mark.parametrize("remove", [False, True])
def test_an_engine_killed_while_its_container_runs(boxes: Boxes, remove: bool) -> None:
    process = victim(boxes, "sh", "-c", "echo up; sleep 60 & sleep 60", remove=remove)
    assert process.stdout is not None
    assert process.stdout.read(3) == b"up\n"
    process.kill()
    process.wait()
    process.stdout.close()
    assert processes_in(boxes)
    boxes.open()

    assert processes_in(boxes) == set()
    records = boxes.containers.list()
    if remove:
        assert records == []
        assert boxes.leftovers() == []
    else:
        assert records[0].state is ContainerState.EXITED
        assert records[0].runtime.exit_code == 137
        assert records[0].runtime.error == "monitor lost"
        assert boxes.leftovers() == [str(boxes.context.files(records[0].id).kept)]


@pytest.mark.parametrize(
    "effect",
    [
        "container.make_directory", "snapshot.mkdir", "namespace.unshare", "container.make_bundle",
        "cgroup.make", "container.write_config", "mount.move", "runtime.run", "cgroup.remove",
        "container.remove_directory", "trash.bury", "metastore.commit",
    ],
)  # fmt: skip
def test_a_run_killed_at_any_step_leaves_nothing(boxes: Boxes, effect: str) -> None:
    """Killed *before* that effect; the same container runs well afterwards."""
    process = victim(boxes, "true", remove=True, at=effect)
    assert process.stdout is not None
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    boxes.open()

    assert boxes.containers.list() == []
    until(lambda: boxes.leftovers() == [] or boxes.open() is None, "the rest to go")
    assert boxes.sh("echo well") == "well\n"


def test_a_killed_conmon_is_recorded_as_lost(boxes: Boxes) -> None:
    record = boxes.start("sleep", "60")
    monitor, process = record.runtime.monitor_process, record.runtime.process
    assert monitor is not None
    assert process is not None
    os.kill(monitor.pid, signal.SIGKILL)
    wait_gone(monitor)
    assert process.alive
    boxes.open()

    after = boxes.containers.get(record.id)
    assert not process.alive
    assert after.state is ContainerState.EXITED
    assert (after.runtime.exit_code, after.runtime.error) == (137, "monitor lost")
    boxes.containers.start(record.id)
    assert boxes.containers.get(record.id).state is ContainerState.RUNNING


def test_waiting_notices_a_killed_conmon(boxes: Boxes) -> None:
    record = boxes.start("sleep", "60")
    assert record.runtime.monitor_process is not None
    os.kill(record.runtime.monitor_process.pid, signal.SIGKILL)

    assert boxes.containers.wait(record.id, timeout_seconds=30) == 137


def test_an_exit_command_that_was_killed_is_made_up_for(boxes: Boxes) -> None:
    """The exit code is conmon's, from its file."""
    boxes.context._exit_command = ["/bin/false"]
    record = boxes.start("sh", "-c", "exit 4", auto_remove=True)
    assert record.runtime.monitor_process is not None
    wait_gone(record.runtime.monitor_process)
    assert boxes.containers.get(record.id).state is ContainerState.RUNNING
    boxes.open()

    assert boxes.containers.list() == []
    assert boxes.containers.wait(record.id) == 4
    assert boxes.leftovers() == []


def test_a_container_frozen_by_a_killed_commit_runs_on(boxes: Boxes) -> None:
    record = boxes.start("sleep", "60")
    script = (
        "import os, signal, sys\n"
        "from stowage.engine import Engine\n"
        "with Engine(sys.argv[1]).containers.frozen(sys.argv[2]):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    command = [sys.executable, "-c", script, str(boxes.root), record.id]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert boxes.cgroup(record).frozen
    boxes.open()

    assert not boxes.cgroup(record).frozen
    assert boxes.shell(record, "echo on") == "on\n"
    assert list(boxes.engine.layout.locks.glob("freeze-*")) == []


def test_a_container_stands_still_until_the_last_who_wants_it(boxes: Boxes) -> None:
    record = boxes.start("sleep", "60")
    with boxes.containers.frozen(record.id):
        with boxes.containers.frozen(record.id):
            boxes.open()
            assert boxes.cgroup(record).frozen
        assert boxes.cgroup(record).frozen

    assert not boxes.cgroup(record).frozen
    assert list(boxes.engine.layout.locks.glob("freeze-*")) == []


def test_a_starter_killed_in_the_middle_leaves_it_as_it_was(boxes: Boxes) -> None:
    record = boxes.containers.create(boxes.spec("sleep", "60"))
    for effect in ("container.make_bundle", "monitor.start", "runtime.start"):
        script = (
            "import sys, os, signal\n"
            "from contextlib import contextmanager\n"
            "from stowage import effects\n"
            "from stowage.engine import Engine\n"
            "@contextmanager\n"
            "def killer(name, facts):\n"
            "    if name == sys.argv[3]:\n"
            "        os.kill(os.getpid(), signal.SIGKILL)\n"
            "    yield\n"
            "engine = Engine(sys.argv[1])\n"
            "containers = engine.containers\n"
            "effects.observe(killer)\n"
            "containers.start(sys.argv[2])\n"
        )
        command = [sys.executable, "-c", script, str(boxes.root), record.id, effect]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL, effect
        boxes.open()

        after = boxes.containers.get(record.id)
        assert after.state is ContainerState.CREATED, effect
        assert not after.runtime.starting
        until(lambda: not boxes.processes(), "conmon to end")
        assert boxes.leftovers() == [str(boxes.context.files(record.id).kept)], effect


def test_what_has_no_row_is_swept_up(boxes: Boxes) -> None:
    stranger = "ab" * 32
    files = boxes.context.files(stranger)
    files.make_kept()
    files.make_bundle()
    boxes.context.cgroup_without_row(stranger).make()
    process = subprocess.Popen(["/bin/sleep", "60"])
    for directory in boxes.context.cgroup_without_row(stranger).directories():
        Path(directory, "cgroup.procs").write_text(str(process.pid))
        break
    boxes.open()

    assert process.wait(timeout=20) == -signal.SIGKILL
    assert boxes.leftovers() == []


def test_a_container_of_a_living_process_is_left_alone(boxes: Boxes) -> None:
    process = victim(boxes, "sh", "-c", "echo up; sleep 60")
    assert process.stdout is not None
    process.stdout.read(3)
    boxes.open()
    (record,) = boxes.containers.list()

    assert record.state is ContainerState.RUNNING
    assert boxes.shell(record, "echo there") == "there\n"
    boxes.containers.remove(record.id, force=True)
    process.stdout.close()
    process.wait(timeout=20)
    assert boxes.leftovers() == []


def test_a_lock_without_a_container_is_swept(boxes: Boxes) -> None:
    """Who was killed as it found that the container was gone has left it."""
    lock = boxes.engine.layout.locks / f"container-{'c' * 64}"
    lock.write_text("")

    boxes.open()

    assert not lock.exists()
