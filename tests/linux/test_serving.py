"""FUSE servers: they live as long as their mount is referred to, whoever is killed."""

from __future__ import annotations

import errno
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stowage import NotSupported, StowageError, Unavailable
from stowage.linux import serving
from stowage.linux.mount import move, unmount
from stowage.linux.mountinfo import read_mountinfo
from stowage.linux.process import send_signal

pytestmark = pytest.mark.requires("fuse")

PATIENCE_SECONDS = 30.0

TOY = """
import errno, os, stat

from stowage import FailedPrecondition
from stowage.linux.fuse_server import FileSystem


class Toy:
    use_ns = True

    def __init__(self, text):
        self.text = text

    def getattr(self, path, fh=None):
        if path == "/":
            return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
        if path in ("/text", "/death"):
            return {"st_mode": stat.S_IFREG | 0o644, "st_nlink": 1, "st_size": len(self.text)}
        raise OSError(errno.ENOENT, "no such toy")

    def readdir(self, path, fh):
        return [".", "..", "text"]

    def open(self, path, flags):
        if path == "/death":
            os.kill(os.getpid(), 9)
        return 1

    def read(self, path, size, offset, fh):
        return self.text[offset : offset + size]


def build(arguments, descriptors):
    what = arguments.get("fail")
    if what == "refuse":
        raise FailedPrecondition("no toys today", details="the shop is closed", resolution="wait")
    if what == "crash":
        raise ZeroDivisionError("by a toy")
    if what == "die":
        os.kill(os.getpid(), 9)
    if what == "twist":
        return FileSystem(Toy(b""), {"no_such_option": True})
    if descriptors:
        text = os.pread(descriptors[0], 100, 0)
    else:
        text = arguments.get("text", "hello").encode()
    return FileSystem(Toy(text), {})
"""


