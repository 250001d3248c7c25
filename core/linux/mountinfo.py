"""Reading ``/proc/<pid>/mountinfo`` (proc(5)); targets may hold any byte but NUL."""

from __future__ import annotations

import os
import re
from pathlib import Path

from msgspec import Struct

_OCTAL = re.compile(r"\\([0-7]{3})")


class MountEntry(Struct, frozen=True):
    """One line: *device* is ``major:minor``, *root* the part of the file system that shows."""

    id: int
    parent_id: int
    device: str
    root: str
    target: str
    options: tuple[str, ...]
    type: str
    source: str
    super_options: tuple[str, ...]
    propagation: tuple[str, ...] = ()
    """The optional fields: ``shared:N``, ``master:N``, …; none for a private mount."""


def read_mountinfo(pid: int | str = "self") -> list[MountEntry]:
    """Return the mounts of a process's mount namespace, in mount order.

    Raises:
        OSError: if the process is gone or not ours to look at.
    """
    # Only a newline ends a line: a target may hold "\r" or U+2028, which the kernel shows as is.
    text = os.fsdecode(Path(f"/proc/{pid}/mountinfo").read_bytes())
    return [_parse(line) for line in text.split("\n") if line]


def _parse(line: str) -> MountEntry:
    fields, _, rest = line.partition(" - ")
    number, parent, device, root, target, options, *propagation = fields.split(" ")
    kind, source, super_options = [*rest.split(" "), "", ""][:3]
    return MountEntry(
        int(number),
        int(parent),
        device,
        _unescape(root),
        _unescape(target),
        tuple(options.split(",")),
        kind,
        _unescape(source),
        tuple(super_options.split(",")),
        tuple(propagation),
    )


def _unescape(text: str) -> str:
    """Undo the kernel's ``\\040`` escapes of space, tab, newline and backslash."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
