"""What tells a process from a later one of the same number; cheap to import."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=1)
def boot_id() -> str:
    """Return the kernel's id of this boot."""
    return _read("/proc/sys/kernel/random/boot_id").decode().strip()


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None if it is gone or a zombie.

    Field 22 of ``/proc/<pid>/stat`` (proc(5)).
    """
    try:
        raw = _read(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = raw[raw.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()
