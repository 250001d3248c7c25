"""What a user at a terminal does: typing into a container, resizing, detaching, signals, pipes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tests.containers.boxes import until

from stowage.testing.abilities import missing
from stowage.testing.lab import Lab
from stowage.testing.terminals import Terminal

from .conftest import Run, fork_server_at


@pytest.fixture(autouse=True)
def _needs_containers() -> None:
    for ability in ("containers", "conmon", "busybox"):
        if reason := missing(ability):
            pytest.skip(f"needs {ability}: {reason}")


class User:
    """A user of the command line: at a terminal, or in a script."""

    def __init__(self, root: Path, fork_server: str) -> None:
        self._root = root
        self.fork_server = fork_server
        self.terminal = Terminal(33, 77)

    def words(self, *words: str) -> Sequence[str]:
        own = ["env", f"STOWAGE_FORK_SERVER={self.fork_server}", sys.executable, "-P", "-m"]
        return [*own, "stowage", "--root", str(self._root), *words]

    def types(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a command at the terminal."""
        return self.terminal.start(self.words(*words))

    def pipes(self, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run a command with pipes to its end."""
        return subprocess.run(
            self.words(*words), input=stdin, capture_output=True, timeout=60, check=False
        )


@pytest.fixture(scope="module", params=["alone", "fork server"])
def fork_server(request: pytest.FixtureRequest, lab: Lab) -> Iterator[str]:
    """Where a fork server listens, or "off": a user sees no difference."""
    if request.param == "alone":
        yield "off"
        return
    with fork_server_at(lab.directory / "fork-server") as server:
        yield str(server.path)


@pytest.fixture
def user(cli_root: Path, fork_server: str) -> Iterator[User]:
    user = User(cli_root, fork_server)
    yield user
    user.terminal.close()


def test_a_terminal_has_its_size_from_the_first_instant(user: User) -> None:
    command = user.types("run", "-it", "--rm", "--network", "none", "busybox", "stty", "size")

    assert user.terminal.expect(b"\r\n") == b"33 77"
    assert command.wait(30) == 0
    assert not user.terminal.raw


def test_keys_and_the_window_reach_a_process(user: User) -> None:
    script = 'trap "echo caught; exit 9" INT; trap "stty size" WINCH; echo ready;' \
        ' while :; do sleep 0.1; done'  # fmt: skip
    command = user.types("run", "-it", "--rm", "--network", "none", "busybox", "sh", "-c", script)
    user.terminal.expect(b"ready\r\n")
    assert user.terminal.raw
    user.terminal.resize(40, 100)
    user.terminal.expect(b"40 100\r\n")
    user.terminal.say(b"\x03")
    user.terminal.expect(b"caught\r\n")

    assert command.wait(30) == 9
    assert not user.terminal.raw


def test_detach_attach_and_start_again(user: User, stowage: Run) -> None:
    name = "detached"
    command = user.types(
        "run", "-it", "--name", name, "--network", "none", "busybox", "sh", "-c",
        "while read line; do echo got $line; done; exit 7",
    )  # fmt: skip
    user.terminal.say(b"one\r")
    user.terminal.expect(b"got one\r\n")
    user.terminal.say(b"\x10\x11")
    assert command.wait(30) == 0
    assert stowage("ps", "-q", "--filter", f"name={name}").line

    again = user.types("attach", "--detach-keys", "ctrl-x,x", name)
    user.terminal.say(b"\x10\x11two\r")
    user.terminal.expect(b"two\r\n")
    user.terminal.say(b"\x18x")
    user.terminal.expect(b"read escape sequence\r\n")
    assert again.wait(30) == 1

    last = user.types("attach", name)
    user.terminal.say(b"three\r")
    user.terminal.expect(b"got three\r\n")
    user.terminal.say(b"\x04")
    assert last.wait(30) == 7

    started = user.types("start", "-a", "-i", "--detach-keys", "ctrl-a", name)
    user.terminal.say(b"four\r")
    user.terminal.expect(b"got four\r\n")
    user.terminal.say(b"\x01")
    assert started.wait(30) == 0
    assert not user.terminal.raw
    stowage("rm", "-f", name)


def test_exec_at_a_terminal(user: User, stowage: Run) -> None:
    stowage("run", "-d", "--name", "execs", "--network", "none", "busybox", "sleep", "60")
    script = 'trap "stty size" WINCH; stty size; echo $A; until read x; do :; done; echo $x; exit 6'
    command = user.types("exec", "-it", "-e", "A=b", "execs", "sh", "-c", script)
    user.terminal.expect(b"33 77\r\nb\r\n")
    user.terminal.resize(50, 120)
    user.terminal.expect(b"50 120\r\n")
    user.terminal.say(b"typed\r")
    user.terminal.expect(b"typed\r\ntyped\r\n")
    assert command.wait(30) == 6

    script = "echo up; read line; yes | head -c 200000; touch /tmp/done; sleep 60"
    left = user.types("exec", "-it", "execs", "sh", "-c", script)
    user.terminal.expect(b"up\r\n")
    user.terminal.say(b"go\r\x10\x11")
    user.terminal.expect(b"read escape sequence\r\n")
    assert left.wait(30) == 1
    deadline = time.monotonic() + 30
    while stowage("exec", "execs", "ls", "/tmp/done").code:
        assert time.monotonic() < deadline, "it stands still after its user has gone"
    stowage("rm", "-f", "execs")


def test_what_exec_writes_right_before_its_end_is_never_lost(user: User, stowage: Run) -> None:
    stowage("run", "-d", "--name", "last", "--network", "none", "busybox", "sleep", "60")
    for number in range(5):
        command = user.types("exec", "-t", "last", "echo", f"word-{number}")
        user.terminal.expect(b"word-%d\r" % number)
        assert command.wait(30) == 0
    stowage("rm", "-f", "last")


def test_a_terminal_is_as_before_after_a_signal(user: User, stowage: Run) -> None:
    command = user.types("run", "-it", "--name", "hup", "--network", "none", "busybox", "sh")
    user.terminal.expect(b"# ")
    assert user.terminal.raw
    command.send_signal(signal.SIGTERM)

    assert command.wait(30) == 128 + signal.SIGTERM
    assert not user.terminal.raw
    assert stowage("ps", "-q", "--filter", "name=hup").line
    stowage("rm", "-f", "hup")


def test_signals_go_to_the_container_unless_told_otherwise(user: User, stowage: Run) -> None:
    script = 'trap "echo caught; exit 5" TERM; echo ready; while :; do sleep 0.1; done'
    for proxy in (True, False):
        words = user.words("run", f"--sig-proxy={proxy}".lower(), "--name", "signals",
                           "--network", "none", "busybox", "sh", "-c", script)  # fmt: skip
        with subprocess.Popen(words, stdout=subprocess.PIPE) as command:
            assert command.stdout is not None
            assert command.stdout.readline() == b"ready\n"
            command.send_signal(signal.SIGTERM)
            rest = command.stdout.read()
        expected = (b"caught\n", 5) if proxy else (b"", -signal.SIGTERM)
        assert (rest, command.returncode) == expected
        running = stowage("ps", "-q", "--filter", "name=signals").out
        assert bool(running) is not proxy
        stowage("rm", "-f", "signals")


def test_a_signal_reaches_through_attach(user: User, stowage: Run) -> None:
    script = 'trap "echo caught; exit 5" USR1; while :; do echo up; sleep 0.1; done'
    stowage("run", "-d", "--name", "usr", "--network", "none", "busybox", "sh", "-c", script)
    with subprocess.Popen(user.words("attach", "usr"), stdout=subprocess.PIPE) as command:
        assert command.stdout is not None
        assert command.stdout.readline() == b"up\n"
        command.send_signal(signal.SIGUSR1)
        assert command.stdout.read().endswith(b"caught\n")
    assert command.returncode == 5
    stowage("rm", "-f", "usr")


def test_pipes_are_half_closed_and_nothing_comes_to_a_halt(user: User) -> None:
    large = bytes(range(256)) * 2000
    run = ("run", "--rm", "--network", "none")
    assert user.pipes(*run, "-i", "busybox", "cat", stdin=large).stdout == large
    done = user.pipes(*run, "-a", "stderr", "busybox", "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == (b"", b"err\n")

    fed = user.pipes("run", "-i", "-a", "stdin", "--network", "none", "--name", "fed", "busybox",
                     "cat", stdin=b"hi\n")  # fmt: skip
    assert len(fed.stdout) == 65
    assert user.pipes("wait", "fed").stdout == b"0\n"
    assert user.pipes("logs", "fed").stdout == b"hi\n"
    user.pipes("rm", "fed")


def test_exec_with_pipes(user: User, stowage: Run) -> None:
    stowage("run", "-d", "--name", "piped", "--network", "none", "busybox", "sleep", "60")
    large = bytes(range(256)) * 2000
    assert user.pipes("exec", "-i", "piped", "cat", stdin=large).stdout == large
    assert user.pipes("exec", "piped", "cat", stdin=large).stdout == b""
    status = ("grep", "CapEff", "/proc/self/status")
    usual = stowage("exec", "piped", *status).line
    assert int(usual.split()[1], 16) < int(
        stowage("exec", "--privileged", "piped", *status).line.split()[1], 16
    )
    done = user.pipes("exec", "piped", "sh", "-c", "tty; echo err >&2; exit 4")
    assert (done.stdout, done.stderr, done.returncode) == (b"not a tty\n", b"err\n", 4)
    stowage("rm", "-f", "piped")


def test_a_reader_that_has_gone_ends_it(user: User, stowage: Run) -> None:
    """An exec goes with it, a container runs on, as Docker's do."""
    stowage("run", "-d", "--name", "unread", "--network", "none", "busybox", "sleep", "60")
    for words in (("exec", "unread", "yes"), ("exec", "-t", "unread", "yes"),
                  ("run", "--name", "yes", "--network", "none", "busybox", "yes")):  # fmt: skip
        with subprocess.Popen(user.words(*words), stdout=subprocess.PIPE) as command:
            assert command.stdout is not None
            assert command.stdout.readline().rstrip() == b"y"
            command.stdout.close()
            assert command.wait(30) == 141
    until(lambda: "yes" not in stowage("exec", "unread", "ps").out, "the end of yes")
    assert stowage("ps", "-q", "--filter", "name=yes").line
    stowage("rm", "-f", "unread", "yes")


def test_what_cannot_be_executed_is_said_once(stowage: Run) -> None:
    stowage("run", "-d", "--name", "words", "--network", "none", "busybox", "sleep", "60")
    start = "Error: OCI runtime exec failed: exec failed: unable to start container process: "
    for command, code, reason in (
        ("nosuch", 127, "executable file not found in $PATH"),
        ("/no/such", 127, "stat /no/such: no such file or directory"),
        ("/etc/passwd", 126, "permission denied"),
    ):
        done = stowage("exec", "words", command)
        assert (done.code, done.out) == (code, "")
        assert done.err == f'{start}exec: "{command}": {reason}: unknown\n'
        assert stowage("exec", "-t", "words", command).code == code
        assert stowage("exec", "-d", "words", command).code == code
    stowage("rm", "-f", "words")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-a", "stdall", "busybox"), 'invalid argument "stdall" for "-a, --attach" flag:'
         " valid streams are STDIN, STDOUT and STDERR"),
        (("-d", "-a", "stdout", "busybox"), "Conflicting options: -a and -d"),
        (("--detach-keys", "ctrl-1", "busybox"), "Invalid detach keys (ctrl-1) provided"),
        (("-it", "busybox"), "the input device is not a TTY"),
    ],
)  # fmt: skip
def test_wrong_wishes_are_refused_before_anything_is_made(
    stowage: Run, words: tuple[str, ...], said: str
) -> None:
    before = stowage("ps", "-aq").out
    done = stowage("run", "--network", "none", *words)

    assert done.code == 125
    assert said in done.err
    assert stowage("ps", "-aq").out == before
