"""``config.json``: a container in the words of the OCI runtime specification, as Docker says it.

Where nothing was asked for, everything is Docker's default.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from . import init_process
from .accounts import Account
from .devices import device_nodes, device_rules, host_devices
from .model import ContainerSpec, join_env
from .mount_table import mount_entries
from .namespaces import namespace_entries
from .resource_config import resource_config, rlimits
from .resources import Resources
from .seccomp import default_profile
from .seccomp_profile import convert
from .security import Security, capabilities_of
from .security_options import apparmor_is_enabled
from .volumes import Bind

OCI_VERSION = "1.0.2"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Bundle(Struct, frozen=True):
    """What goes into a ``config.json`` besides what was asked for.

    *rootfs* is the path of the root inside the mount namespace that the runtime is started in.
    *network_namespace* is a path, or None for the runtime's own (the host's); *shared_namespaces*
    are the paths of other containers' by kind. *name_files* maps
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
    shared_namespaces: Mapping[str, str] = field(default_factory=dict)
    sysctls: Mapping[str, str] = field(default_factory=dict)
    name_files: Mapping[str, str] = field(default_factory=dict)
    binds: Sequence[Bind] = ()


def build_config(bundle: Bundle) -> dict[str, Any]:
    """Return the ``config.json`` of a container."""
    spec = bundle.spec
    arguments = (init_process.PLACE, "--", *spec.arguments) if spec.has_init else spec.arguments
    return {
        "ociVersion": OCI_VERSION,
        "process": process_config(
            arguments, bundle.env, bundle.working_dir, bundle.account,
            tty=spec.tty, resources=spec.resources, security=spec.security,
        ),
        "root": {"path": bundle.rootfs, "readonly": spec.security.read_only_root},
        **({} if spec.namespaces.uts == "host" else {"hostname": bundle.hostname}),
        "mounts": mount_entries(spec, bundle.binds, bundle.name_files),
        "linux": _linux(bundle),
    }  # fmt: skip


def process_config(
    arguments: Sequence[str],
    env: Sequence[str],
    working_dir: str,
    account: Account,
    *,
    tty: bool,
    resources: Resources,
    security: Security,
) -> dict[str, Any]:
    """Return a ``process`` object, for ``config.json`` or for exec.

    A user other than root has the bounding set alone, as execve(2) would leave it.
    """
    capabilities = capabilities_of(security)
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
        "noNewPrivileges": security.no_new_privileges,
    }  # fmt: skip
    if resources.ulimits:
        process["rlimits"] = rlimits(resources)
    if resources.oom_score_adj:
        process["oomScoreAdj"] = resources.oom_score_adj
    if security.apparmor and apparmor_is_enabled():
        process["apparmorProfile"] = security.apparmor
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
    security = bundle.spec.security
    linux: dict[str, Any] = {
        "cgroupsPath": bundle.cgroup,
        "namespaces": namespace_entries(
            bundle.spec.namespaces, bundle.shared_namespaces, bundle.network_namespace
        ),
        "resources": {
            "devices": device_rules(
                security.devices, security.device_cgroup_rules, everything=security.privileged
            ),
            **resource_config(bundle.spec.resources),
        },
        "devices": host_devices() if security.privileged else device_nodes(security.devices),
        "maskedPaths": list(security.masked_paths),
        "readonlyPaths": list(security.readonly_paths),
        "sysctl": {**bundle.sysctls, **security.sysctls},
        "seccomp": _seccomp(security),
    }
    propagation = _root_propagation(bundle.binds)
    if propagation:
        linux["rootfsPropagation"] = propagation
    return {key: value for key, value in linux.items() if value}


def _seccomp(security: Security) -> dict[str, Any] | None:
    if security.privileged or security.seccomp == "unconfined":
        return None
    capabilities = capabilities_of(security)
    if security.seccomp:
        return convert(security.seccomp, capabilities)
    return default_profile(capabilities)


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
