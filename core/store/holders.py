"""Who uses a mounted tree: processes with a working directory, root or open file in it."""

from __future__ import annotations

import os
from pathlib import Path

from ..linux.process import describe


def holders_of(path: Path, limit: int = 8) -> list[str]:
    """Return ``"1234 (sh): works in /x"`` for processes that use the mount at *path*.

    Those of other mount namespaces are found by the device where the mount has one of its own.
    Processes that may not be looked at are left out; at most *limit* are described.
    """
    try:
        device = os.stat(path).st_dev
        own_device = device != os.stat(path.parent).st_dev
    except OSError:
        return []
    found = []
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        use = _use(pid, os.fspath(path), device if own_device else None)
        if use is not None:
            found.append(f"{describe(pid)}: {use}")
            if len(found) == limit:
                break
    return found


def _use(pid: int, path: str, device: int | None) -> str | None:
    base = f"/proc/{pid}"
    for link, words in (("cwd", "works in"), ("root", "has its root in"), ("exe", "runs")):
        target = _inside(f"{base}/{link}", path, device)
        if target is not None:
            return f"{words} {target}"
    try:
        names = os.listdir(f"{base}/fd")
    except OSError:
        return None
    for name in names:
        target = _inside(f"{base}/fd/{name}", path, device)
        if target is not None:
            return f"has {target} open"
    return None


def _inside(link: str, path: str, device: int | None) -> str | None:
    """Return what *link* leads to if that is in the mount."""
    try:
        target = os.readlink(link)
        if target == path or target.startswith(path + "/"):
            return target
        if device is not None and target.startswith("/") and os.stat(link).st_dev == device:
            return target
    except OSError:
        pass
    return None
