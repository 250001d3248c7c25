"""Overlay mounts as data, in the three forms that kernels of different age take.

======================  =======  ==========================================================
form                    kernel   layers are named
======================  =======  ==========================================================
``descriptor``          ≥ 6.13   by descriptor: no length, no character of a path matters
``string``              ≥ 6.8    one ``lowerdir+=`` each, at most 255 bytes, beneath the root
``monolithic``          any      one ``lowerdir=a:b:c`` beneath the root; all options together
                                 are at most a page, so the depth hangs on the names' length
======================  =======  ==========================================================

Sources: Documentation/filesystems/overlayfs.rst; fs/overlayfs/params.c.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from stowage import DirectoryOption, Mount

FORMS = ("descriptor", "string", "monolithic")
"""From the best to the one that always works."""

MAX_LOWERS = 500
"""OVL_MAX_STACK: what the kernel takes at most, in every form."""

STRING_BYTES = 255
"""The longest value that fsconfig(2) takes."""

_TYPICAL_ID_DIGITS = 6


class Upper(Struct, frozen=True):
    """The writable part of an overlay."""

    directory: Path
    work: Path


def overlay_mount(
    form: str, root: Path, lowers: Sequence[Path], upper: Upper | None, flags: Sequence[str]
) -> Mount:
    """Return the mount of *lowers* (top first) beneath *upper*, or read-only without one."""
    options = (*flags, *(() if upper else ("ro",)))
    if form == "descriptor":
        layers = [DirectoryOption("lowerdir+", lower) for lower in lowers]
        writable = (
            (DirectoryOption("upperdir", upper.directory), DirectoryOption("workdir", upper.work))
            if upper
            else ()
        )
        return Mount("overlay", "overlay", (*options, *layers, *writable))
    named = [_beneath(root, lower) for lower in lowers]
    lines = [f"lowerdir+={name}" for name in named]
    if form == "monolithic":
        lines = ["lowerdir=" + ":".join(_escape(name) for name in named)]
    if upper:
        lines.append(f"upperdir={_escape(_beneath(root, upper.directory))}")
        lines.append(f"workdir={_escape(_beneath(root, upper.work))}")
    monolithic = form == "monolithic"
    return Mount("overlay", "overlay", (*options, *lines), root, monolithic=monolithic)


def too_much(mount: Mount) -> str | None:
    """Say why the kernel would refuse *mount* for its size alone; None if it would not."""
    if mount.monolithic:
        room = os.sysconf("SC_PAGE_SIZE") - 1
        size = len(os.fsencode(",".join(map(str, mount.options))))
        return f"its options take {size} bytes, of {room} that fit a page" if size > room else None
    for option in mount.options:
        value = option.partition("=")[2] if isinstance(option, str) else ""
        if len(os.fsencode(value)) > STRING_BYTES:
            return f"{value!r} is longer than {STRING_BYTES} bytes"
    return None


def depth_of(form: str, flags: Sequence[str]) -> int:
    """Return how many lower directories fit, for snapshots whose ids have up to six digits."""
    if form != "monolithic":
        return MAX_LOWERS
    number = "9" * _TYPICAL_ID_DIGITS
    fixed = ",".join((*flags, "lowerdir=", f"upperdir={number}/fs", f"workdir={number}/work"))
    room = os.sysconf("SC_PAGE_SIZE") - 1 - len(fixed)
    return min(MAX_LOWERS, room // len(f"{number}/fs:"))


def _beneath(root: Path, path: Path) -> str:
    """Return *path* relative to *root*, or as it is when it lies elsewhere."""
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _escape(name: str) -> str:
    r"""Put a ``\`` before what separates options or layers; overlay takes it off again."""
    return re.sub(r"([\\:,])", r"\\\1", name)
