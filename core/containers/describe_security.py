"""What a container may do, as ``inspect`` shows it in ``HostConfig``."""

from __future__ import annotations

from .security import Security


def host_security(security: Security) -> dict[str, object]:
    """Return the keys of ``HostConfig`` that tell *security*."""
    options = list(security.options)
    if security.privileged and not security.labels:
        options.append("label=disable")
    keys: dict[str, object] = {
        "CapAdd": list(security.cap_add) or None,
        "CapDrop": list(security.cap_drop) or None,
        "Privileged": security.privileged,
        "SecurityOpt": options or None,
        "ReadonlyRootfs": security.read_only_root,
        "Devices": [
            {
                "PathOnHost": device.source,
                "PathInContainer": device.target,
                "CgroupPermissions": device.access,
            }
            for device in security.devices
        ],
        "DeviceCgroupRules": list(security.device_cgroup_rules) or None,
        "GroupAdd": list(security.group_add) or None,
        "MaskedPaths": None if security.privileged else list(security.masked_paths),
        "ReadonlyPaths": None if security.privileged else list(security.readonly_paths),
    }
    if security.sysctls:
        keys["Sysctls"] = dict(security.sysctls)
    if security.init:
        keys["Init"] = True
    return keys
