"""Which namespaces ``run`` and ``create`` are told to share."""

from __future__ import annotations

from collections.abc import Sequence

from ..containers.namespaces import Namespaces
from .flags import Flag, Parsed

FLAGS: Sequence[Flag] = (
    Flag("cgroupns", "Cgroup namespace to use (host|private)"),
    Flag("ipc", "IPC mode to use"),
    Flag("pid", "PID namespace to use"),
    Flag("userns", "User namespace to use"),
    Flag("uts", "UTS namespace to use"),
)


def requested_namespaces(parsed: Parsed) -> Namespaces:
    """Return what the flags ask for."""
    return Namespaces(**{flag.name: parsed.text(flag.name) or "" for flag in FLAGS})
