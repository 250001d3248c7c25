"""Commands that a fork server runs: the same in every way, and none lost whoever is killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from tests.containers.boxes import until

from stowage import version
from stowage.testing.lab import Lab

from .conftest import ForkServer, Run, fork_server_at

Completed = subprocess.CompletedProcess[str]


class Caller:
    """Runs command lines from a shell, with a fork server at *server* or none ("off")."""

    def __init__(self, root: Path, server: Path | str) -> None:
        self._root = root
        self.environment = {**os.environ, "STOWAGE_FORK_SERVER": str(server)}

    def words(self, *words: str) -> list[str]:
        return [sys.executable, "-P", "-m", "stowage", "--root", str(self._root), *words]

    def shell(self, script: str, directory: Path | None = None) -> Completed:
        """Run a bash script in which ``stowage`` is the command on this root."""
        function = f'stowage() {{ {sys.executable} -P -m stowage --root {self._root} "$@"; }}\n'
        return subprocess.run(
            ["bash", "-c", function + script],
            env=self.environment,
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def begin(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.words(*words), env=self.environment, stdout=subprocess.PIPE, text=True
        )


@pytest.fixture(scope="module")
def server(lab: Lab) -> Iterator[ForkServer]:
    with fork_server_at(lab.directory / "fork-server") as server:
        yield server


@pytest.fixture
def forked(cli_root: Path, server: ForkServer) -> Caller:
    return Caller(cli_root, server.path)


@pytest.fixture
def alone(cli_root: Path) -> Caller:
    return Caller(cli_root, "off")


#: What a process has that a command may look at; each prints something or ends somehow.
SCRIPTS: Mapping[str, str] = {
    "output": "stowage images; stowage ps -a",
    "an error": "stowage inspect nosuch; echo $?",
    "usage": "stowage run; echo $?",
    "a container's exit code": "stowage run --rm --network none busybox sh -c 'exit 7'; echo $?",
    "stdin": "echo hi | stowage run -i --rm --network none busybox cat",
    "environment": "A=b stowage run --rm --network none -e A busybox sh -c 'echo $A'",
    "an own variable": "STOWAGE_PLUGINS_BLOCK=vfs stowage driver ls",
    "directory and umask": "umask 027; stowage save -o x.tar busybox; stat -c %a x.tar; rm x.tar",
    "a descriptor": "stowage run --rm --network none --env-file <(echo C=d) busybox"
    " sh -c 'echo $C'",
    "a closed stream": "stowage images >&-; echo $?",
    "a broken pipe": "stowage --help | true; stowage images | true; echo ${PIPESTATUS[0]}",
    "a full disk": "stowage images >/dev/full; echo $?",
    "a limit": "ulimit -n 333; stowage run --rm --network none busybox sh -c 'ulimit -n'",
    "a time zone": "TZ=Asia/Tokyo stowage info --format '{{.SystemTime}}' | grep -o '+09:00'",
    "bytes": "stowage run --rm --network none busybox printf '\\377' | od -c",
}


@pytest.mark.parametrize("what", SCRIPTS)
def test_it_is_the_same(what: str, forked: Caller, alone: Caller, tmp_path: Path) -> None:
    own, theirs = (caller.shell(SCRIPTS[what], tmp_path) for caller in (alone, forked))

    assert (theirs.stdout, theirs.returncode) == (own.stdout, own.returncode)
    assert theirs.stderr == own.stderr


def test_the_server_does_run_it(forked: Caller, server: ForkServer, stowage: Run) -> None:
    with forked.begin("run", "--rm", "--network", "none", "busybox", "sh", "-c",
                      "echo up; sleep 60") as command:  # fmt: skip
        assert command.stdout is not None
        assert command.stdout.readline() == "up\n"
        assert len(server.children()) == 1
        stowage("kill", *stowage("ps", "-q").out.split())
    assert command.returncode == 137


def test_a_namespace_of_ones_own_is_the_containers_too(forked: Caller) -> None:
    done = subprocess.run(
        ["unshare", "--uts", "bash", "-c", "hostname elsewhere; exec \"$@\"", "-",
         *forked.words("run", "--rm", "--network", "none", "--uts", "host", "busybox", "hostname")],
        env=forked.environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("elsewhere\n", "")


def test_a_killed_client_takes_its_command_along(forked: Caller, server: ForkServer) -> None:
    with forked.begin("run", "--rm", "--network", "none", "busybox", "sh", "-c",
                      "echo up; sleep 60") as command:  # fmt: skip
        assert command.stdout is not None
        assert command.stdout.readline() == "up\n"
        command.kill()
    until(lambda: not server.children(), "the child to end")
    assert forked.shell("stowage rm -f $(stowage ps -q)").returncode == 0


def test_a_killed_server_leaves_the_commands_alone(lab: Lab, cli_root: Path) -> None:
    path = lab.directory / "killed"
    with fork_server_at(path) as server:
        caller = Caller(cli_root, path)
        with caller.begin("run", "--rm", "--network", "none", "busybox", "sh", "-c",
                          "echo up; sleep 0.5; echo down; exit 3") as command:  # fmt: skip
            assert command.stdout is not None
            assert command.stdout.readline() == "up\n"
            os.kill(server.pid, signal.SIGKILL)
            assert command.stdout.read() == "down\n"
        assert command.returncode == 3
        # its socket is still there, and nobody listens
        assert caller.shell("stowage images -q").returncode == 0
        again = caller.shell("stowage system fork-server")
        assert again.returncode == 0, again.stderr


def test_a_signal_that_kills_the_child_kills_the_client(forked: Caller, server: ForkServer) -> None:
    with forked.begin("run", "--rm", "--network", "none", "busybox", "sh", "-c",
                      "echo up; sleep 60") as command:  # fmt: skip
        assert command.stdout is not None
        assert command.stdout.readline() == "up\n"
        (child,) = server.children()
        os.kill(child, signal.SIGKILL)
        assert command.wait(30) == -signal.SIGKILL
    assert forked.shell("stowage rm -f $(stowage ps -q)").returncode == 0


def test_many_at_once(forked: Caller) -> None:
    started = [forked.begin("run", "--rm", "--network", "none", "busybox", "echo", str(number))
               for number in range(12)]  # fmt: skip
    said = [command.communicate(timeout=60)[0] for command in started]

    assert said == [f"{number}\n" for number in range(12)]
    assert not any(command.returncode for command in started)


def test_changed_code_is_loaded_anew(forked: Caller, server: ForkServer) -> None:
    pid = server.pid
    started = Path(f"/proc/{pid}/cmdline").read_bytes()
    file = version.__file__
    status = os.stat(file)
    try:
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000_000))
        assert forked.shell("stowage images -q").stdout  # by itself
        until(lambda: Path(f"/proc/{pid}/cmdline").read_bytes() != started, "a new start")
        assert forked.shell("stowage images -q").stdout
    finally:
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_it_ends_when_nobody_calls(lab: Lab, cli_root: Path) -> None:
    path = lab.directory / "idle"
    caller = Caller(cli_root, path)
    assert caller.shell("stowage system fork-server --idle 1").returncode == 0
    until(lambda: not path.exists(), "its end")
    done = caller.shell("stowage system fork-server --stop")
    assert (done.returncode, done.stderr) == (1, f"Error: No such fork server: {path}\n")


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("relative", "STOWAGE_FORK_SERVER=relative: expected an absolute path or off"),
        ("off", "STOWAGE_FORK_SERVER=off keeps commands from using a fork server"),
    ],
)
def test_a_wrong_place_is_refused(value: str, error: str, cli_root: Path) -> None:
    done = Caller(cli_root, value).shell("stowage system fork-server")

    assert done.returncode == 1
    assert error in done.stderr


def test_junk_on_its_socket_harms_nobody(forked: Caller, server: ForkServer) -> None:
    for junk in (b"", b"x", b"\xff\xff\xff\xff", b"\5\0\0\0ab\0cd", b"\0" * 70000):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(server.path))
            with suppress(BrokenPipeError):  # it hangs up on the first bad bytes
                client.sendall(junk)
    assert forked.shell("stowage images -q").returncode == 0
    until(lambda: not server.children(), "the children to end")
