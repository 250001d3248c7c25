"""The footprint of a root: files, mounts, loop devices and descriptors that belong to it.

What is there for good (the metastore, the ballast, lock files of the root as a whole, the
driver's own first directories) does not count as left behind: take one picture after a driver was
used for the first time, and a second one when all is to be gone.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...linux.mountinfo import read_mountinfo

#: The metastore grows and shrinks by itself.
_OWN = re.compile(r"data/(metadata\.db.*|ballast|locks/users)|exec(/.*)?")

#: What a thread of the core may have let go of only after the first picture.
_MAY_GO = ("file data/recipes", "file data/trash", "descriptor", "mount", "loop")
#: A thread of the core may still be closing what it worked on.
_SETTLING_SECONDS = 5.0

Footprint = frozenset[str]


def footprint(root: Path) -> Footprint:
    """Take a picture of what there is of *root*, each thing as a text."""
    return frozenset((*_files(root), *_mounts(root), *_loops(root), *_descriptors(root)))


def assert_footprint(before: Footprint, root: Path, *, but: Sequence[str] = ()) -> None:
    """Raise AssertionError naming what has been left behind since, or is gone.

    *but* are patterns of paths below data-root that may differ.
    """
    allowed = [re.compile(f"file data/{pattern}") for pattern in but]

    def counts(thing: str) -> bool:
        return not any(one.fullmatch(thing) for one in allowed)

    deadline = time.monotonic() + _SETTLING_SECONDS
    while left := sorted(filter(counts, footprint(root) - before)):
        if time.monotonic() > deadline:
            raise AssertionError(f"left behind: {', '.join(left[:12])}")
        time.sleep(0.02)
    missing = sorted(before - footprint(root))
    gone = [thing for thing in missing if counts(thing) and not thing.startswith(_MAY_GO)]
    assert not gone, f"gone, though nothing asked for that: {', '.join(gone[:12])}"


def _files(root: Path) -> Iterator[str]:
    for directory, names, files in os.walk(root):
        for name in (*names, *files):
            path = os.path.relpath(os.path.join(directory, name), root)
            if not _OWN.fullmatch(path):
                yield f"file {path}"


def _mounts(root: Path) -> Iterator[str]:
    for entry in read_mountinfo():
        if entry.target.startswith(f"{root}/"):
            yield f"mount {os.path.relpath(entry.target, root)} ({entry.type})"


def _loops(root: Path) -> Iterator[str]:
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            file = backing.read_text().strip()
        except OSError:  # detached meanwhile
            continue
        if file.startswith(f"{root}/"):
            yield f"loop device over {os.path.relpath(file, root)}"


def _descriptors(root: Path) -> Iterator[str]:
    """Descriptors of this process, but those of the metastore."""
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # that of the listing itself
            continue
        if target.startswith(f"{root}/"):
            path = os.path.relpath(target, root)
            if not _OWN.fullmatch(path):
                yield f"descriptor of {path}"


__all__ = ["Footprint", "assert_footprint", "footprint"]
