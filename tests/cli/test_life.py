"""The life of containers by the command line: pause, restart, top, stats, restart policies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stowage.cli.command import Command
from stowage.cli.usage_now import stats_row
from stowage.containers.stats import Stats

from .conftest import Run

pytestmark = pytest.mark.requires("containers")

DETACHED = ("run", "-d", "--network", "none")


@pytest.fixture(autouse=True)
def _empty(stowage: Run) -> Iterator[None]:
    """Each test leaves no container."""
    yield
    names = stowage("ps", "-aq").out.split()
    if names:
        stowage("rm", "-f", *names)
    assert stowage("ps", "-aq").out == ""


def test_pausing_is_seen_and_undone(stowage: Run) -> None:
    """In ps and inspect; several at once, going on after a failure."""
    for name in ("one", "two"):
        stowage(*DETACHED, "--name", name, "busybox", "sleep", "100")
    done = stowage("pause", "one", "nosuch", "two")

    assert (done.code, done.out) == (1, "one\ntwo\n")
    assert done.err == "Error: No such container: nosuch\n"
    assert stowage("ps", "--format", "{{.Status}}").out.count("(Paused)") == 2
    shown = stowage(
        "inspect", "-f", "{{.State.Status}} {{.State.Paused}} {{.State.Running}}", "one"
    )
    assert shown.line == "paused true true"
    assert "already paused" in stowage("container", "pause", "one").err
    assert stowage("unpause", "one", "two").out == "one\ntwo\n"
    assert stowage("container", "unpause", "one").err.endswith("is not paused\n")


def test_restarting_by_hand(stowage: Run) -> None:
    """With Docker's prefix where it fails."""
    stowage(*DETACHED, "--name", "web", "busybox", "sleep", "100")
    before = stowage("inspect", "-f", "{{.State.Pid}}", "web").line

    assert stowage("restart", "-t", "0", "web").line == "web"
    assert stowage("inspect", "-f", "{{.State.Pid}}", "web").line != before
    assert stowage("stop", "-s", "KILL", "--time", "20", "web").line == "web"
    assert stowage("ps", "-a", "--format", "{{.Status}}").line.startswith("Exited (137)")
    assert stowage("container", "restart", "web").line == "web"
    stowage("exec", "web", "rm", "/bin/sleep")
    done = stowage("restart", "-t", "0", "web", "nosuch")
    assert done.code == 1
    assert done.err.startswith("Error: Cannot restart container web: ")
    assert done.err.endswith("Error: No such container: nosuch\n")


def test_top_is_dockers_table(stowage: Run) -> None:
    """Twenty wide, ps's own options after the name."""
    stowage(*DETACHED, "--name", "web", "busybox", "sleep", "100")
    heading, line = stowage("top", "web").out.splitlines()

    assert heading == "".join(
        word.ljust(20) for word in ("UID", "PID", "PPID", "C", "STIME", "TTY", "TIME")
    ) + ("CMD")
    assert line.startswith("root".ljust(20))
    assert line.endswith("sleep 100")
    assert stowage("container", "top", "web", "-o", "pid,comm").out.splitlines()[1].split()[1] == (
        "sleep"
    )


def test_stats_are_dockers_columns(stowage: Run) -> None:
    """Of those that run, of those that are named, and as a template."""
    web = stowage(*DETACHED, "--name", "web", "busybox", "sleep", "100").line
    stowage("create", "--network", "none", "--name", "idle", "busybox", "true")
    heading, line = stowage("stats", "--no-stream").out.splitlines()

    assert heading.split("  ")[0] == "CONTAINER ID"
    assert heading.endswith("BLOCK I/O   PIDS")
    assert line.startswith(f"{web[:12]}   web       ")
    rows = stowage("stats", "--no-stream", "-a", "--format", "json", "--no-trunc").out.splitlines()
    shown = {row["Name"]: row for row in map(json.loads, rows)}
    assert shown["web"]["ID"] == web
    assert shown["web"]["PIDs"] == "1"
    assert shown["idle"]["MemUsage"] == "0B / 0B"
    assert stowage("stats", "--no-stream", "--format", "{{.Container}}", "idle").line == "idle"
    assert "No such container: nosuch" in stowage("stats", "--no-stream", "nosuch").err


