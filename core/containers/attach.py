"""A client of conmon's attach socket: a terminal or pipes on one side, the container on the other.

The socket is ``attach`` in the bundle, SOCK_SEQPACKET; each packet from conmon begins with a byte
that says the stream (2 stdout, 3 stderr), what we send is the container's stdin, and a half-close
ends it. Window sizes go to the fifo ``ctl`` as ``1 ROWS COLUMNS`` (conmon's src/conn_sock.c and
src/ctrl.c).

conmon writes to those that it has accepted. It is one thread that accepts and enrols in one step
(``attach_cb``), so what the container writes after the accept reaches us: that is what
:func:`_connect` waits for. It closes the socket only when its exit command has ended; but it writes
the exit code once it has handed on all output, and that is an end as well.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

from ..effects import effect
from ..errors import Unavailable
from ..linux.process import ProcessIdentity, open_process
from .bundle import ContainerFiles
from .detach_keys import parse_detach_keys
from .pump import STDERR, STDOUT, Ending, drain, pump, terminal_of, writer

_STDERR_MARK = 3
_PACKET_BYTES = 8193
_ACCEPT_SECONDS = 10.0
_ENDING_SECONDS = 0.002


class AttachedClient:
    """One connection to a container's stdio.

    Raises:
        Unavailable: if nothing listens (the container has ended).
    """

    def __init__(
        self,
        files: ContainerFiles,
        monitor: ProcessIdentity | None,
        process: ProcessIdentity | None,
        *,
        tty: bool,
    ) -> None:
        self._files = files
        self._tty = tty
        self._socket = _connect(files.bundle, monitor)
        self._process = None if process is None else open_process(process)
        self._ending = process is not None and self._process is None
        self._open = True
        self.detached = False

    def close(self) -> None:
        """Drop the connection; the container runs on. Idempotent."""
        self._socket.close()
        self._forget_process()

    def _forget_process(self) -> None:
        descriptor, self._process = self._process, None
        if descriptor is not None:
            os.close(descriptor)

    def pump(
        self,
        stdin: int | None,
        stdout: int | None,
        stderr: int | None,
        *,
        keys: bytes | None = None,
    ) -> None:
        """Move bytes both ways until the container closes its side or the user detaches.

        None means nothing to read from, or nowhere to write to. With a terminal on *stdin* and
        a tty in the container, the terminal is raw meanwhile, its size is followed, and *keys*
        detach (default: Docker's).
        """
        with closing(self):
            ending = pump(
                self, stdin, writer(stdout), writer(stderr),
                terminal=terminal_of(stdin, stdout, stderr) if self._tty else None,
                keys=parse_detach_keys("") if keys is None else keys,
            )  # fmt: skip
            if ending is Ending.ENDED and self._open:  # only its input was wanted
                # conmon (2.1) forgets to close the input if it cannot write to us any more
                drain(self._socket.fileno())
        self.detached = ending is Ending.DETACHED

    # --- the pump's peer -----------------------------------------------------------------------

    def sources(self) -> Sequence[int]:
        if not self._open:
            return ()
        return (self._socket.fileno(), *(() if self._process is None else (self._process,)))

    def receive(self, source: int) -> Iterable[tuple[int, bytes]]:
        if source == self._process:
            self._forget_process()
            self._ending = True
            return
        try:
            packet = self._socket.recv(_PACKET_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except ConnectionResetError:
            packet = b""
        if packet:
            yield STDERR if packet[0] == _STDERR_MARK else STDOUT, packet[1:]
        else:
            self._open = False

    def pause_seconds(self) -> float | None:
        return _ENDING_SECONDS if self._ending else None

    def later(self) -> Iterable[tuple[int, bytes]]:
        """Once conmon has written the exit code, all that it had is here: take it, and end."""
        if not self._ending or self._files.exit_code() is None:
            return
        while self._open:
            chunks = list(self.receive(self._socket.fileno()))
            if not chunks:
                self._open = False
            yield from chunks

    def sink(self) -> int | None:
        return self._socket.fileno()

    def send(self, chunk: bytes) -> int:
        return self._socket.send(chunk, socket.MSG_DONTWAIT)

    def end_input(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:  # it has ended meanwhile
            pass

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of the container's terminal."""
        try:
            control = os.open(
                self._files.bundle / "ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC
            )
        except OSError:  # the container has ended
            return
        try:
            with effect("container.resize", rows=rows, columns=columns):
                os.write(control, f"1 {rows} {columns}\n".encode())
        except OSError:
            pass
        finally:
            os.close(control)


def _connect(bundle: Path, monitor: ProcessIdentity | None) -> socket.socket:
    """Connect, and wait until conmon has accepted: else the first bytes could be lost.

    The socket is reached through a descriptor of its directory, for a path may be longer than
    the 107 bytes that fit into an address.
    """
    directory = os.open(bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        with effect("container.attach", path=bundle):
            client.connect(f"/proc/self/fd/{directory}/attach")
        _wait_accepted(client, monitor)
    except OSError as error:
        client.close()
        raise Unavailable("the container's stdio cannot be attached to", details=str(error)) from (
            error
        )
    except BaseException:
        client.close()
        raise
    finally:
        os.close(directory)
    return client


def _wait_accepted(client: socket.socket, monitor: ProcessIdentity | None) -> None:
    from ..linux.sockdiag import accepted

    deadline = time.monotonic() + _ACCEPT_SECONDS
    while not accepted(client):
        if monitor is not None and not monitor.alive:
            raise ConnectionResetError("its monitor has ended")
        if time.monotonic() > deadline:
            raise TimeoutError(f"its monitor did not answer within {_ACCEPT_SECONDS:g} seconds")
        time.sleep(0.0005)