@pytest.fixture
def directory(shm_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where servers keep log and marks; the toy can be imported by them."""
    (shm_dir / "toys.py").write_text(TOY)
    monkeypatch.setenv("PYTHONPATH", str(shm_dir))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    made = shm_dir / "toy"
    made.mkdir()
    yield made
    for server in serving.servers(made):
        send_signal(server, signal.SIGKILL)


def toy(directory: Path, **arguments: str) -> serving.Service:
    return serving.Service("a toy", "toys:build", directory, arguments)


def content(mounted: int, name: str = "text") -> bytes:
    descriptor = os.open(name, os.O_RDONLY, dir_fd=mounted)
    try:
        return os.read(descriptor, 100)
    finally:
        os.close(descriptor)


def ended(directory: Path) -> bool:
    return serving.wait_ended(directory, PATIENCE_SECONDS)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# --- life ---------------------------------------------------------------------------------------


def test_a_server_lives_until_the_last_reference_to_its_mount_is_closed(directory: Path) -> None:
    before = {entry.id for entry in read_mountinfo()}
    mounted = serving.start(toy(directory, text="one"))
    (server,) = serving.servers(directory)
    second = os.open("text", os.O_RDONLY, dir_fd=mounted)
    assert {entry.id for entry in read_mountinfo()} == before

    os.close(mounted)
    assert server.alive
    assert os.read(second, 100) == b"one"
    os.close(second)
    assert ended(directory)
    assert os.listdir(directory) == [serving.LOG_NAME]
    assert serving.take_fallen(directory) == []


def test_the_server_has_a_session_a_namespace_and_a_root_of_its_own(directory: Path) -> None:
    unrelated, ours = os.pipe()
    os.set_inheritable(unrelated, True)
    given = os.memfd_create("given")
    os.write(given, b"by descriptor")
    service = serving.Service("a toy", "toys:build", directory, {}, (given,))
    mounted = serving.start(service)
    try:
        (server,) = serving.servers(directory)
        at = Path(f"/proc/{server.pid}")
        until(lambda: not pipes_and_sockets(server.pid))
        assert content(mounted) == b"by descriptor"
        assert os.getsid(server.pid) == server.pid
        assert os.readlink(at / "ns/mnt") != os.readlink("/proc/thread-self/ns/mnt")
        assert sorted(os.listdir(at / "root")) == ["dev", "mnt", "proc"]
    finally:
        os.close(mounted)
        for descriptor in (unrelated, ours, given):
            os.close(descriptor)
    assert ended(directory)


def pipes_and_sockets(pid: int) -> list[str]:
    targets = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    return [target for target in targets if target.startswith(("pipe:", "socket:"))]


def test_the_mount_can_be_attached_and_outlives_who_asked_for_it(directory: Path) -> None:
    place = directory / "place"
    place.mkdir()
    pid = os.fork()
    if pid == 0:
        mounted = serving.start(toy(directory, text="two"))
        move(mounted, place)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)

    assert (place / "text").read_bytes() == b"two"
    (server,) = serving.servers(directory)
    assert server.alive
    unmount(place)
    assert ended(directory)


def test_several_serve_one_directory(directory: Path) -> None:
    first, second = serving.start(toy(directory)), serving.start(toy(directory, text="two"))
    assert len(serving.servers(directory)) == 2
    assert (content(first), content(second)) == (b"hello", b"two")
    os.close(first)
    assert content(second) == b"two"
    os.close(second)
    assert ended(directory)


def test_the_server_keeps_no_file_system_of_the_host_alive(directory: Path, shm_dir: Path) -> None:
    import subprocess

    other = shm_dir / "other"
    other.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "other", other], check=True)
    inside = os.stat(other).st_dev
    mounted = serving.start(toy(directory))
    try:
        (server,) = serving.servers(directory)
        unmount(other)
        table = Path(f"/proc/{server.pid}/mountinfo").read_text()
        assert f"{os.major(inside)}:{os.minor(inside)} " not in table
    finally:
        os.close(mounted)
    assert ended(directory)


# --- deaths -------------------------------------------------------------------------------------


def test_a_killed_server_is_told_of_once_and_replaced(directory: Path) -> None:
    place = directory / "place"
    place.mkdir()
    mounted = serving.start(toy(directory))
    move(mounted, place)
    os.close(mounted)
    (server,) = serving.servers(directory)

    with pytest.raises(OSError, match="connect") as caught:  # or "connection abort": in flight
        (place / "death").read_bytes()
    assert caught.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    until(lambda: not server.alive)
    (told,) = serving.take_fallen(directory)
    assert str(server.pid) in told
    assert serving.take_fallen(directory) == []

    again = serving.start(toy(directory, text="again"))
    assert content(again) == b"again"
    with pytest.raises(OSError, match="not connected") as caught:
        os.stat(place / "text")
    assert caught.value.errno == errno.ENOTCONN
    unmount(place)
    os.close(again)
    assert ended(directory)


def test_a_kill_of_who_asks_leaves_nothing_whenever_it_comes(
    directory: Path, rounds: Callable[[int, int], int]
) -> None:
    """At moments spread over a start's whole length."""
    begun = time.monotonic()
    os.close(serving.start(toy(directory)))
    length = time.monotonic() - begun
    count = rounds(6, 40)
    for number in range(count):
        pid = os.fork()
        if pid == 0:
            os.close(serving.start(toy(directory)))
            os._exit(0)
        time.sleep(length * 1.2 * number / count)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    os.close(serving.start(toy(directory)))

    until(lambda: not starting(directory))
    assert ended(directory)
    assert serving.take_fallen(directory) == []


def starting(directory: Path) -> list[str]:
    """Processes that will be servers of *directory*, or are."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name != str(os.getpid()):
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"fuse_server" in line and os.fsencode(directory) in line:
                found.append(entry.name)
    return found


def test_a_receiver_that_dies_with_the_mount_in_its_socket_ends_the_server(
    directory: Path,
) -> None:
    """What is under way in a socket counts as a reference, and goes with the socket."""
    mounted = serving.start(toy(directory))
    left, right = socket.socketpair()
    socket.send_fds(left, [b"x"], [mounted])
    os.close(mounted)
    (server,) = serving.servers(directory)
    assert server.alive
    left.close()
    right.close()
    assert ended(directory)


# --- what cannot be served ----------------------------------------------------------------------


def test_what_the_function_raises_is_raised_here(directory: Path) -> None:
    with pytest.raises(StowageError) as caught:
        serving.start(toy(directory, fail="refuse"))
    assert type(caught.value).__name__ == "FailedPrecondition"
    assert str(caught.value) == "no toys today\nthe shop is closed\nwait"

    with pytest.raises(StowageError, match="ZeroDivisionError: by a toy") as caught:
        serving.start(toy(directory, fail="crash"))
    assert type(caught.value).__name__ == "DriverFailed"
    assert "ZeroDivisionError" in "\n".join(serving.last_words(directory))


def test_a_server_that_dies_before_it_serves_is_unavailable(directory: Path) -> None:
    with pytest.raises(Unavailable, match="did not start"):
        serving.start(toy(directory, fail="die"))
    until(lambda: serving.take_fallen(directory))


def test_an_option_that_libfuse_refuses_is_named(directory: Path) -> None:
    with pytest.raises(StowageError, match="no_such_option"):
        serving.start(toy(directory, fail="twist"))
    assert ended(directory)


def test_without_libfuse_the_remedy_is_named(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSE_LIBRARY_PATH", "/nowhere/libfuse.so.2")
    with pytest.raises(NotSupported, match="apt install libfuse2"):
        serving.start(toy(directory))
