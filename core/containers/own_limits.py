"""What this process may not do itself, and so no container of it: known before anything is made.

Without CAP_SYS_RESOURCE a hard limit cannot be raised (setrlimit(2)) and a score for the
out-of-memory killer cannot be lowered (proc(5)).
"""

from __future__ import annotations

import resource
from pathlib import Path

from ..config_types import Ulimit
from ..errors import PermissionDenied
from ..linux.capabilities import effective
from .resources import Resources

_CAPABILITY = "CAP_SYS_RESOURCE"
#: Those that Python's module has no name for (include/uapi/asm-generic/resource.h).
_NUMBERS = {"locks": 10, "rttime": 15}


def check_own_limits(resources: Resources) -> None:
    """Refuse what the kernel would refuse us.

    Raises:
        PermissionDenied: naming the limit and what is missing.
    """
    if _CAPABILITY in effective():
        return
    for name, limit in resources.ulimits.items():
        _check_ulimit(name, limit)
    _check_score(resources.oom_score_adj)


def _check_ulimit(name: str, limit: Ulimit) -> None:
    number = _NUMBERS.get(name) or getattr(resource, f"RLIMIT_{name.upper()}")
    _, ours = resource.getrlimit(number)
    if ours == resource.RLIM_INFINITY or 0 <= limit.hard <= ours:
        return
    asked = "unlimited" if limit.hard == -1 else str(limit.hard)
    raise PermissionDenied(
        f"--ulimit {name}: the hard limit cannot be {asked}",
        details=f"ours is {ours}, and raising it needs {_CAPABILITY}, which we lack",
        resolution=f"give a limit of at most {ours}, or start with {_CAPABILITY}",
    )


def _check_score(asked: int) -> None:
    ours = int(Path("/proc/self/oom_score_adj").read_text())
    if asked < min(ours, 0):
        raise PermissionDenied(
            f"--oom-score-adj {asked} cannot be set",
            details=f"ours is {ours}, and lowering it needs {_CAPABILITY}, which we lack",
            resolution=f"give a score of 0 to 1000, or start with {_CAPABILITY}",
        )
