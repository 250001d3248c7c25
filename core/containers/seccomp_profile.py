"""A seccomp profile of the user's, in Docker's form, made the runtime specification's.

Docker's form adds to it: rules that hold only with or without some capability, on some machine
or from some kernel on, and architectures by a map (docs.docker.com, "Seccomp security profiles").
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import InvalidArgument

_MACHINES = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "i686": ("x86", "SCMP_ARCH_X86"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "armv7l": ("arm", "SCMP_ARCH_ARM"),
    "armv6l": ("arm", "SCMP_ARCH_ARM"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
}
_KEPT = ("action", "args", "errnoRet")


def read_profile(path: str) -> str:
    """Return the profile in the file *path*, as JSON text without blanks.

    Raises:
        InvalidArgument: in the words of Docker's client.
    """
    try:
        with open(path, "rb") as file:
            raw = file.read()
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise InvalidArgument(
            f"opening seccomp profile ({path}) failed: open {path}: {reason}"
        ) from error
    try:
        profile = json.loads(raw)
    except ValueError as error:
        reason = str(error) if raw.strip() else "it is empty"
        raise InvalidArgument(
            f"compacting json for seccomp profile ({path}) failed: {reason}"
        ) from error
    text = json.dumps(profile, separators=(",", ":"))
    convert(text, ())  # refused now, and not when it starts
    return text


def convert(text: str, capabilities: Iterable[str]) -> dict[str, Any] | None:
    """Return the ``linux.seccomp`` object that a profile means for a container's *capabilities*.

    None if the profile asks for nothing.

    Raises:
        InvalidArgument: in Docker's words.
    """
    profile = json.loads(text)
    if not isinstance(profile, dict):
        raise InvalidArgument("Decoding seccomp profile failed: it is not an object")
    syscalls = profile.get("syscalls") or []
    if not profile.get("defaultAction") and not syscalls:
        return None
    ours = os.uname().machine
    machine, architecture = _MACHINES.get(ours, (ours, ""))
    held = frozenset(capabilities)
    found = {
        key: profile[key]
        for key in ("defaultAction", "defaultErrnoRet", "flags", "listenerPath",
                    "listenerMetadata")
        if profile.get(key) is not None
    }  # fmt: skip
    if architectures := _architectures(profile, architecture):
        found["architectures"] = architectures
    found["syscalls"] = [
        rule for call in syscalls if (rule := _rule(call, machine, held)) is not None
    ]
    return found


def _architectures(profile: Mapping[str, Any], ours: str) -> list[str]:
    listed, mapped = profile.get("architectures") or [], profile.get("archMap") or []
    if listed and mapped:
        raise InvalidArgument(
            "'architectures' and 'archMap' were specified in the seccomp profile, "
            "use either 'architectures' or 'archMap'"
        )
    for entry in mapped:
        if entry.get("architecture") == ours:
            return [ours, *(entry.get("subArchitectures") or [])]
    return list(listed)


def _rule(call: object, machine: str, held: frozenset[str]) -> dict[str, Any] | None:
    """One rule, or None where it does not hold here."""
    if not isinstance(call, dict) or not isinstance(call.get("action"), str):
        raise InvalidArgument("Decoding seccomp profile failed: a rule has no action")
    name, names = call.get("name"), call.get("names") or []
    if name and names:
        raise InvalidArgument(
            "'name' and 'names' were specified in the seccomp profile, use either 'name' or 'names'"
        )
    only, never = call.get("includes") or {}, call.get("excludes") or {}
    if never.get("arches") and machine in never["arches"]:
        return None
    if held.intersection(never.get("caps") or ()):
        return None
    if never.get("minKernel") and _kernel_is_at_least(never["minKernel"]):
        return None
    if only.get("arches") and machine not in only["arches"]:
        return None
    if not held.issuperset(only.get("caps") or ()):
        return None
    if only.get("minKernel") and not _kernel_is_at_least(only["minKernel"]):
        return None
    kept = {key: call[key] for key in _KEPT if call.get(key) is not None}
    return {"names": [name] if name else list(names), **kept}


def _kernel_is_at_least(version: str) -> bool:
    def numbers(text: str) -> tuple[int, ...]:
        major, minor = (*text.split("."), "0")[:2]
        return int(major), int("".join(c for c in minor if c.isdigit()) or 0)

    return numbers(os.uname().release) >= numbers(version)
