"""Containers that their caller waits for, on the real kernel."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from stowage import effects
from stowage.containers.exec import ExecSpec
from stowage.containers.model import ContainerState
from stowage.containers.runtime import find_runtime
from stowage.containers.streams import Streams
from stowage.containers.volumes import parse_bind
from stowage.errors import Busy, CommandFailed, InvalidArgument, NotFound
from stowage.linux.mountinfo import read_mountinfo
from stowage.testing.abilities import missing

from .boxes import Boxes, until


@pytest.fixture(params=["crun", "runc"])
def runtime(request: pytest.FixtureRequest, boxes: Boxes) -> Iterator[str]:
    if reason := missing(request.param):
        pytest.skip(f"needs {request.param}: {reason}")
    context = boxes.context
    before = context.default_runtime
    context.__dict__["default_runtime"] = find_runtime(request.param, before.root)
    yield str(request.param)
    context.__dict__["default_runtime"] = before


@pytest.mark.parametrize("driver", ["overlay", "vfs"])
@pytest.mark.parametrize("network", ["none", "host"])
def test_every_driver_and_network_runs_under_both_runtimes(
    boxes: Boxes, runtime: str, driver: str, network: str
) -> None:
    said = boxes.sh("echo hi > /file; cat /file", storage_driver=driver, network=network)

    assert said == "hi\n"
    assert boxes.leftovers() == []


def test_a_container_sees_only_its_own(boxes: Boxes, runtime: str) -> None:
    """Processes, mounts, host name and links are its own."""
    said = boxes.sh("ps; echo --; hostname; echo --; ip -o link; echo --; mount", hostname="box")
    processes, hostname, links, mounts = said.split("--\n")

    assert processes.count("\n") == 3  # the heading, sh and ps
    assert hostname == "box\n"
    assert links.splitlines()[0].startswith("1: lo:")
    assert len(links.splitlines()) == 1
    targets = {line.split()[2] for line in mounts.splitlines()}
    assert {"/", "/proc", "/dev", "/sys", "/dev/shm", "/etc/hosts"} <= targets
    assert not targets & {"/tmp", "/run", "/boot"}


def test_a_container_has_dockers_capabilities_and_filter(boxes: Boxes, runtime: str) -> None:
    """docker-behaviour: CapEff a80425fb, seccomp mode 2."""
    said = dict(
        line.split(":\t")
        for line in boxes.sh("grep -E 'Cap|Seccomp:' /proc/self/status").split("\n")
        if line
    )

    assert said["CapEff"] == said["CapBnd"] == said["CapPrm"] == "00000000a80425fb"
    assert said["CapInh"] == said["CapAmb"] == "0000000000000000"
    assert said["Seccomp"] == "2"


def test_the_host_never_has_the_root_in_its_mount_table(boxes: Boxes) -> None:
    before = {entry.target for entry in read_mountinfo()}
    seen: list[set[str]] = []
    reader, writer = os.pipe()
    spec = boxes.spec("sh", "-c", "echo up; cat", auto_remove=True)
    stdin, feed = os.pipe()
    thread = threading.Thread(
        target=lambda: boxes.containers.run(spec, Streams(stdin, writer, writer))
    )
    thread.start()
    assert os.read(reader, 3) == b"up\n"
    seen.append({entry.target for entry in read_mountinfo()})
    os.close(feed)
    thread.join()
    for descriptor in (reader, writer, stdin):
        os.close(descriptor)

    assert seen[0] - before == set()


def test_host_network_is_the_callers(boxes: Boxes) -> None:
    links = boxes.sh("ip -o link; hostname", network="host")

    assert len(links.splitlines()) == len(socket.if_nameindex()) + 1
    assert links.splitlines()[-1] == socket.gethostname()


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("true",), 0),
        (("false",), 1),
        (("sh", "-c", "exit 42"), 42),
        (("sh", "-c", "(kill -9 $$) & wait; exit 3"), 3),
    ],
)
def test_the_exit_code_is_the_processes_own(
    boxes: Boxes, runtime: str, command: tuple[str, ...], code: int
) -> None:
    assert boxes.run(*command).exit_code == code


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("nosuchcmd", 127, 'exec: "nosuchcmd": executable file not found in $PATH: unknown'),
        ("/nosuch", 127, 'exec: "/nosuch": stat /nosuch: no such file or directory: unknown'),
        ("/etc/passwd", 126, 'exec: "/etc/passwd": permission denied: unknown'),
        ("/etc", 126, 'exec: "/etc": permission denied: unknown'),
    ],
)
def test_what_cannot_be_executed_fails_in_dockers_words(
    boxes: Boxes, runtime: str, command: str, code: int, words: str
) -> None:
    with pytest.raises(CommandFailed) as failure:
        boxes.run(command)

    assert failure.value.exit_code == code
    assert failure.value.brief.endswith(f"unable to start container process: {words}")
    assert boxes.containers.list() == []
    assert boxes.leftovers() == []


def test_a_signal_gives_128_and_its_number(boxes: Boxes, runtime: str) -> None:
    reader, writer = os.pipe()
    spec = boxes.spec("sh", "-c", "echo up; exec sleep 60")
    codes: list[int] = []
    thread = threading.Thread(
        target=lambda: codes.append(
            boxes.containers.run(spec, Streams(stdout=writer, stderr=writer)).exit_code
        )
    )
    thread.start()
    os.read(reader, 3)
    (record,) = boxes.containers.list()
    boxes.containers.kill(record.id, "SIGKILL")
    thread.join()
    os.close(reader)
    os.close(writer)

    assert codes == [137]


def test_stdin_is_fed_and_both_outputs_are_collected(boxes: Boxes, runtime: str) -> None:
    big = os.urandom(300_000)
    result = boxes.run("sh", "-c", "cat; echo oops >&2", stdin=big)

    assert result.stdout == big
    assert result.stderr == b"oops\n"


def test_a_time_out_kills_everything(boxes: Boxes) -> None:
    result = boxes.run("sh", "-c", "echo begun; sleep 60 & sleep 60", timeout=0.5)

    assert result.timed_out
    assert result.exit_code == 137
    assert result.stdout == b"begun\n"
    assert boxes.leftovers() == []


@pytest.mark.parametrize(
    ("user", "said"),
    [
        ("", "uid=0(root) gid=0(root) groups=0(root)"),
        ("app", "uid=1000(app) gid=1001(app) groups=1001(app),2000(extra)"),
        ("1000", "uid=1000(app) gid=1001(app) groups=1001(app),2000(extra)"),
        ("app:root", "uid=1000(app) gid=0(root) groups=0(root)"),
        ("7:8", "uid=7 gid=8 groups=8"),
    ],
)
def test_the_user_is_looked_up_in_the_container(boxes: Boxes, user: str, said: str) -> None:
    assert boxes.sh("id", user=user) == said + "\n"


def test_an_unknown_user_is_refused(boxes: Boxes) -> None:
    with pytest.raises(InvalidArgument, match="unable to find user nobody"):
        boxes.run("true", user="nobody")

    assert boxes.containers.list() == []


def test_the_environment_is_dockers(boxes: Boxes) -> None:
    said = boxes.sh("env", env=("A=1", "PATH=/bin"), hostname="h", user="app").splitlines()

    assert {"A=1", "PATH=/bin", "HOSTNAME=h", "HOME=/home/app"} <= set(said)
    assert not any(line.startswith("TERM=") for line in said)


def test_a_working_directory_is_made(boxes: Boxes) -> None:
    assert boxes.sh("pwd", working_dir="/new/deep") == "/new/deep\n"
    assert boxes.sh("pwd") == "/\n"


@pytest.mark.parametrize("place", ["/proc/self/fd/9", "/proc/1/root", "/proc"])
def test_a_working_directory_below_proc_is_refused(boxes: Boxes, place: str) -> None:
    with pytest.raises(InvalidArgument, match="resolves to '/proc"):
        boxes.run("pwd", working_dir=place)


def test_the_planted_escape_finds_nothing(boxes: Boxes, runtime: str) -> None:
    """An inheritable descriptor of the host's root, and a link to it as the working directory."""
    planted = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(planted, True)
    try:
        record = boxes.containers.create(boxes.spec("sh", "-c", "ls -la /proc/self/fd"))
        boxes.containers.start(record.id)
        boxes.containers.wait(record.id)
        listing = b"".join(entry.text for entry in boxes.containers.logs(record.id)).decode()
        spec = boxes.spec("ls", working_dir=f"/proc/self/fd/{planted}")
        with pytest.raises(InvalidArgument, match="resolves to '/proc"):
            boxes.containers.run(spec)
        with pytest.raises(InvalidArgument, match="resolves to '/proc"):
            boxes.containers.start(boxes.containers.create(spec).id)
    finally:
        os.close(planted)

    links = [line.rsplit(" -> ")[-1] for line in listing.splitlines() if " -> " in line]
    assert links
    assert all(link.startswith(("/dev/null", "pipe:", "/proc/")) for link in links), listing