def test_stats_stream_until_the_container_is_gone(stowage: Run, cli_root: Path) -> None:
    """Each picture clears the screen first."""
    stowage(*DETACHED, "--name", "web", "busybox", "sleep", "100")
    command = [sys.executable, "-m", "stowage", "--root", str(cli_root), "stats", "web"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("\033[2J\033[HCONTAINER ID")
        stowage("rm", "-f", "web")
        process.stdout.read()

        assert process.wait(timeout=30) == 0


def test_stats_are_written_as_dockers() -> None:
    """Sizes, percentages and pairs."""
    row = stats_row(
        Stats(
            "d8" * 32,
            "web",
            cpu_percent=12.345,
            memory_bytes=446464,
            memory_limit_bytes=67108864,
            received_bytes=1040,
            sent_bytes=0,
            read_bytes=8_190_000,
            written_bytes=0,
            tasks=1,
        )
    )

    assert row == {
        "BlockIO": "8.19MB / 0B",
        "CPUPerc": "12.35%",
        "Container": "d8d8d8d8d8d8",
        "ID": "d8d8d8d8d8d8",
        "MemPerc": "0.67%",
        "MemUsage": "436KiB / 64MiB",
        "Name": "web",
        "NetIO": "1.04kB / 0B",
        "PIDs": "1",
    }


@pytest.mark.parametrize(
    ("usage", "arity"),
    [
        ("CONTAINER [ps OPTIONS]", (1, None)),
        ("[OPTIONS] CONTAINER [REPOSITORY[:TAG]]", (1, 2)),
        ("[OPTIONS] [CONTAINER...]", (0, None)),
    ],
)
def test_the_number_of_arguments_is_in_the_usage(usage: str, arity: tuple[int, int | None]) -> None:
    """Also where a bracket holds several words."""
    assert Command(usage, lambda context, parsed: None).arity == arity


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--rm", "--restart", "always"), "Conflicting options: --restart and --rm."),
        (("--restart", "maybe"), "invalid restart policy 'maybe'."),
        (
            ("--restart", "always:2"),
            "maximum retry count cannot be used with restart policy 'always'.",
        ),
    ],
)
def test_policies_that_cannot_be_are_refused(
    stowage: Run, words: tuple[str, ...], message: str
) -> None:
    """By run and create, with Docker's code and words."""
    for verb in ("run", "create"):
        done = stowage(verb, *words, "busybox", "true")

        assert done.code == 125
        assert done.err == f"stowage: {message}\nSee 'stowage {verb} --help'.\n"


def test_a_policy_restarts_through_the_command_itself(stowage: Run) -> None:
    """conmon's exit command is the hidden command, and so is what waits."""
    name = stowage(*DETACHED, "--restart", "on-failure:1", "busybox", "sh", "-c", "exit 3").line
    while stowage("inspect", "-f", "{{.State.Status}} {{.RestartCount}}", name).line != "exited 1":
        time.sleep(0.1)

    assert stowage("wait", name).line == "3"
    document = json.loads(stowage("inspect", name).out)[0]
    assert document["HostConfig"]["RestartPolicy"] == {
        "Name": "on-failure",
        "MaximumRetryCount": 1,
    }


def test_a_unit_resumes_at_boot(stowage: Run, cli_root: Path, tmp_path: Path) -> None:
    """For this very root; systemd takes it."""
    text = stowage("system", "unit").out
    (line,) = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    assert str(cli_root / "data") in line
    assert "@" not in line
    assert subprocess.run(line.removeprefix("ExecStart="), shell=True, check=False).returncode == 0
    assert "Recovered" in stowage("system", "resume").err


def test_a_unit_runs_the_fork_server(stowage: Run) -> None:
    text = stowage("system", "unit", "--fork-server").out
    (line,) = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    assert line.endswith("system fork-server --foreground --idle 0")
    assert "@" not in line


def test_a_lost_monitor_is_told(stowage: Run) -> None:
    """137, and why; and one with --rm is removed by the next command."""
    kept = stowage(*DETACHED, "--name", "kept", "busybox", "sleep", "100").line
    gone = stowage(*DETACHED, "--rm", "--name", "gone", "busybox", "sleep", "100").line
    for identity in (kept, gone):
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and _is_conmon(entry, identity):
                os.kill(int(entry.name), signal.SIGKILL)

    assert stowage("ps", "-a", "--format", "{{.Names}}").out == "kept\n"
    shown = stowage("inspect", "-f", "{{.State.ExitCode}} {{.State.Error}}", "kept").line
    assert shown == "137 monitor lost"


def _is_conmon(entry: Path, container_id: str) -> bool:
    try:
        words = (entry / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return words[0].endswith(b"conmon") and container_id.encode() in words
