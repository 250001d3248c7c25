"""Errors of a pool's commands: Stowage's classes with the number that dm-thin answers."""

from __future__ import annotations

import errno
from typing import TypeVar

from stowage import AlreadyExists, DataLoss, FailedPrecondition, NotFound, StowageError

from .blocks import Damaged

E = TypeVar("E", bound=StowageError)


def refusal(kind: type[E], number: int, brief: str, resolution: str) -> E:
    """Return an error of *kind* with the kernel's *number*."""
    error = kind(brief, resolution=resolution)
    error.errno = number
    return error


def no_device(device_id: int) -> NotFound:
    error = NotFound("thin device", str(device_id))
    error.errno = errno.ENODATA
    return error


def taken(device_id: int) -> AlreadyExists:
    error = AlreadyExists("thin device", str(device_id))
    error.errno = errno.EEXIST
    return error


def damaged(cause: Damaged) -> DataLoss:
    error = DataLoss(
        "The pool's metadata is damaged",
        details=str(cause),
        resolution="repair it into another file (repair in stowage_drivers.storage.devicemapper)",
    )
    error.errno = errno.EIO
    return error


def not_writable(word: str, needs_check: bool) -> FailedPrecondition:
    """Say that a pool whose mode is called *word* takes no commands (moby#26015)."""
    details = f"its mode is {word}" + (", and it needs a check" if needs_check else "")
    if needs_check:
        resolution = "check it, and repair it, before it is used again"
    elif word == "Fail":
        resolution = "end what uses it, and open it anew"
    else:
        resolution = "make its metadata larger, or open it for writing"
    error = FailedPrecondition(
        "Nothing can be made or deleted in the pool", details=details, resolution=resolution
    )
    error.errno = errno.EOPNOTSUPP
    return error
