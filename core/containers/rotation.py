"""Asking for the rotation of a container's log, and seeing to it that somebody does it.

``exec-root/<root-id>/rotating/<cid>`` says what is to be rotated; one small process per root
(:mod:`.rotator`) does it for all of them, and ends when nothing is left. conmon can bound a log
itself, but then it throws away what is in it.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

from ..effects import effect
from .context import Context
from .model import ContainerRecord
from .runtime import find_program, helper_environment


def begin_rotation(context: Context, record: ContainerRecord) -> None:
    """Have a running container's log rotated from now on, if it is to be."""
    log = record.spec.log
    size = log.max_size_bytes
    if not log.kept or size is None:
        return
    files = context.files(record.id)
    directory = rotating_directory(context)
    wish = {
        "log": str(files.log),
        "control": str(files.bundle / "ctl"),
        "max_size_bytes": size,
        "max_files": log.max_files,
    }
    draft = directory / f".{record.id}"
    with effect("rotation.begin", id=record.id):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft.write_text(json.dumps(wish))
        draft.rename(directory / record.id)
    ensure_rotator(context)


def end_rotation(context: Context, container_id: str) -> None:
    """A container's log is not written any more. Idempotent."""
    directory = rotating_directory(context)
    for path in (directory / f".{container_id}", directory / container_id):
        if path.exists():
            with effect("rotation.end", id=container_id):
                path.unlink(missing_ok=True)


def rotating(context: Context) -> set[str]:
    """Return the ids of the containers for which something is to be rotated."""
    try:
        return {name.removeprefix(".") for name in os.listdir(rotating_directory(context))}
    except FileNotFoundError:
        return set()


def ensure_rotator(context: Context) -> None:
    """Start the process that rotates, if there is something to do and it does not run."""
    directory = rotating_directory(context)
    try:
        wanted = any(not name.startswith(".") for name in os.listdir(directory))
    except FileNotFoundError:
        return
    if not wanted or _runs(directory):
        return
    with effect("rotation.start_rotator"):
        subprocess.run(
            [
                find_program("setsid", "util-linux"), "--fork",
                sys.executable, "-P", "-m", "stowage.containers.rotator", str(directory),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=helper_environment(),
            cwd="/",
            check=False,
        )  # fmt: skip


def rotating_directory(context: Context) -> Path:
    """Return where it stands what is to be rotated."""
    return context.running_directory / "rotating"


def _runs(directory: Path) -> bool:
    """Whether a rotator holds the directory's lock."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with effect("rotation.lock"):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
