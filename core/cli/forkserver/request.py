"""A command line on its way to the fork server."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from .likeness import likeness

_MOST_DESCRIPTORS = 200  # SCM_MAX_FD is 253


class Unfit(Exception):
    """This command line cannot be handed over."""


def pack(arguments: Sequence[str], descriptors: Sequence[int]) -> bytes:
    """Return the request to run *arguments*, with this process's environment, umask and niceness;
    *descriptors* are the numbers of those that go with it, after the working directory's."""
    umask = os.umask(0o077)
    os.umask(umask)
    fields = [
        likeness(),
        b"%d" % umask,
        b"%d" % os.getpriority(os.PRIO_PROCESS, 0),
        sys.stdout.errors.encode() if sys.stdout.errors else b"strict",
        b",".join(b"%d" % number for number in descriptors),
        b"%d" % len(arguments),
        *(os.fsencode(word) for word in (sys.argv[0], *arguments)),
        *(name + b"=" + value for name, value in os.environb.items()),
    ]
    body = b"\0".join(fields)
    return len(body).to_bytes(4, "little") + body


def inherited() -> list[int]:
    """Return the descriptors that a program which this process starts would have.

    Raises:
        Unfit: if they are too many, or a standard one is closed.
    """
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.get_inheritable(int(name)):
                found.append(int(name))
        except OSError:  # the one that listed them
            continue
    found.sort()
    if found[:3] != [0, 1, 2] or len(found) > _MOST_DESCRIPTORS:
        raise Unfit
    return found
