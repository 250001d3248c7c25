"""Standing in for a container in the foreground: its stdio, its signals, its exit code."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING

from ..containers.pump import terminal_size
from ..errors import CommandFailed, StowageError
from .attach_flags import Attachment
from .errors import FAILED

if TYPE_CHECKING:
    from ..containers.model import ContainerRecord
    from .context import Context

#: Signals that mean us and must not be passed on (Docker's list).
_OURS = {"SIGCHLD", "SIGPIPE", "SIGWINCH", "SIGURG", "SIGKILL", "SIGSTOP", "SIGCONT", "SIGTSTP",
         "SIGTTIN", "SIGTTOU", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP", "SIGABRT",
         "SIGSYS"}  # fmt: skip

_NO_MORE = 0


def follow(context: Context, record: ContainerRecord, attachment: Attachment) -> int:
    """Start a container with its stdio on ours, and return its exit code when it has ended.

    Signals go to the container, except through a terminal of its own, where keys do. After the
    detach keys it runs on and 0 is returned, and so it is once its input has been sent to it if
    nothing that it writes is to be seen.
    """
    containers = context.engine.containers
    wanted = attachment.proxy and not record.spec.tty
    size = terminal_size(0, 1) if record.spec.tty else None
    with _forwarded(lambda name: containers.kill(record.id, name), wanted=wanted) as started:
        _, client = containers.start_attached(record.id, size=size)
        started()
        sys.stdout.flush()
        context.engine.metastore.rest()
        client.pump(*attachment.descriptors, keys=attachment.keys)
        if client.detached or not attachment.shows:
            return 0
        return containers.wait(record.id)


def join(context: Context, record: ContainerRecord, attachment: Attachment) -> int:
    """Put a running container's stdio on ours, and return its exit code when it has ended.

    Signals go to the container as with :func:`follow`.

    Raises:
        CommandFailed: after the detach keys.
    """
    containers = context.engine.containers
    wanted = attachment.proxy and not record.spec.tty
    with _forwarded(lambda name: containers.kill(record.id, name), wanted=wanted) as started:
        client = containers.attach(record.id)
        started()
        size = terminal_size(0, 1) if record.spec.tty else None
        if size is not None:
            client.resize(size[0] + 1, size[1])  # it draws its screen anew when the size changes
        context.engine.metastore.rest()
        client.pump(*attachment.descriptors, keys=attachment.keys)
        if client.detached:
            raise read_escape_sequence()
        return containers.wait(record.id)


def read_escape_sequence() -> CommandFailed:
    """Return what ``attach`` and ``exec`` end with after the detach keys, as Docker's do."""
    return CommandFailed("read escape sequence", FAILED)


@contextmanager
def _forwarded(send: Callable[[str], object], *, wanted: bool) -> Iterator[Callable[[], None]]:
    """Pass every signal that we get on to the container, for the time of the ``with``.

    Gives what is to be called once it runs: what came before is sent then.

    A handler only notes the signal: it may have interrupted a transaction of this thread, so
    another thread does the sending.
    """
    if not wanted:
        yield lambda: None
        return
    noted: SimpleQueue[int] = SimpleQueue()
    sender = Thread(target=_send_noted, args=(noted, send), name="signals", daemon=True)
    numbers = [one for one in signal.Signals if one.name not in _OURS]
    before = {
        number: signal.signal(number, lambda noticed, frame: noted.put(noticed))
        for number in numbers
    }
    try:
        yield sender.start
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        noted.put(_NO_MORE)
        if sender.ident is not None:
            sender.join()


def _send_noted(noted: SimpleQueue[int], send: Callable[[str], object]) -> None:
    while (number := noted.get()) != _NO_MORE:
        try:
            send(signal.Signals(number).name)
        except StowageError:
            pass  # it has just ended
