"""Standard streams: writing bytes and text, and ending quietly when the reader has gone."""

from __future__ import annotations

import os
import sys

#: What a shell shows for a command that SIGPIPE killed.
BROKEN_PIPE = 141


def silence() -> int:
    """Point stdout at nothing, so that the interpreter's last flush cannot fail, and return the
    exit code for a reader that went away."""
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.dup2(null, sys.stdout.fileno())
    finally:
        os.close(null)
    return BROKEN_PIPE


def is_terminal(descriptor: int) -> bool:
    """Tell whether *descriptor* is open and a terminal."""
    try:
        return os.isatty(descriptor)
    except OSError:
        return False
