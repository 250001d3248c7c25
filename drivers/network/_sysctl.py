"""Kernel settings below ``/proc/sys/net``, of the calling thread's network namespace."""

from __future__ import annotations

import errno
import os

from stowage import effect
from stowage.errors import PermissionDenied

_NET = "/proc/sys/net/"


def read(name: str) -> str | None:
    """Return the value of ``"ipv4/ip_forward"``, or None where the kernel has no such setting."""
    try:
        descriptor = os.open(_NET + name, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return None
    try:
        return os.read(descriptor, 4096).decode().strip()
    finally:
        os.close(descriptor)


def write(name: str, value: str) -> None:
    """Set it, unless it is so already.

    Raises:
        PermissionDenied: if /proc/sys is read-only.
        FileNotFoundError: where the kernel has no such setting.
    """
    if read(name) != value:
        _write(name, value)


def write_optional(name: str, value: str) -> None:
    """As :func:`write`, but nothing where the kernel has no such setting (no IPv6)."""
    if read(name) not in (None, value):
        _write(name, value)


def _write(name: str, value: str) -> None:
    try:
        with effect("sysctl.write", setting=name, value=value):
            descriptor = os.open(_NET + name, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(descriptor, value.encode())
            finally:
                os.close(descriptor)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise _denied(name, value) from error


def _denied(name: str, value: str) -> PermissionDenied:
    dotted = f"net.{name.replace('/', '.')}"
    return PermissionDenied(
        f"{dotted} cannot be set to {value}",
        details="/proc/sys is read-only here, or the process lacks CAP_NET_ADMIN",
        resolution=f"sysctl -w {dotted}={value}",
    )
