"""Devices of the host in a container: ``--device``, ``--device-cgroup-rule``, ``--privileged``."""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from msgspec import Struct

from ..errors import InvalidArgument

_RULE = re.compile(r"([acb]) (\d+|\*):(\d+|\*) ([rwm]{1,3})")
#: Not looked into for ``--privileged``: they are the container's own, or no devices.
_SKIPPED = frozenset({"pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"})

#: (major, minor, access) of the character devices that every container may use; None is any.
_DEFAULT = (
    (None, None, "m"), (1, 3, "rwm"), (1, 5, "rwm"), (1, 7, "rwm"), (1, 8, "rwm"), (1, 9, "rwm"),
    (5, 0, "rwm"), (5, 1, "rwm"), (5, 2, "rwm"), (136, None, "rwm"),
)  # fmt: skip


class Device(Struct, frozen=True):
    """A device, or a directory of them, *source*, seen at *target*; *access* out of ``rwm``."""

    source: str
    target: str
    access: str = "rwm"


def parse_device(text: str) -> tuple[Device, ...]:
    """Parse ``HOST[:CONTAINER][:ACCESS]``; a path that ends in ``*`` means all that match.

    Raises:
        InvalidArgument: in Docker's words.
    """
    parts = text.split(":")
    if len(parts) > 3 or not parts[0]:
        raise InvalidArgument(f"bad format for path: {text}")
    source, target, access = parts[0], "", "rwm"
    if len(parts) == 3:
        target, access = parts[1], parts[2]
        if not _is_access(access):
            raise InvalidArgument(f"bad mode specified: {access}")
    elif len(parts) == 2:
        if _is_access(parts[1]):
            access = parts[1]
        else:
            target = parts[1]
    if not (target or source).startswith("/"):
        raise InvalidArgument(f"{target or source} is not an absolute path")
    if source.endswith("*"):
        if target:
            raise InvalidArgument(f"device with * suffix can't have dst: {text}")
        import glob

        return tuple(Device(path, path, access) for path in sorted(glob.glob(source)))
    return (Device(source, posixpath.normpath(target or source), access),)


def _is_access(text: str) -> bool:
    return bool(text) and len(set(text)) == len(text) and set(text) <= set("rwm")


def check_rule(text: str) -> str:
    """Return a ``--device-cgroup-rule`` if it is one.

    Raises:
        InvalidArgument: in Docker's words.
    """
    if not _RULE.fullmatch(text):
        raise InvalidArgument(f"invalid device cgroup format '{text}'")
    return text


def device_nodes(devices: Iterable[Device]) -> list[dict[str, Any]]:
    """Return ``linux.devices`` for *devices*.

    Raises:
        InvalidArgument: in Docker's words, if one is no device.
    """
    return [node for device in devices for node, _ in _nodes(device)]


def device_rules(
    devices: Iterable[Device], rules: Sequence[str], *, everything: bool = False
) -> list[dict[str, Any]]:
    """Return ``linux.resources.devices``: Docker's own, those of *devices* and of *rules*.

    With *everything* all devices may be used.

    Raises:
        InvalidArgument: as :func:`device_nodes`.
    """
    if everything:
        return [{"allow": True, "access": "rwm"}]
    found: list[dict[str, Any]] = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "b", "access": "m"},
    ]
    found += [_rule("c", *one) for one in _DEFAULT]
    found += [
        _rule(node["type"], node["major"], node["minor"], access)
        for device in devices
        for node, access in _nodes(device)
    ]
    for text in rules:
        match = _RULE.fullmatch(text)
        assert match is not None, "checked when it was asked for"
        major, minor = (None if part == "*" else int(part) for part in match.group(2, 3))
        found.append(_rule(match[1], major, minor, match[4]))
    return found


def _rule(kind: str, major: int | None, minor: int | None, access: str) -> dict[str, Any]:
    rule = {"allow": True, "type": kind, "major": major, "minor": minor, "access": access}
    return {key: value for key, value in rule.items() if value is not None}


def host_devices() -> list[dict[str, Any]]:
    """Return ``linux.devices`` with every device of the host, for ``--privileged``."""
    return [_node("/dev", path, path) for path in _walk("/dev", _SKIPPED)]


def _nodes(device: Device) -> Iterator[tuple[dict[str, Any], str]]:
    """A device, or every device below a directory, with its access."""
    source = os.path.realpath(device.source)
    if os.path.isdir(source):
        for path in _walk(source, frozenset()):
            target = posixpath.join(device.target, posixpath.relpath(path, source))
            yield _node(device.source, path, target), device.access
    else:
        yield _node(device.source, source, device.target), device.access


def _walk(directory: str, skipped: frozenset[str]) -> Iterator[str]:
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.is_symlink() or entry.name == "console":
            continue
        if entry.is_dir():
            if entry.name not in skipped:
                yield from _walk(entry.path, skipped)
        elif _kind(entry.stat(follow_symlinks=False).st_mode):
            yield entry.path


def _kind(mode: int) -> str:
    return "c" if stat.S_ISCHR(mode) else "b" if stat.S_ISBLK(mode) else ""


def _node(asked: str, path: str, target: str) -> dict[str, Any]:
    what = f'error gathering device information while adding custom device "{asked}": '
    try:
        found = os.stat(path)
    except OSError as error:
        raise InvalidArgument(what + os.strerror(error.errno or 0).lower()) from error
    kind = _kind(found.st_mode)
    if not kind:
        raise InvalidArgument(what + "not a device node")
    return {
        "path": target,
        "type": kind,
        "major": os.major(found.st_rdev),
        "minor": os.minor(found.st_rdev),
        "fileMode": stat.S_IMODE(found.st_mode),
        "uid": found.st_uid,
        "gid": found.st_gid,
    }
