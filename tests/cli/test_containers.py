"""Containers by the command line: real ones, on overlay and vfs, in the lab's network."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stowage.testing.lab import Lab

from .conftest import Run

pytestmark = pytest.mark.requires("containers")

RUN = ("run", "--network", "none")


@pytest.fixture(autouse=True)
def _empty(stowage: Run) -> Iterator[None]:
    """Each test leaves no container."""
    yield
    for name in stowage("ps", "-aq").out.split():
        stowage("rm", "-f", name)
    assert stowage("ps", "-aq").out == ""


@pytest.mark.parametrize("driver", ["overlay", "vfs"])
@pytest.mark.parametrize("network", ["none", "host"])
def test_a_container_runs_isolated(stowage: Run, driver: str, network: str) -> None:
    """Pid 1, its own hostname, root and links; stdout and stderr apart; its exit code."""
    done = stowage(
        *("run", "--rm", "--network", network, "--storage-driver", driver, "-h", "box"),
        *("busybox", "sh", "-c", "echo $$; hostname; ls /sys/class/net; echo oops >&2; exit 3"),
    )

    assert done.code == 3
    assert done.out.split()[0] == "1"
    if network == "none":
        assert done.out.split()[1:] == ["box", "lo"]
    assert done.err.endswith("oops\n")
    assert stowage("ps", "-aq").out == ""


def test_a_detached_container_lives_through_its_states(stowage: Run) -> None:
    """run -d, ps, exec, logs, stop, start, kill, wait, rm, as Docker words them."""
    identity = stowage(
        *RUN, "-d", "--name", "web", "-e", "A=1", "-l", "x=y", "busybox",
        "sh", "-c", "echo started; trap 'exit 7' TERM; while :; do sleep 0.05; done",
    ).line  # fmt: skip
    assert len(identity) == 64

    row = json.loads(stowage("ps", "--format", "json").line)
    assert (row["ID"], row["Names"], row["Image"]) == (identity[:12], "web", "busybox")
    assert row["Status"].startswith("Up ")
    assert stowage("ps", "-q", "-f", "label=x=y", "-f", "name=we").line == identity[:12]
    assert stowage("ps", "-q", "-f", "status=exited").out == ""
    assert stowage("exec", "web", "sh", "-c", "echo $A; exit 5").code == 5
    assert stowage("logs", "web").line == "started"
    assert stowage("inspect", "-f", "{{.State.Status}} {{.Name}}", "web").line == "running /web"
    done = stowage("rm", "web")
    assert done.code == 1
    assert f"You cannot remove a running container {identity}" in done.err
    assert stowage("stop", "web").line == "web"
    assert stowage("wait", "web").line == "7"
    assert stowage("ps", "-a", "--format", "{{.Status}}").line.startswith("Exited (7) ")
    assert stowage("start", "web").line == "web"
    assert stowage("kill", "-s", "KILL", "web").line == "web"
    assert stowage("ps", "-a", "--format", "{{.Status}}").line.startswith("Exited (137) ")
    assert stowage("wait", "web").line == "137"
    assert stowage("rm", "web").line == "web"


def test_what_a_container_writes_is_seen_kept_and_exported(stowage: Run, tmp_path: Path) -> None:
    """diff, commit, a run of the commit, export; the init's mount targets never show."""
    stowage(*RUN, "--name", "wr", "busybox", "sh", "-c", "echo hi > /new; rm /etc/group")

    assert set(stowage("diff", "wr").out.splitlines()) == {"A /new", "C /etc", "D /etc/group"}
    assert stowage(
        "commit", "-a", "Ann", "-m", "why", "-c", "ENV B=2", "wr", "kept:1"
    ).line.startswith("sha256:")
    assert stowage(*RUN, "--rm", "kept:1", "sh", "-c", "cat /new; echo $B").out == "hi\n2\n"
    archive = tmp_path / "out.tar"
    assert stowage("export", "-o", str(archive), "wr").code == 0
    names = subprocess.run(
        ["tar", "tf", archive], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "new" in names
    assert "etc/group" not in names
    assert stowage("rm", "wr").code == 0
    assert stowage("rmi", "kept:1").code == 0


def test_the_hosts_root_is_a_copy_on_write_root(stowage: Run) -> None:
    """``--rootfs /``: the host stays untouched, and diff shows what was done."""
    done = stowage(*RUN, "--name", "hr", "--rootfs", "/", "sh", "-c", "echo x > /stowage-was-here")

    assert done.code == 0, done.err
    assert not os.path.exists("/stowage-was-here")
    assert "A /stowage-was-here" in stowage("diff", "hr").out.splitlines()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("busybox", "nosuchcmd"), 127, 'exec: "nosuchcmd": executable file not found in $PATH'),
        (("busybox", "/etc/passwd"), 126, "permission denied"),
        (("nosuch", "true"), 125, "nosuch"),
        (("--network", "nosuch", "busybox", "true"), 125, "network nosuch not found."),
        (("--storage-driver", "overly", "busybox", "true"), 125, "did you mean 'overlay'"),
        (("--storage-opt", "nosuch=1", "busybox", "true"), 125, "nosuch"),
        (("Bad Image", "true"), 125, "invalid reference format"),
        (("-v", "relative/path:/x", "busybox", "true"), 125, "use absolute path"),
        (("-u", "nobodyhere", "busybox", "true"), 125, "nobodyhere"),
        (("-it", "busybox", "true"), 125, "the input device is not a TTY"),
        (("--stop-signal", "NOSUCH", "busybox", "true"), 125, "NOSUCH"),
        (("--tmpfs", "/x:size=abc", "busybox", "true"), 125, 'Invalid tmpfs option ["size=abc"]'),
        (
            ("--device-read-bps", "/dev/null:1mb", "busybox", "true"),
            125,
            "/dev/null is not a block device",
        ),
        (("-e", "A=\udcff", "busybox", "true"), 125, r"env[0] is not UTF-8: b'A=\xff'"),
        (("busybox", "echo", "\udcff"), 125, r"command[1] is not UTF-8: b'\xff'"),
        (("-v", "/\udcff:/x", "busybox", "true"), 125, r"binds[0].source is not UTF-8"),
    ],
)
def test_a_run_that_cannot_be_is_one_clear_error(
    stowage: Run, words: tuple[str, ...], code: int, message: str
) -> None:
    """Docker's code and words; nothing is left of it with --rm."""
    done = stowage(*RUN, "--rm", *words)

    assert done.code == code, done.err
    assert message in done.err
    assert done.err.startswith("stowage: ")
    assert "Traceback" not in done.err
    assert stowage("ps", "-aq").out == ""


