"""The flags of ``run`` and ``create``, and the container that they ask for."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from ..containers.model import ContainerSpec
from ..containers.restarts import RestartPolicy, parse_restart_policy
from ..errors import InvalidArgument
from ..numbers import parse_whole
from .environment import environment_entry, read_environment, read_labels
from .flags import Flag, Parsed, many, switch
from .log_flags import FLAGS as LOG_FLAGS
from .log_flags import requested_log
from .mount_flags import FLAGS as MOUNT_FLAGS
from .mount_flags import requested_mounts
from .namespace_flags import FLAGS as NAMESPACE_FLAGS
from .namespace_flags import requested_namespaces
from .network_flags import FLAGS as NETWORK_FLAGS
from .network_flags import requested_networking
from .pull import PULL
from .resource_flags import FLAGS as RESOURCE_FLAGS
from .resource_flags import requested_resources
from .security_flags import FLAGS as SECURITY_FLAGS
from .security_flags import requested_security

#: RFC 1123, as Docker checks it.
_HOSTNAME = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?(\.[a-zA-Z0-9-]+)*\.?")
_HOSTNAME_LIMIT = 63
_LONGEST_SECONDS = (1 << 31) - 1


def seconds(text: str) -> int:
    """Read a time-out in seconds, -1 meaning none.

    Raises:
        ValueError: if it is no whole number of -1 or more.
    """
    value = parse_whole(text, most=_LONGEST_SECONDS)
    if value < -1:
        raise ValueError("expected seconds, or -1 to wait without end")
    return value


ENVIRONMENT = (
    many("env", "Set environment variables", "e", parse=environment_entry),
    many("env-file", "Read in a file of environment variables"),
)

CREATE_FLAGS: Sequence[Flag] = (
    *ENVIRONMENT,
    Flag("name", "Assign a name to the container"),
    switch("interactive", "Keep STDIN open even if not attached", "i"),
    switch("tty", "Allocate a pseudo-TTY", "t"),
    switch("rm", "Automatically remove the container when it exits"),
    Flag("workdir", "Working directory inside the container", "w"),
    Flag("user", "Username or UID (format: <name|uid>[:<group|gid>])", "u"),
    *LOG_FLAGS,
    *MOUNT_FLAGS,
    *RESOURCE_FLAGS,
    *SECURITY_FLAGS,
    *NAMESPACE_FLAGS,
    Flag("network", "Connect a container to a network", value="network"),
    Flag("net", "", value="network"),
    *NETWORK_FLAGS,
    Flag("hostname", "Container host name", "h"),
    Flag("domainname", "Container NIS domain name"),
    Flag("entrypoint", "Overwrite the default ENTRYPOINT of the image"),
    Flag("storage-driver", "Storage driver of this container"),
    many("storage-opt", "Storage driver options for the container"),
    Flag("rootfs", "Use a copy-on-write view of this directory as root", value="directory"),
    many("label", "Set meta data on a container", "l"),
    many("label-file", "Read in a line delimited file of labels"),
    Flag("stop-signal", "Signal to stop the container"),
    Flag(
        "stop-timeout",
        "Timeout (in seconds) to stop a container",
        value="int",
        parse=seconds,
    ),
    Flag(
        "restart",
        "Restart policy to apply when a container exits: no, on-failure[:max-retries], always or"
        " unless-stopped",
        default="no",
    ),
    Flag("cidfile", "Write the container ID to the file"),
    PULL,
)


def requested(parsed: Parsed, *, attached: bool) -> ContainerSpec:
    """Return the container that the flags and arguments of ``run`` or ``create`` ask for.

    With *attached*, its stdin closes when the one who attaches goes away.

    Raises:
        InvalidArgument: in Docker's words, if a value is wrong.
    """
    rootfs = parsed.text("rootfs")
    arguments = parsed.arguments
    image, command = ("", arguments) if rootfs is not None else (arguments[0], arguments[1:])
    mounts = requested_mounts(parsed)
    return ContainerSpec(
        image=image,
        command=command,
        name=parsed.text("name"),
        entrypoint=_entrypoint(parsed.text("entrypoint")),
        env=read_environment(parsed.texts("env-file"), parsed.texts("env"), os.environ),
        working_dir=_working_dir(parsed.text("workdir")),
        user=parsed.text("user") or "",
        hostname=_hostname(parsed.text("hostname")),
        domainname=parsed.text("domainname") or "",
        tty=parsed.on("tty"),
        open_stdin=parsed.on("interactive"),
        stdin_once=parsed.on("interactive") and attached,
        binds=mounts.binds,
        tmpfs=mounts.tmpfs,
        volumes=mounts.volumes,
        network=parsed.text("network") or parsed.text("net"),
        networking=requested_networking(parsed),
        labels=read_labels(parsed.texts("label"), parsed.texts("label-file")),
        auto_remove=parsed.on("rm"),
        storage_driver=parsed.text("storage-driver"),
        storage_options=parsed.texts("storage-opt"),
        rootfs=None if rootfs is None else Path(os.path.abspath(rootfs)),
        stop_signal=parsed.text("stop-signal") or "",
        stop_timeout_seconds=parsed.number("stop-timeout"),
        resources=requested_resources(parsed),
        security=requested_security(parsed),
        namespaces=requested_namespaces(parsed),
        restart=_restart_policy(parsed),
        log=requested_log(parsed),
    )


def _restart_policy(parsed: Parsed) -> RestartPolicy:
    policy = parse_restart_policy(parsed.text("restart") or "")
    if policy.name != "no" and parsed.on("rm"):
        raise InvalidArgument("Conflicting options: --restart and --rm")
    return policy


def _entrypoint(text: str | None) -> tuple[str, ...] | None:
    """An empty one takes the image's away."""
    if text is None:
        return None
    return (text,) if text else ()


def _working_dir(text: str | None) -> str:
    if text and not text.startswith("/"):
        raise InvalidArgument(
            f"the working directory '{text}' is invalid, it needs to be an absolute path"
        )
    return text or ""


def _hostname(text: str | None) -> str:
    if text and (not _HOSTNAME.fullmatch(text) or len(text) > _HOSTNAME_LIMIT):
        raise InvalidArgument(f"invalid hostname format: {text}")
    return text or ""
