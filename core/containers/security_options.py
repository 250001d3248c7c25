"""``--security-opt`` and ``--sysctl``, read with Docker's refusals."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from msgspec.structs import replace

from ..errors import InvalidArgument, NotSupported
from .security import Security

logger = logging.getLogger("stowage.containers")

#: Kernel sysctls that belong to an IPC namespace.
_IPC_SYSCTLS = frozenset(
    {
        "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall",
        "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced",
    }
)  # fmt: skip


def with_options(security: Security, options: Sequence[str]) -> Security:
    """Return *security* with what ``--security-opt`` asks for.

    A seccomp profile is read from its file, and kept as it is then.

    Raises:
        InvalidArgument: in Docker's words.
        NotSupported: for a label of SELinux on a host that has it.
    """
    shown: list[str] = []
    for option in options:
        if option == "systempaths=unconfined":
            security = replace(security, unconfined_paths=True)
            continue
        name, separator, value = _split(option)
        if name == "no-new-privileges":
            wanted = _boolean(value, option) if separator else True
            security = replace(security, no_new_privileges=wanted)
        elif name == "seccomp":
            if value not in ("unconfined", "builtin"):
                from .seccomp_profile import read_profile

                value = read_profile(value)
                option = f"seccomp={value}"
            security = replace(security, seccomp="" if value == "builtin" else value)
        elif name == "apparmor":
            security = replace(security, apparmor=value)
        elif name == "label":
            _check_label(value)
            security = replace(security, labels=(*security.labels, value))
        else:
            raise InvalidArgument(f'invalid --security-opt 2: "{option}"')
        shown.append(option)
    return replace(security, options=tuple(shown))


def _split(option: str) -> tuple[str, str, str]:
    if "=" in option:
        return option.partition("=")
    if ":" in option:
        return option.partition(":")  # as Docker once wrote them
    if option != "no-new-privileges":
        raise InvalidArgument(f'Invalid --security-opt: "{option}"')
    return option, "", ""


def _boolean(text: str, option: str) -> bool:
    if text.lower() in ("1", "t", "true"):
        return True
    if text.lower() in ("0", "f", "false"):
        return False
    raise InvalidArgument(f'invalid --security-opt 2: "{option}"')


def _check_label(value: str) -> None:
    if value != "disable" and os.path.isdir("/sys/fs/selinux/booleans"):
        raise NotSupported(
            f"--security-opt label={value}: containers are not labelled in this version",
            resolution="leave it out, or give label=disable",
        )


def apparmor_is_enabled() -> bool:
    """Return whether the kernel confines by AppArmor; where not, profiles mean nothing."""
    try:
        with open("/sys/module/apparmor/parameters/enabled") as file:
            return file.read().startswith("Y")
    except OSError:
        return False


# --- sysctls ----------------------------------------------------------------------------------


def parse_sysctl(text: str) -> tuple[str, str]:
    """Parse ``NAME=VALUE`` of a sysctl that belongs to a namespace.

    Raises:
        InvalidArgument: "sysctl 'x' is not allowed".
    """
    name, equals, value = text.partition("=")
    if not equals or not (name in _IPC_SYSCTLS or name.startswith(("net.", "fs.mqueue."))):
        raise InvalidArgument(f"sysctl '{text}' is not allowed")
    return name, value


def check_sysctls(security: Security, *, host_network: bool, host_ipc: bool) -> None:
    """Refuse a sysctl that would be the host's.

    Raises:
        InvalidArgument: in the words of Docker's runtime.
    """
    for name in security.sysctls:
        if name.startswith("net."):
            if host_network:
                raise InvalidArgument(f'sysctl "{name}" not allowed in host network namespace')
        elif name in _IPC_SYSCTLS or name.startswith("fs.mqueue."):
            if host_ipc:
                raise InvalidArgument(f'sysctl "{name}" is not allowed in the hosts ipc namespace')
        else:
            raise InvalidArgument(f'sysctl "{name}" is not in a separate kernel namespace')
