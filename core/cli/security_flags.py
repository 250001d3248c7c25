"""What a container may do, as ``run`` and ``create`` are told it."""

from __future__ import annotations

from collections.abc import Sequence

from ..containers.devices import check_rule, parse_device
from ..containers.security import Security
from ..containers.security_options import parse_sysctl, with_options
from .flags import Flag, Parsed, many, switch
from .mount_flags import in_flag

FLAGS: Sequence[Flag] = (
    many("cap-add", "Add Linux capabilities"),
    many("cap-drop", "Drop Linux capabilities"),
    many("device", "Add a host device to the container"),
    many(
        "device-cgroup-rule",
        "Add a rule to the cgroup allowed devices list",
        parse=in_flag(check_rule),
    ),
    many("group-add", "Add additional groups to join"),
    switch("init", "Run an init inside the container that forwards signals and reaps processes"),
    switch("privileged", "Give extended privileges to this container"),
    switch("read-only", "Mount the container's root filesystem as read only"),
    many("security-opt", "Security Options"),
    many("sysctl", "Sysctl options", value="map", parse=in_flag(parse_sysctl)),
)


def requested_security(parsed: Parsed) -> Security:
    """Return what the flags ask for.

    Raises:
        InvalidArgument: in Docker's words.
    """
    asked = Security(
        cap_add=parsed.texts("cap-add"),
        cap_drop=parsed.texts("cap-drop"),
        privileged=parsed.on("privileged"),
        read_only_root=parsed.on("read-only"),
        devices=tuple(one for text in parsed.texts("device") for one in parse_device(text)),
        device_cgroup_rules=parsed.texts("device-cgroup-rule"),
        group_add=parsed.texts("group-add"),
        sysctls=dict(parsed.typed("sysctl", tuple)),
        init=parsed.on("init"),
    )
    return with_options(asked, parsed.texts("security-opt"))
