"""``events``: what is told of what was done, in Docker's forms."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stowage.testing.abilities import missing

from .conftest import Run


@pytest.fixture(autouse=True)
def _needs_containers() -> None:
    for ability in ("containers", "conmon", "busybox"):
        if reason := missing(ability):
            pytest.skip(f"needs {ability}: {reason}")


def told(stowage: Run, since: float, *more: str) -> list[str]:
    bounds = ("--since", f"{since:.9f}", "--until", f"{time.time():.9f}")
    return stowage("events", *bounds, *more).out.splitlines()


def test_a_containers_life_is_told_in_order(stowage: Run) -> None:
    since = time.time()
    stowage("run", "-d", "--name", "life", "--network", "none", "-l", "a=b", "-v", "data:/data",
            "busybox", "sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.1; done")  # fmt: skip
    stowage("exec", "life", "sh", "-c", "exit 4")
    stowage("pause", "life")
    stowage("unpause", "life")
    stowage("rename", "life", "new")
    stowage("kill", "-s", "USR1", "new")
    stowage("start", "new")
    stowage("stop", "new")
    stowage("rm", "new")
    lines = told(stowage, since, "--format", "{{.Type}} {{.Action}}")

    names = "container create, volume mount, container start,"
    if "volume create" in lines:
        names = f"volume create, {names}"
    # what is on a network of none is connected as well
    assert [line for line in lines if not line.startswith("network")][: 2 + names.count(",")] == [
        *(name.strip() for name in names.strip(",").split(",")),
        "container exec_create: sh -c exit 4",
        "container exec_start: sh -c exit 4",
    ][: 2 + names.count(",")]
    for action in ("exec_die", "pause", "unpause", "rename", "kill", "die", "stop", "destroy"):
        assert f"container {action}" in lines
    assert "volume unmount" in lines
    assert [line for line in lines if line.startswith("network")] == [
        "network connect", "network disconnect",
    ]  # fmt: skip
    (die,) = told(stowage, since, "--filter", "event=die", "--format", "{{json .}}")
    document = json.loads(die)
    assert list(document) == [
        "status", "id", "from", "Type", "Action", "Actor", "scope", "time", "timeNano",
    ]  # fmt: skip
    assert document["Actor"]["Attributes"] == {
        "a": "b", "exitCode": document["Actor"]["Attributes"]["exitCode"], "image": "busybox",
        "name": "new",
    }  # fmt: skip
    stowage("volume", "rm", "data")


def test_filters_choose_as_dockers(stowage: Run) -> None:
    since = time.time()
    for name in ("first", "second"):
        stowage("create", "--name", name, "--network", "none", "-l", f"is={name}", "busybox")
    stowage("rm", "first", "second")
    stowage("tag", "busybox", "other:tag")
    stowage("rmi", "other:tag")

    def count(*filters: str) -> int:
        return len(told(stowage, since, *(f"--filter={one}" for one in filters)))

    assert count("container=first") == 2
    assert count("container=first", "container=second", "event=create") == 2
    assert count("label=is=second") == 2
    assert count("type=image") == 2
    assert count("type=image", "event=tag") == 1
    assert count("image=busybox", "type=container") == 4
    assert count("container=nosuch") == 0
    done = stowage("events", "--filter", "colour=red")
    assert (done.code, "Invalid filter 'colour'" in done.err) == (1, True)


def test_a_line_reads_as_dockers(stowage: Run) -> None:
    since = time.time()
    identity = stowage("create", "--name", "line", "--network", "none", "busybox").line
    stowage("rm", "line")
    first, second = told(stowage, since)

    when = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}(Z|[+-]\d\d:\d\d)"
    assert re.fullmatch(rf"{when} container create {identity} \(image=busybox, name=line\)", first)
    assert "container destroy" in second


def test_events_of_another_process_come_as_they_happen(cli_root: Path, stowage: Run) -> None:
    words = [sys.executable, "-P", "-m", "stowage", "--root", str(cli_root), "events",
             "--since", "0", "--format", "{{.Action}} {{.Actor.Attributes.name}}"]  # fmt: skip
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as listener:
        assert listener.stdout is not None
        assert listener.stdout.readline()  # it listens: the image was made
        stowage("create", "--name", "live", "--network", "none", "busybox")
        stowage("rm", "live")
        lines: list[str] = []
        while line := listener.stdout.readline():
            lines.append(line.strip())
            if lines[-1] == "destroy live":
                break
        listener.terminate()

    assert "create live" in lines