def test_what_is_meant_for_our_caller_reaches_no_container(
    boxes: Boxes, runtime: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Runtimes hand LISTEN_FDS into the container and wait for its word on NOTIFY_SOCKET."""
    tmp_path.joinpath("host").touch()
    planted = os.open(tmp_path / "host", os.O_RDWR)
    os.set_inheritable(planted, True)
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(tmp_path / "notify"))
    monkeypatch.setenv("LISTEN_FDS", str(planted))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    look = ("sh", "-c", "ls -l /proc/self/fd; env")
    try:
        said = [boxes.run(*look).stdout.decode()]
        record = boxes.start(*look)
        boxes.containers.wait(record.id)
        said.append(b"".join(entry.text for entry in boxes.containers.logs(record.id)).decode())
        record = boxes.start("sleep", "60")
        said.append(boxes.containers.exec(record.id, ExecSpec(look)).stdout.decode())
        monitor = record.runtime.monitor_process
        assert monitor is not None
        said.append(Path(f"/proc/{monitor.pid}/environ").read_text())
    finally:
        os.close(planted)
        notify.close()

    for text in said:
        assert "PATH=" in text
        assert not any(word in text for word in (str(tmp_path), "LISTEN_", "NOTIFY_"))


def test_volumes_are_bound_and_read_only_ones_refuse(boxes: Boxes, tmp_path: Path) -> None:
    tmp_path.joinpath("file").write_text("of the host\n")
    binds = (
        parse_bind(f"{tmp_path}:/rw"),
        parse_bind(f"{tmp_path}:/ro:ro"),
        parse_bind(f"{tmp_path}/file:/etc/one:ro"),
        parse_bind(f"{tmp_path}/made:/deep/er"),
    )
    said = boxes.sh(
        "cat /ro/file /etc/one; echo new > /rw/new; echo no > /ro/no; ls -d /deep/er", binds=binds
    )

    assert said.startswith("of the host\nof the host\n")
    assert "Read-only file system" in said
    assert said.endswith("/deep/er\n")
    assert tmp_path.joinpath("new").read_text() == "new\n"
    assert tmp_path.joinpath("made").is_dir()


def test_a_shared_volume_shows_mounts_made_inside_on_the_host(boxes: Boxes, tmp_path: Path) -> None:
    """Only with CAP_SYS_ADMIN could one be made inside; what must hold is the peer group."""
    from stowage.linux.mount import MS_BIND, MS_SHARED, set_propagation, syscall_mount, unmount

    syscall_mount(str(tmp_path), tmp_path, "", MS_BIND)
    try:
        with pytest.raises(InvalidArgument, match="is not a shared mount"):
            boxes.run("true", binds=(parse_bind(f"{tmp_path}:/v:shared"),))
        set_propagation(str(tmp_path), MS_SHARED)
        ours = next(e for e in read_mountinfo() if e.target == str(tmp_path)).propagation
        said = boxes.sh(
            "grep ' /v ' /proc/self/mountinfo", binds=(parse_bind(f"{tmp_path}:/v:shared"),)
        )
    finally:
        unmount(tmp_path)

    assert next(word for word in ours if word.startswith("shared:")) in said.split()


def test_names_of_things_that_do_not_exist(boxes: Boxes) -> None:
    with pytest.raises(NotFound, match="No such image: nosuch"):
        boxes.run("true", image="nosuch")
    with pytest.raises(NotFound, match="network nosuch not found"):
        boxes.run("true", network="nosuch")
    with pytest.raises(NotFound, match="nosuch"):
        boxes.run("true", storage_driver="nosuch")

    assert boxes.containers.list() == []
    assert boxes.leftovers() == []


def test_a_run_that_is_kept_is_recorded(boxes: Boxes) -> None:
    result = boxes.run("sh", "-c", "exit 9", auto_remove=False, name="kept")
    record = boxes.containers.get("kept")

    assert record.id == result.container_id
    assert record.state is ContainerState.EXITED
    assert record.runtime.exit_code == 9
    assert record.runtime.started_ns < record.runtime.finished_ns


def test_an_end_that_cannot_be_recorded_is_left_to_recovery(
    boxes: Boxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stowage.containers.context.LOCK_WAIT_SECONDS", 0.1)
    with ExitStack() as stack, pytest.raises(Busy):
        boxes.containers.run(
            boxes.spec("sh", "-c", "exit 5"),
            created=lambda record: stack.enter_context(
                boxes.context.locked(record.id, "is in its way")
            ),
        )
    boxes.open()
    (record,) = boxes.containers.list()

    assert (record.state, record.runtime.exit_code) == (ContainerState.EXITED, 5)
    assert boxes.leftovers() == [str(boxes.context.files(record.id).kept)]


def test_an_interrupt_while_the_runtime_starts_leaves_nothing(boxes: Boxes) -> None:
    main = threading.main_thread().ident
    assert main is not None

    @contextmanager
    def interrupting(name: str, facts: dict[str, object]) -> Iterator[None]:
        if name == "runtime.run":
            signal.pthread_kill(main, signal.SIGINT)
            time.sleep(0.5)
        yield

    stop_watching = effects.observe(interrupting)
    try:
        with pytest.raises(KeyboardInterrupt):
            boxes.run("sleep", "60")
    finally:
        stop_watching()

    assert boxes.processes() == []
    assert boxes.containers.list() == []
    assert boxes.leftovers() == []


def test_many_threads_run_at_once(boxes: Boxes) -> None:
    said: list[str] = []
    threads = [
        threading.Thread(target=lambda n=n: said.append(boxes.sh(f"echo {n}"))) for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(said) == [f"{n}\n" for n in range(6)]
    until(lambda: boxes.leftovers() == [], "the cgroup to go")