def test_a_name_belongs_to_one_container(stowage: Run) -> None:
    """Docker's sentence, with the id of the one that has it."""
    identity = stowage("create", "--network", "none", "--name", "web", "busybox", "true").line

    done = stowage(*RUN, "--name", "web", "busybox", "true")

    assert done.code == 125
    assert (
        f'Conflict. The container name "/web" is already in use by container "{identity}".'
        " You have to remove (or rename) that container to be able to reuse that name." in done.err
    )


def test_unknown_and_stopped_containers_are_named(stowage: Run) -> None:
    """For each verb, with Docker's words and code."""
    stowage("create", "--network", "none", "--name", "st", "busybox", "true")
    assert "Invalid filter 'foo'" in stowage("ps", "-f", "foo=bar").err
    assert "Invalid filter 'status=x'" in stowage("ps", "-f", "status=x").err

    for words in (("stop",), ("kill",), ("rm",), ("wait",), ("logs",), ("diff",), ("exec",)):
        extra = ("true",) if words == ("exec",) else ()
        done = stowage(*words, "nosuch", *extra)
        assert "No such container: nosuch" in done.err, words
        assert done.code == 1
    done = stowage("start", "nosuch", "st")
    assert (done.code, done.out) == (1, "st\n")
    assert done.err.endswith("Error: failed to start containers: nosuch\n")
    stowage("wait", "st")
    assert "is not running" in stowage("exec", "st", "true").err
    assert "is not running" in stowage("kill", "st").err


def test_stdin_is_passed_on(cli_root: Path) -> None:
    """``-i`` feeds the container and ends with our end of file."""
    command = [sys.executable, "-m", "stowage", "--root", str(cli_root), *RUN, "--rm", "-i"]

    done = subprocess.run(
        [*command, "busybox", "cat"], input=b"one\ntwo\n", capture_output=True, check=False
    )

    assert (done.returncode, done.stdout) == (0, b"one\ntwo\n"), done.stderr


