"""A pseudo-terminal with a user at it, for tests of interactive programs."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
from collections.abc import Sequence

_PATIENCE_SECONDS = 30


class Terminal:
    """A pseudo-terminal: *slave* is what a program gets, *say* and *expect* are the user's."""

    def __init__(self, rows: int = 24, columns: int = 80) -> None:
        self.master, self.slave = pty.openpty()
        self.seen = b""
        self.resize(rows, columns)

    def resize(self, rows: int, columns: int) -> None:
        """Change its size; programs in its foreground get SIGWINCH."""
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, size)

    def start(self, words: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a program in a session of its own whose controlling terminal this is."""
        return subprocess.Popen(
            ["setsid", "--ctty", *words],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
        )

    def say(self, text: bytes) -> None:
        """Type *text*."""
        os.write(self.master, text)

    def expect(self, text: bytes) -> bytes:
        """Wait for *text*; returns what came before it.

        Raises:
            AssertionError: if it does not come; says what did.
        """
        while text not in self.seen:
            ready, _, _ = select.select([self.master], [], [], _PATIENCE_SECONDS)
            if not ready:
                raise AssertionError(f"waited in vain for {text!r}; saw {self.seen!r}")
            self.seen += os.read(self.master, 4096)
        before, _, self.seen = self.seen.partition(text)
        return before

    @property
    def raw(self) -> bool:
        """Whether keys go to the program one by one and unseen."""
        flags = termios.tcgetattr(self.slave)[3]
        return not flags & (termios.ICANON | termios.ECHO)

    def close(self) -> None:
        """Hang up."""
        os.close(self.master)
        os.close(self.slave)
