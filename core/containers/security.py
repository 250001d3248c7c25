"""What a container's processes may do: capabilities, system calls, devices, writable paths.

:class:`Security` holds it as asked for; :func:`capabilities_of` gives what is left of it on this
machine, where nobody can hand out more than he has.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from ..errors import InvalidArgument, PermissionDenied
from ..linux.capabilities import NAMES, bounding
from ..records import as_dict, field_names
from .devices import Device

logger = logging.getLogger("stowage.containers")

#: Docker's default set: CapEff 00000000a80425fb.
CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW",
    "CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
)  # fmt: skip
MASKED_PATHS = (
    "/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
)  # fmt: skip
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


class Security(Struct, frozen=True):
    """Wishes of one container; empty is Docker's default.

    *seccomp* is ``unconfined`` or a profile in Docker's form, as JSON text. *apparmor* names a
    loaded profile. *labels* are SELinux's, as they were written.
    """

    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    privileged: bool = False
    no_new_privileges: bool = False
    seccomp: str = ""
    apparmor: str = ""
    labels: tuple[str, ...] = ()
    unconfined_paths: bool = False
    """``systempaths=unconfined``: nothing of /proc and /sys is masked or read-only."""
    options: tuple[str, ...] = ()
    """``--security-opt`` as ``inspect`` shows it."""
    read_only_root: bool = False
    devices: tuple[Device, ...] = ()
    device_cgroup_rules: tuple[str, ...] = ()
    group_add: tuple[str, ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    init: bool = False

    @property
    def masked_paths(self) -> Sequence[str]:
        return () if self.privileged or self.unconfined_paths else MASKED_PATHS

    @property
    def readonly_paths(self) -> Sequence[str]:
        return () if self.privileged or self.unconfined_paths else READONLY_PATHS

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return as_dict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Security:
        """Read what :meth:`to_json` gave; unknown keys are ignored."""
        known = {name: plain[name] for name in field_names(cls) if name in plain}
        for name, value in known.items():
            if isinstance(value, list):
                known[name] = tuple(value)
        known["devices"] = tuple(Device(**one) for one in known.get("devices", ()))
        return cls(**known)


# --- capabilities -----------------------------------------------------------------------------


def capability_names(names: Iterable[str]) -> list[str]:
    """Return capabilities in full and in capitals; ``ALL`` stays.

    Raises:
        InvalidArgument: 'unknown capability: "CAP_X"'.
    """
    full = []
    for name in names:
        name = name.upper()
        if name != "ALL":
            name = name if name.startswith("CAP_") else f"CAP_{name}"
            if name not in NAMES:
                raise InvalidArgument(f'unknown capability: "{name}"')
        full.append(name)
    return full


def capabilities_of(security: Security) -> tuple[str, ...]:
    """Return the capabilities that a container gets: those wished for that we can hand out.

    Raises:
        InvalidArgument: for a capability that does not exist.
    """
    ours = bounding()
    return tuple(name for name in _wished(security) if name in ours)


def check_capabilities(security: Security) -> None:
    """Refuse a capability by name that we cannot hand out, and say what all of them lack.

    Raises:
        InvalidArgument: in Docker's words, for one that does not exist.
        PermissionDenied: for one that this process has not itself.
    """
    for flag, names in (("CapAdd", security.cap_add), ("CapDrop", security.cap_drop)):
        try:
            capability_names(names)
        except InvalidArgument as error:
            raise InvalidArgument(f"invalid {flag}: {error.brief}") from None
    ours = bounding()
    lacking = [name for name in _wished(security) if name not in ours and _known_here(name)]
    named = set(capability_names(security.cap_add))
    for name in lacking:
        if name in named and not security.privileged:
            raise PermissionDenied(
                f"--cap-add {name.removeprefix('CAP_')}: this process has not {name} itself",
                details="its bounding set lacks it (CapBnd in /proc/self/status)",
                resolution=f"start with {name}, or do without it",
            )
    if lacking and (security.privileged or "ALL" in named):
        logger.warning(
            "%s: the container gets all capabilities but %s, which this process has not itself",
            "--privileged" if security.privileged else "--cap-add ALL",
            ", ".join(lacking),
        )


def _known_here(name: str) -> bool:
    """An old kernel knows fewer; it does not miss the others."""
    with open("/proc/sys/kernel/cap_last_cap") as file:
        return NAMES.index(name) <= int(file.read())


def _wished(security: Security) -> list[str]:
    add, drop = capability_names(security.cap_add), capability_names(security.cap_drop)
    if security.privileged:
        return list(NAMES)
    if "ALL" in add:
        return [name for name in NAMES if name not in drop]
    if "ALL" in drop:
        return list(dict.fromkeys(add))
    kept = [name for name in CAPABILITIES if name not in drop]
    return list(dict.fromkeys([*kept, *add]))
