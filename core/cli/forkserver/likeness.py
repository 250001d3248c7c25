"""What a process inherits and cannot be handed over: who differs in it is not served."""

from __future__ import annotations

import os
import resource
import sys

_NAMESPACES = ("mnt", "net", "pid_for_children", "ipc", "uts", "user", "cgroup", "time")
_STATUS = (
    b"Uid", b"Gid", b"Groups", b"NoNewPrivs", b"Seccomp", b"CapInh", b"CapPrm", b"CapEff",
    b"CapBnd", b"CapAmb", b"Cpus_allowed",
)  # fmt: skip
_LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]


def likeness() -> bytes:
    """Say in bytes without NUL what this process is like: the code and the interpreter that it
    runs, its namespaces and root directory, its credentials, its limits (proc(5))."""
    root = os.stat("/")
    code = (sys.version, sys.prefix, __file__, sys.getfilesystemencoding(), sys.stdout.encoding)
    namespaces = [os.readlink(f"/proc/self/ns/{name}") for name in _NAMESPACES]
    limits = [resource.getrlimit(limit) for limit in _LIMITS]
    with open("/proc/self/status", "rb") as status:
        lines = [line for line in status if line.partition(b":")[0] in _STATUS]
    words = repr((code, namespaces, root.st_dev, root.st_ino, limits, lines))
    return words.encode(errors="replace").replace(b"\0", b"")
