"""Overlay mounts by nothing but the system calls: the floor that the driver is held against."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from stowage.linux.syscalls import FSCONFIG, FSMOUNT, FSOPEN, syscall

_CLOEXEC, _SET_STRING, _SET_FD, _CREATE = 1, 1, 5, 6


def mount_overlay(lowers: Sequence[Path], upper: Path, work: Path) -> int:
    """Return the descriptor of a detached overlay, layers by descriptor (Linux 6.13)."""
    context = syscall(FSOPEN, "fsopen", b"overlay", _CLOEXEC)
    for lower in lowers:
        _set_directory(context, b"lowerdir+", lower)
    _set_directory(context, b"upperdir", upper)
    _set_directory(context, b"workdir", work)
    syscall(FSCONFIG, "fsconfig", context, _SET_STRING, b"index", b"on", 0)
    syscall(FSCONFIG, "fsconfig", context, _CREATE, None, None, 0)
    descriptor = syscall(FSMOUNT, "fsmount", context, _CLOEXEC, 0)
    os.close(context)
    return descriptor


def _set_directory(context: int, key: bytes, path: Path) -> None:
    directory = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    syscall(FSCONFIG, "fsconfig", context, _SET_FD, key, None, directory)
    os.close(directory)
