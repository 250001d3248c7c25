"""Attaching to a container's stdio, with pipes and with a terminal."""

from __future__ import annotations

import os
import resource
import signal
import termios
import threading
from collections.abc import Iterator

import pytest

from stowage.containers.exec import ExecSpec
from stowage.containers.model import ContainerState
from stowage.containers.streams import Streams
from stowage.errors import FailedPrecondition, Unavailable
from stowage.testing.terminals import Terminal

from .boxes import Boxes, until


class Pipes:
    """Three pipes, with what was written to the last two."""

    def __init__(self, stdin: bytes) -> None:
        self.stdin, feed = os.pipe()
        os.write(feed, stdin)
        os.close(feed)
        self._out, self.stdout = os.pipe()
        self._err, self.stderr = os.pipe()

    def close(self) -> tuple[bytes, bytes]:
        os.close(self.stdout)
        os.close(self.stderr)
        said = (self._drain(self._out), self._drain(self._err))
        os.close(self.stdin)
        return said

    def _drain(self, reader: int) -> bytes:
        with open(reader, "rb") as file:
            return file.read()


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal(33, 77)
    yield terminal
    terminal.close()


def test_stdin_ends_and_both_outputs_are_told_apart(boxes: Boxes) -> None:
    spec = boxes.spec("sh", "-c", "cat; echo done; echo e >&2; exit 3", open_stdin=True,
                      stdin_once=True, auto_remove=True)  # fmt: skip
    record = boxes.containers.create(spec)
    pipes = Pipes(b"one\ntwo")
    _, client = boxes.containers.start_attached(record.id)
    client.pump(pipes.stdin, pipes.stdout, pipes.stderr)

    assert pipes.close() == (b"one\ntwodone\n", b"e\n")
    assert boxes.containers.wait(record.id) == 3
    assert boxes.containers.list() == []


def test_the_first_byte_is_never_lost(boxes: Boxes) -> None:
    for _ in range(3):
        record = boxes.containers.create(boxes.spec("echo", "first", auto_remove=True))
        pipes = Pipes(b"")
        _, client = boxes.containers.start_attached(record.id)
        client.pump(None, pipes.stdout, pipes.stderr)

        assert pipes.close() == (b"first\n", b"")
        boxes.containers.wait(record.id)


def test_a_terminal_has_its_size_and_follows_it(boxes: Boxes, terminal: Terminal) -> None:
    record = boxes.containers.create(boxes.spec("sh", tty=True, open_stdin=True, stdin_once=True))
    before = termios.tcgetattr(terminal.slave)
    _, client = boxes.containers.start_attached(record.id)

    def user() -> None:
        terminal.expect(b"# ")
        terminal.say(b"tty; stty size; echo $TERM\n")
        terminal.expect(b"/dev/pts/0\r\n33 77\r\nxterm\r\n")
        terminal.resize(40, 100)
        os.kill(os.getpid(), signal.SIGWINCH)
        size = b""
        while b"40 100" not in size:
            terminal.say(b"stty size; echo asked$((1))\n")
            size = terminal.expect(b"asked1\r\n")
        terminal.say(b"exit 4\n")

    thread = threading.Thread(target=user)
    thread.start()
    client.pump(terminal.slave, terminal.slave, terminal.slave)
    thread.join()

    assert boxes.containers.wait(record.id) == 4
    assert termios.tcgetattr(terminal.slave) == before


def test_the_detach_keys_leave_it_running(boxes: Boxes, terminal: Terminal) -> None:
    record = boxes.containers.create(boxes.spec("sh", tty=True, open_stdin=True))
    _, client = boxes.containers.start_attached(record.id)
    thread = threading.Thread(
        target=client.pump, args=(terminal.slave, terminal.slave, terminal.slave)
    )
    thread.start()
    terminal.expect(b"# ")
    terminal.say(b"\x10\x11")
    thread.join(timeout=20)

    assert client.detached
    assert boxes.containers.get(record.id).state is ContainerState.RUNNING
    again = boxes.containers.attach(record.id)
    thread = threading.Thread(
        target=again.pump, args=(terminal.slave, terminal.slave, terminal.slave)
    )
    thread.start()
    terminal.say(b"echo back; exit 5\n")
    terminal.expect(b"back\r\n")
    thread.join(timeout=20)
    assert boxes.containers.wait(record.id) == 5


def test_descriptors_beyond_a_thousand_do(boxes: Boxes) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, before[1]), before[1]))
    held = [os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) for _ in range(1100)]
    try:
        spec = boxes.spec("cat", open_stdin=True, stdin_once=True, auto_remove=True)
        record = boxes.containers.create(spec)
        pipes = Pipes(b"through")
        _, client = boxes.containers.start_attached(record.id)
        client.pump(pipes.stdin, pipes.stdout, pipes.stderr)
        said = pipes.close()
        boxes.containers.wait(record.id)
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

    assert said == (b"through", b"")


def test_exec_has_a_terminal_of_its_own(boxes: Boxes, terminal: Terminal) -> None:
    record = boxes.start("sleep", "60")
    spec = ExecSpec(("sh", "-c", "tty; stty size; exit 6"), tty=True)
    streams = Streams(terminal.slave, terminal.slave, terminal.slave)
    done = boxes.containers.exec(record.id, spec, streams)

    terminal.expect(b"/dev/pts/")
    terminal.expect(b"33 77")
    assert done.exit_code == 6


def test_attaching_to_what_does_not_run_is_refused(boxes: Boxes) -> None:
    record = boxes.containers.create(boxes.spec("true"))
    with pytest.raises(FailedPrecondition, match="You cannot attach to a stopped container"):
        boxes.containers.attach(record.id)


def test_attaching_in_the_moment_of_its_end_says_so(boxes: Boxes) -> None:
    boxes.context._exit_command = ["/bin/false"]
    record = boxes.start("true")
    until(lambda: not boxes.processes(), "conmon to end")

    with pytest.raises(Unavailable):
        boxes.containers.attach(record.id)
    boxes.open()
