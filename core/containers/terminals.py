"""The user's terminal, and the container's: raw while keys go to it, and always of one size."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ..effects import effect

#: What ends a program that has a terminal: it must not stay raw.
_ENDING = (signal.SIGTERM, signal.SIGHUP)


def is_terminal(descriptor: int | None) -> bool:
    """Tell whether *descriptor* is open and a terminal."""
    try:
        return descriptor is not None and os.isatty(descriptor)
    except OSError:
        return False


def window_size(terminal: int) -> tuple[int, int] | None:
    """Return rows and columns of a terminal; None if it has no size, or is none."""
    try:
        packed = fcntl.ioctl(terminal, termios.TIOCGWINSZ, bytes(8))
    except OSError:
        return None
    rows, columns = struct.unpack_from("HH", packed)
    return (rows, columns) if rows and columns else None


def set_window_size(terminal: int, rows: int, columns: int) -> None:
    """Set the size of a terminal; who reads from it gets SIGWINCH if that changes it."""
    with effect("terminal.resize", rows=rows, columns=columns):
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def set_size_of_process(pid: int, rows: int, columns: int) -> None:
    """Set the size of the terminal that is another process's stdin; nothing if it has none."""
    try:
        terminal = os.open(f"/proc/{pid}/fd/0", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:  # it has ended
        return
    try:
        if os.isatty(terminal):
            set_window_size(terminal, rows, columns)
    finally:
        os.close(terminal)


@contextmanager
def raw_terminal(terminal: int | None) -> Iterator[bool]:
    """Make a terminal raw for the time of the ``with``; gives False where there is none.

    SIGTERM and SIGHUP end the ``with`` by SystemExit meanwhile, in the main thread.
    """
    if terminal is None or not is_terminal(terminal):
        yield False
        return
    before = termios.tcgetattr(terminal)
    with _ending_by_exception():
        with effect("terminal.raw"):
            tty.setraw(terminal, termios.TCSANOW)  # what is typed ahead stays
        try:
            yield True
        finally:
            try:
                with effect("terminal.restore"):
                    termios.tcsetattr(terminal, termios.TCSADRAIN, before)
            except termios.error:  # it hung up
                pass


@contextmanager
def _ending_by_exception() -> Iterator[None]:
    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    replaced = []
    try:
        for number in _ENDING:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, end)
                replaced.append(number)
    except ValueError:  # only the main thread may set handlers
        pass
    try:
        yield
    finally:
        for number in replaced:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def window_changes() -> Iterator[int]:
    """Give a descriptor that becomes readable on SIGWINCH; outside of the main thread never."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def changed(number: int, frame: FrameType | None) -> None:
        try:
            os.write(writer, b"w")
        except BlockingIOError:
            pass

    try:
        previous = signal.signal(signal.SIGWINCH, changed)
    except ValueError:  # only the main thread may set handlers
        previous = None
    try:
        yield reader
    finally:
        if previous is not None:
            signal.signal(signal.SIGWINCH, previous)
        os.close(reader)
        os.close(writer)