def test_a_terminal_is_handed_through(cli_root: Path) -> None:
    """``-it``: a tty inside, of our size; ctrl-p ctrl-q leaves it running."""
    command = [sys.executable, "-m", "stowage", "--root", str(cli_root), *RUN, "-it"]

    with _Terminal([*command, "--name", "term", "busybox", "sh"]) as terminal:
        terminal.send(b"stty size; tty; exit 4\n")
        shown = terminal.rest()
    assert terminal.code == 4
    assert b"33 77" in shown
    assert b"/dev/pts/0" in shown

    with _Terminal([*command, "--name", "left", "busybox", "sleep", "100"]) as terminal:
        terminal.send(b"\x10\x11")
        terminal.rest()
    assert terminal.code == 0


class _Terminal:
    """A command on a pseudo-terminal of 33 rows and 77 columns."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self.code: int | None = None

    def __enter__(self) -> _Terminal:
        self._ours, theirs = os.openpty()
        termios.tcsetwinsize(theirs, (33, 77))
        self._process = subprocess.Popen(
            self._command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)
        return self

    def send(self, keys: bytes) -> None:
        """Type *keys* once the command has made the terminal raw."""
        deadline = time.monotonic() + 30
        while termios.tcgetattr(self._ours)[3] & termios.ICANON and time.monotonic() < deadline:
            time.sleep(0.02)
        os.write(self._ours, keys)

    def rest(self) -> bytes:
        """Read what it shows until it has ended."""
        shown = b""
        try:
            while chunk := os.read(self._ours, 4096):
                shown += chunk
        except OSError:  # nobody has it open any more
            pass
        return shown

    def __exit__(self, *exc: object) -> None:
        self.code = self._process.wait(30)
        os.close(self._ours)


def test_a_signal_reaches_the_container(cli_root: Path) -> None:
    """TERM to the command is TERM to the container, and the code is the container's."""
    script = "trap 'echo got it; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    command = [sys.executable, "-m", "stowage", "--root", str(cli_root), *RUN, "--rm", "busybox"]
    with subprocess.Popen([*command, "sh", "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == b"got it\n"

    assert process.returncode == 9


def test_a_cid_file_has_the_id_and_is_never_written_over(stowage: Run, tmp_path: Path) -> None:
    """As Docker; it goes when no container was made."""
    path = tmp_path / "cid"
    identity = stowage("create", "--network", "none", "--cidfile", str(path), "busybox", "x").line

    assert path.read_text() == identity
    done = stowage(*RUN, "--cidfile", str(path), "busybox", "true")
    assert done.code == 125
    assert "container ID file found" in done.err
    gone = tmp_path / "gone"
    assert stowage(*RUN, "--cidfile", str(gone), "nosuch", "true").code == 125
    assert not gone.exists()


def test_logs_are_cut_followed_and_stamped(stowage: Run) -> None:
    """--tail, -t, --since, -f until the end; stderr goes to stderr."""
    script = "for i in 1 2 3; do echo $i; done; echo e >&2; sleep 0.3; echo late"
    stowage(*RUN, "-d", "--name", "lg", "busybox", "sh", "-c", script)

    done = stowage("logs", "-f", "lg")

    assert (done.out, done.err) == ("1\n2\n3\nlate\n", "e\n")
    assert stowage("logs", "--tail", "1", "lg").out == "late\n"
    stamped = stowage("logs", "-t", "-n", "1", "lg").line
    assert stamped.endswith("Z late")
    assert stowage("logs", "--since", str(int(time.time()) + 60), "lg").out == ""
    assert (
        'invalid value for "since": failed to parse value as time'
        in stowage("logs", "--since", "junk", "lg").err
    )


def test_a_snapshot_is_mounted_and_unmounted(stowage: Run, tmp_path: Path) -> None:
    """By the container's name, at a place of ours or at one given."""
    stowage("create", "--network", "none", "--name", "mo", "busybox", "true")

    place = stowage("mount", "mo").line
    assert os.path.exists(f"{place}/bin/busybox")
    assert stowage("unmount", place).line == place
    assert not os.path.exists(f"{place}/bin/busybox")
    assert "mo is not mounted by this root" in stowage("unmount", "mo").err
    assert "No such container or snapshot: nosuch" in stowage("mount", "nosuch").err


def as_nobody(*words: str) -> subprocess.CompletedProcess[str]:
    may_read = "dac_read_search"  # the checkout may lie below /root
    command = [
        "setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups",
        "--inh-caps", f"+{may_read}", "--ambient-caps", f"+{may_read}",
        sys.executable, "-m", "stowage", *words,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_user_who_is_not_root_learns_what_works(tmp_path: Path) -> None:
    """Probing needs no root of the machine; only one that was named must be there to open."""
    done = as_nobody("driver", "ls", "--format", "{{.Name}} {{.Works}}")
    named = as_nobody("--root", str(tmp_path / "closed"), "driver", "ls")

    assert done.returncode == 0, done.stderr
    assert "vfs yes" in done.stdout.splitlines()
    assert "made for this command" in done.stderr
    assert named.returncode != 0
    assert "cannot be opened" in named.stderr


def test_a_user_who_is_not_root_is_told_why_an_archive_cannot_be_unpacked(lab: Lab) -> None:
    with tempfile.TemporaryDirectory(dir=lab.directory) as name:
        os.chown(name, 65534, 65534)
        done = as_nobody("--root", f"{name}/root", "bootstrap", "-q", "busybox")

    assert done.returncode == 1
    assert "CAP_CHOWN" in done.stderr
    assert "as root" in done.stderr


def test_a_user_who_is_not_root_is_told_so(cli_root: Path) -> None:
    """Early, with the remedy, and without a traceback."""
    done = as_nobody("--root", str(cli_root), "run", "busybox", "true")

    assert done.returncode == 125
    assert "containers can be run by root only" in done.stderr
    assert "sudo" in done.stderr


def test_a_refused_removal_changes_nothing(stowage: Run, tmp_path: Path) -> None:
    """A mount keeps the container's snapshot: it starts afterwards, and stays."""
    point = tmp_path / "point"
    point.mkdir()
    assert stowage(*RUN, "--name", "kept", "busybox", "true").code == 0
    stowage("mount", "kept", str(point))
    try:
        before = stowage("inspect", "kept").out
        refused = stowage("rm", "kept")
        assert (refused.code, "mounted" in refused.err) == (1, True), refused.err
        assert stowage("inspect", "kept").out == before
    finally:
        stowage("unmount", str(point))

    assert stowage("start", "kept").line == "kept"
    assert stowage("wait", "kept").line == "0"
    assert stowage("ps", "-a", "--format", "{{.Names}}").line == "kept"


def test_what_was_mounted_by_its_name_is_unmounted_by_it(stowage: Run, tmp_path: Path) -> None:
    """A container's name or a layer's, wherever it was mounted; paths come first."""
    stowage("create", "--network", "none", "--name", "mo", "busybox", "true")
    layer = stowage("layers", "-q", "-f", "kind=committed", "-f", "driver=overlay").out.split()[0]
    for name in ("mo", layer):
        for where in ((), (str(tmp_path),)):
            place = stowage("mount", "--driver", "overlay", name, *where).line
            assert stowage("unmount", "--driver", "overlay", name).line == name
            assert not os.path.exists(f"{place}/bin/busybox")
    done = stowage("unmount", "nosuch")
    assert (done.code, "nosuch is not mounted by this root" in done.err) == (1, True)


@pytest.mark.parametrize("verb", [("run", "--rm"), ("run", "-d"), ("run",), ("create",)])
def test_a_missing_runtime_is_found_before_anything_is_made(
    stowage: Run, verb: tuple[str, ...]
) -> None:
    """125 and the reason; no container is left, whether it was to be removed or not."""
    done = stowage("--default-runtime", "nosuch", *verb, "--network", "none", "busybox", "true")

    assert done.code == 125
    assert "the OCI runtime 'nosuch' (default-runtime) is not installed" in done.err
    assert stowage("ps", "-aq").out == ""


def test_a_missing_monitor_is_found_before_anything_is_made(
    stowage: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """conmon as well, with the package that brings it."""
    find = shutil.which
    monkeypatch.setattr(
        "shutil.which", lambda name, **asked: None if name == "conmon" else find(name, **asked)
    )

    done = stowage(*RUN, "busybox", "true")

    assert (done.code, "conmon is not installed" in done.err) == (125, True)
    assert "apt-get install conmon" in done.err
    assert stowage("ps", "-aq").out == ""


def test_bringing_an_image_to_another_driver_is_said_once(stowage: Run, tmp_path: Path) -> None:
    """On stderr, in words; the second container finds the layers there."""
    archive = str(tmp_path / "fresh.tar")
    stowage("create", "--network", "none", "--name", "made", "busybox", "true")
    stowage("export", "-o", archive, "made")
    stowage("import", archive, "fresh")
    asked = (*RUN, "--rm", "--storage-driver", "vfs", "fresh", "true")
    first, second = stowage(*asked), stowage(*asked)

    assert (first.code, second.code, first.out) == (0, 0, "")
    assert "the image fresh:latest is on overlay; copying 1 layer of it to vfs" in first.err
    assert "copying" not in second.err


def test_attach_joins_a_running_container(cli_root: Path, stowage: Run) -> None:
    """Its output from now on, our input, its exit code; not of one that does not run."""
    stowage(
        *RUN, "-d", "-i", "--name", "at", "busybox", "sh", "-c", "read line; echo $line; exit 6"
    )
    command = [sys.executable, "-m", "stowage", "--root", str(cli_root), "attach", "at"]

    done = subprocess.run(command, input=b"hello\n", capture_output=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (6, b"hello\n", b"")
    again = stowage("attach", "at")
    assert again.code == 1
    assert "You cannot attach to a stopped container, start it first" in again.err


def test_a_container_is_renamed(stowage: Run) -> None:
    """The slash that Docker's API puts before names may be given; taken names are refused."""
    for name in ("one", "/two"):
        assert stowage("create", "--network", "none", "--name", name, "busybox", "true").code == 0
    assert stowage("container", "rename", "one", "/three").code == 0
    assert sorted(stowage("ps", "-a", "--format", "{{.Names}}").out.split()) == ["three", "two"]
    taken = stowage("rename", "two", "three")
    assert (taken.code, 'The container name "/three" is already in use' in taken.err) == (1, True)


def test_exec_has_dockers_code_for_what_cannot_start(stowage: Run) -> None:
    """126 for a directory or a user that is not there, 127 for a command."""
    stowage(*RUN, "-d", "--name", "ex", "busybox", "sleep", "100")
    for code, *words in (
        (126, "-w", "/nonexist", "ex", "true"),
        (126, "-u", "nosuchuser", "ex", "true"),
        (127, "ex", "nosuch"),
    ):
        assert stowage("exec", *words).code == code


def test_a_commit_without_the_base_is_said(stowage: Run) -> None:
    """An image of a ``--rootfs`` container holds what it changed, and no more."""
    stowage(*RUN, "--name", "hr", "--rootfs", "/", "sh", "-c", "echo x > /only")

    done = stowage("commit", "hr", "upper")

    assert done.code == 0
    assert "hr runs on the directory /, which is no part of the image" in done.err
    assert stowage("rmi", "upper").code == 0


def test_inspect_tells_where_a_running_container_lives(stowage: Run) -> None:
    """Its merged root and network namespace, by its process; and the form of its log."""
    stowage(*RUN, "-d", "--name", "in", "busybox", "sleep", "100")
    (document,) = json.loads(stowage("inspect", "in").out)
    pid = document["State"]["Pid"]

    merged = document["GraphDriver"]["Data"]["MergedDir"]
    assert (merged, os.path.exists(f"{merged}/bin/busybox")) == (f"/proc/{pid}/root", True)
    assert document["NetworkSettings"]["SandboxKey"] == f"/proc/{pid}/ns/net"
    assert document["HostConfig"]["LogConfig"]["Type"] == "json-file"
    stowage("kill", "in")
    stowage("wait", "in")
    (document,) = json.loads(stowage("inspect", "in").out)
    assert "MergedDir" not in document["GraphDriver"]["Data"]
    assert document["NetworkSettings"]["SandboxKey"] == ""


def test_an_export_that_cannot_be_written_names_the_file(stowage: Run) -> None:
    """The one that was asked for, not the draft beside it."""
    stowage("create", "--network", "none", "--name", "xp", "busybox", "true")

    done = stowage("export", "-o", "/nonexist/x", "xp")

    assert done.code == 1
    assert 'invalid output path: directory "/nonexist" does not exist' in done.err
