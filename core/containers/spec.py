"""``config.json``: a container in the words of the OCI runtime specification, as Docker says it.

Capabilities, masked and read-only paths, devices and mounts are Docker's defaults (a process
has CapEff 00000000a80425fb). On cgroup v1 the container sees the host's
cgroup namespace, on v2 one of its own, as Docker does it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .accounts import Account
from .model import ContainerSpec, join_env
from .mount_table import mount_entries
from .resource_config import resource_config, rlimits
from .resources import Resources
from .seccomp import default_profile
from .volumes import Bind

OCI_VERSION = "1.0.2"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

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

#: (major, minor, access) of the character devices that a container may use; None is any.
_DEVICES = (
    (None, None, "m"), (1, 3, "rwm"), (1, 5, "rwm"), (1, 7, "rwm"), (1, 8, "rwm"), (1, 9, "rwm"),
    (5, 0, "rwm"), (5, 1, "rwm"), (5, 2, "rwm"), (136, None, "rwm"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bundle:
    """What goes into a ``config.json`` besides what was asked for.

    *rootfs* is the path of the root inside the mount namespace that the runtime is started in.
    *network_namespace* is a path, or None for the runtime's own (the host's). *name_files* maps
    a path in the container to the host file that is bound there.
    """

    spec: ContainerSpec
    account: Account
    env: Sequence[str]
    working_dir: str
    hostname: str
    rootfs: str
    cgroup: str
    network_namespace: str | None
    cgroup_namespace: bool
    sysctls: Mapping[str, str] = field(default_factory=dict)
    name_files: Mapping[str, str] = field(default_factory=dict)
    binds: Sequence[Bind] = ()


def build_config(bundle: Bundle) -> dict[str, Any]:
    """Return the ``config.json`` of a container."""
    return {
        "ociVersion": OCI_VERSION,
        "process": process_config(
            bundle.spec.arguments, bundle.env, bundle.working_dir, bundle.account,
            tty=bundle.spec.tty, resources=bundle.spec.resources,
        ),
        "root": {"path": bundle.rootfs, "readonly": False},
        "hostname": bundle.hostname,
        "mounts": mount_entries(bundle.spec, bundle.binds, bundle.name_files),
        "linux": _linux(bundle),
    }  # fmt: skip


def process_config(
    arguments: Sequence[str],
    env: Sequence[str],
    working_dir: str,
    account: Account,
    *,
    tty: bool,
    resources: Resources | None = None,
    capabilities: Sequence[str] = CAPABILITIES,
) -> dict[str, Any]:
    """Return a ``process`` object, for ``config.json`` or for exec.

    A user other than root has the bounding set alone, as execve(2) would leave it.
    """
    held = list(capabilities) if account.uid == 0 else []
    process: dict[str, Any] = {
        "terminal": tty,
        "user": {
            "uid": account.uid, "gid": account.gid,
            "additionalGids": sorted({account.gid, *account.groups}),
        },
        "args": list(arguments),
        "env": list(env),
        "cwd": working_dir or "/",
        "capabilities": {
            "bounding": list(capabilities), "effective": held, "permitted": held,
        },
        "noNewPrivileges": False,
    }  # fmt: skip
    if resources is not None and resources.ulimits:
        process["rlimits"] = rlimits(resources)
    if resources is not None and resources.oom_score_adj:
        process["oomScoreAdj"] = resources.oom_score_adj
    return process


def process_env(
    env: Sequence[str], account: Account, *, hostname: str, tty: bool
) -> tuple[str, ...]:
    """Return the whole environment: Docker's own variables, then *env* over them, then HOME."""
    own = [PATH, f"HOSTNAME={hostname}"]
    if tty:
        own.append("TERM=xterm")
    joined = join_env(own, env)
    if not any(text.startswith("HOME=") for text in joined):
        joined = (*joined, f"HOME={account.home}")
    return joined


def _linux(bundle: Bundle) -> dict[str, Any]:
    network: dict[str, str] = {"type": "network"}
    if bundle.network_namespace is not None:
        network["path"] = bundle.network_namespace
    namespaces: list[dict[str, str]] = [{"type": kind} for kind in ("mount", "uts", "pid", "ipc")]
    if bundle.network_namespace is not None:
        namespaces.append(network)
    if bundle.cgroup_namespace:
        namespaces.append({"type": "cgroup"})
    linux: dict[str, Any] = {
        "cgroupsPath": bundle.cgroup,
        "namespaces": namespaces,
        "resources": {"devices": _device_rules(), **resource_config(bundle.spec.resources)},
        "maskedPaths": list(MASKED_PATHS),
        "readonlyPaths": list(READONLY_PATHS),
        "sysctl": dict(bundle.sysctls),
        "seccomp": default_profile(CAPABILITIES),
    }
    propagation = _root_propagation(bundle.binds)
    if propagation:
        linux["rootfsPropagation"] = propagation
    return {key: value for key, value in linux.items() if value}


def _device_rules() -> list[dict[str, Any]]:
    rules: list[dict[str, Any]] = [{"allow": False, "access": "rwm"}]
    rules.append({"allow": True, "type": "b", "access": "m"})
    for major, minor, access in _DEVICES:
        rule = {"allow": True, "type": "c", "major": major, "minor": minor, "access": access}
        rules.append({key: value for key, value in rule.items() if value is not None})
    return rules


def _root_propagation(binds: Sequence[Bind]) -> str:
    """A shared bind needs a root that lets mounts out, a slave one a root that lets them in."""
    kinds = {bind.propagation for bind in binds}
    if kinds & {"shared", "rshared"}:
        return "shared"
    return "rslave" if kinds & {"slave", "rslave"} else ""


def sysctls(*, private_network: bool, domainname: str) -> dict[str, str]:
    """Return Docker's sysctls: low ports and ping for everyone in a network of its own."""
    wanted: dict[str, str] = {}
    if private_network:
        for name, value in (
            ("net.ipv4.ip_unprivileged_port_start", "0"),
            ("net.ipv4.ping_group_range", "0 2147483647"),
        ):
            if os.path.exists("/proc/sys/" + name.replace(".", "/")):
                wanted[name] = value
    if domainname:
        wanted["kernel.domainname"] = domainname
    return wanted
