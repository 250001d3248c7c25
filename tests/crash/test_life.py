"""kill -9 of anyone at any instant of a container's life: the next command finds it in order.

Who is killed: the user's command, conmon, the container's own process, the runtime, conmon's
exit command or who waits to restart. In what: run, stop, rm, attach, restart, pause, and a
container that its policy restarts all the time; on the bridge with a port, or on no network.
``STOWAGE_TEST_PROFILE=full`` does it five hundred times.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stowage.containers.model import ContainerRecord, ContainerSpec, ContainerState
from stowage.containers.restarts import RestartPolicy
from stowage.engine import Engine
from stowage.errors import NotFound
from stowage.linux.cgroups import Cgroup

from .kills import Targets, wait_until_true

Rounds = Callable[[int, int], int]

pytestmark = pytest.mark.requires("containers", "conmon")

#: Ends with 7 when it is asked to.
SERVES = ("sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.02; done")
FAILS = ("sh", "-c", "sleep 0.1; exit 3")
KINDS = ("us", "conmon", "container", "runtime", "finish")

#: By the network of a round.
NETWORKS = {"none": ("--network", "none"), "bridge": ("-p", "80")}

COMMANDS = {
    "run": ("run", "--name", "box", "busybox", *FAILS),
    "detach": ("run", "-d", "--name", "box", "busybox", *SERVES),
    "vanish": ("run", "-d", "--rm", "--name", "box", "busybox", *FAILS),
    "stop": ("stop", "box"),
    "rm": ("rm", "-f", "box"),
    "attach": ("attach", "box"),
    "restart": ("restart", "-t", "5", "box"),
    "pause": ("pause", "box"),
    "policy": (),
}
_MAKE = ("run", "detach", "vanish")


def command(root: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "stowage", "--root", str(root), *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def began(root: Path, verb: str, network: str) -> str:
    """Start what the verb works on; returns the root's id."""
    with Engine(root) as engine:
        if verb not in _MAKE:
            failing = verb == "policy"
            spec = ContainerSpec(
                image="busybox",
                name="box",
                command=FAILS if failing else SERVES,
                network=network,
                restart=RestartPolicy("always" if failing else "no"),
            )
            engine.containers.start(engine.containers.create(spec).id)
        return engine.metastore.root_id


def killed_once(root: Path, verb: str, kind: str, dice: random.Random) -> bool:
    """Do it and kill in the middle; False if there was nobody to kill."""
    network = dice.choice(list(NETWORKS))
    root_id = began(root, verb, network)
    words = COMMANDS[verb]
    if verb in _MAKE:
        words = (words[0], *NETWORKS[network], *words[1:])
    process = command(root, *words) if words else None
    try:
        time.sleep(dice.uniform(0, 1.5))
        targets = Targets(root, root_id, process.pid if process else None)
        killed = targets.kill(kind, going_on=lambda: process is not None and process.poll() is None)
        if process is not None and verb == "attach":
            process.kill()  # it would go on as long as its container
    finally:
        if process is not None:
            with process:
                _, errors = process.communicate(timeout=60)
    if process is not None:
        assert "Traceback" not in errors, errors
        assert "internal error" not in errors, errors
    return killed


def next_command(root: Path) -> None:
    """It sees a root in order, whatever it is, and has nothing to complain about."""
    with command(root, "ps", "-a") as process:
        out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert out.startswith("CONTAINER ID")
    assert errors == ""


def assert_told_truly(root: Path, verb: str, kind: str) -> None:
    """What runs has a process and a monitor; what has ended says how."""
    with Engine(root) as engine:
        for record in engine.containers.list():
            wait_until_true(engine, record.id)
            try:
                _assert_told_truly(engine.containers.get(record.id), verb, kind)
            except NotFound:
                continue


def _assert_told_truly(record: ContainerRecord, verb: str, kind: str) -> None:
    facts = record.runtime
    story = (verb, kind, record.state, facts.exit_code, facts.error)
    assert facts.prepared, story
    if verb == "policy":
        # like Docker, a policy does not try again what could not even be started
        assert record.state.lives or (facts.error and kind in ("runtime", "conmon")), story
        return
    assert record.state is not ContainerState.RESTARTING, story
    if record.state is ContainerState.EXITED and not facts.error:
        assert facts.exit_code in (3, 7, 137), story
    if facts.error == "monitor lost":
        # rm -f, and recovery from a killed start, end conmon themselves
        assert facts.exit_code == 137, story
        assert kind == "conmon" or verb == "rm", story


@pytest.mark.parametrize("verb", COMMANDS)
def test_a_kill_of_anyone_leaves_nothing(
    verb: str, root: Path, assert_in_order: Callable[[], None], rounds: Rounds
) -> None:
    """Some of those who take part are killed in the middle of a command, then a next one comes."""
    dice = random.Random(f"{verb}{time.time_ns()}")
    kinds = [kind for kind in KINDS if kind != "us" or COMMANDS[verb]]
    count, killed = rounds(1, 56), 0
    for number in range(count):
        kind = kinds[(number + dice.randrange(len(kinds))) % len(kinds)]
        killed += killed_once(root, verb, kind, dice)
        next_command(root)
        assert_told_truly(root, verb, kind)
        assert_in_order()

    assert killed > 0 or count < 20


@pytest.mark.parametrize("kind", ["conmon", "container"])
def test_a_run_in_the_foreground_says_that_it_was_killed(
    kind: str, root: Path, assert_in_order: Callable[[], None]
) -> None:
    """137, whether its process or its monitor was killed; and nothing of it runs on."""
    with Engine(root) as engine:
        root_id = engine.metastore.root_id
    with command(
        root, "run", "--network", "none", "busybox", "sh", "-c", "echo up; sleep 60"
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "up\n"
        assert Targets(root, root_id, run.pid).kill(kind, going_on=lambda: True)
        _, errors = run.communicate(timeout=60)

    assert (run.returncode, errors) == (137, "")
    assert Cgroup(f"/stowage/{root_id}").processes() == set()
    with Engine(root) as engine:
        (record,) = engine.containers.list()
        assert record.state is ContainerState.EXITED
        assert record.runtime.error == ("monitor lost" if kind == "conmon" else "")
    assert_in_order()
