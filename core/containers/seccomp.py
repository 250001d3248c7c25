"""The default seccomp profile: an allow list, in the runtime specification's form.

``seccomp.json`` holds it for all machines and capabilities: the system calls that Docker's
default profile allows; everything else fails with EPERM, and clone3 with ENOSYS (its flags lie
in memory, where no filter can look, and libc then falls back to clone).
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable
from functools import lru_cache
from importlib.resources import files
from typing import Any


def default_profile(capabilities: Iterable[str]) -> dict[str, Any] | None:
    """Return the ``linux.seccomp`` object for this machine and a container's *capabilities*.

    None on a machine whose architecture the profile does not know.
    """
    return _profile(platform.machine(), frozenset(capabilities))


@lru_cache(maxsize=8)
def _profile(machine: str, capabilities: frozenset[str]) -> dict[str, Any] | None:
    everything = json.loads(files(__package__).joinpath("seccomp.json").read_text())
    architectures = everything["architectures"].get(machine)
    if architectures is None:
        return None
    rules = [
        {key: rule[key] for key in ("names", "action", "args", "errnoRet") if key in rule}
        for rule in everything["syscalls"]
        if machine in rule.get("machines", (machine,))
        and rule.get("with") in (None, *capabilities)
        and rule.get("without") not in capabilities
    ]
    return {
        "defaultAction": everything["defaultAction"],
        "defaultErrnoRet": everything["defaultErrnoRet"],
        "architectures": architectures,
        "syscalls": rules,
    }
