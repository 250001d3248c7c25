"""What a piece of work left behind: a picture of the lab before, one after, and the difference.

Looked at: mounts of this mount namespace, loop devices whose backing file lies on a file system
of the lab, processes that carry the lab's marker or are children of this one, descriptors of
namespaces and of files in the lab, and cgroups of the roots that were made in the lab.
"""

from __future__ import annotations

import fcntl
import gc
import os
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from ..linux.mountinfo import read_mountinfo
from ..linux.process import describe, start_time
from .lab import MARKER, Lab

_LOOP_GET_STATUS64 = 0x4C05
_CGROUPS = Path("/sys/fs/cgroup")


class Picture(Struct, frozen=True):
    """What there is at one instant; each set holds texts that say what and where."""

    mounts: frozenset[str]
    loops: frozenset[str]
    processes: frozenset[str]
    descriptors: frozenset[str]
    cgroups: frozenset[str]


def picture(lab: Lab) -> Picture:
    """Look at what exists now. Garbage is collected first, so that only real references count."""
    gc.collect()
    return Picture(
        mounts=frozenset(_mounts(lab)),
        loops=frozenset(_loops(lab)),
        processes=frozenset(_processes(lab)),
        descriptors=frozenset(_descriptors(lab)),
        cgroups=frozenset(_cgroups(lab)),
    )


def leaked(before: Picture, after: Picture) -> list[str]:
    """Return what is in *after* and was not in *before*, one line each, sorted by kind."""
    return [
        f"{kind}: {what}"
        for kind, old, new in (
            ("process", before.processes, after.processes),
            ("mount", before.mounts, after.mounts),
            ("loop device", before.loops, after.loops),
            ("cgroup", before.cgroups, after.cgroups),
            ("descriptor", before.descriptors, after.descriptors),
        )
        for what in sorted(new - old)
    ]


def _mounts(lab: Lab) -> Iterator[str]:
    for entry in read_mountinfo():
        if entry.target not in lab.kept:
            yield f"{entry.target} ({entry.type}, mount id {entry.id})"


def _loops(lab: Lab) -> Iterator[str]:
    """Loop devices are the machine's: only those over files of the lab are ours."""
    places = [str(lab.directory), *lab.kept]
    ours = {os.stat(path).st_dev for path in places if os.path.exists(path)}
    kept = {entry.source for entry in read_mountinfo() if entry.target in lab.kept}
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        name = backing.parent.parent.name
        try:
            with open(f"/dev/{name}", "rb", buffering=0) as device:
                status = fcntl.ioctl(device, _LOOP_GET_STATUS64, bytes(232))
            shown = backing.read_text().strip()
        except OSError:  # detached meanwhile, or no privilege
            continue
        (device_number,) = struct.unpack_from("Q", status)
        if device_number in ours and f"/dev/{name}" not in kept:
            yield f"/dev/{name} over {shown}"


def _processes(lab: Lab) -> Iterator[str]:
    """Live processes with the lab's marker in their environment, or children of this one."""
    marker = f"{MARKER}={lab.id}".encode()
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or (pid := int(entry.name)) == os.getpid():
            continue
        try:
            environment = Path(entry.path, "environ").read_bytes().split(b"\0")
            parent = _parent(pid)
        except OSError:  # gone, or not ours to look at
            continue
        if (marker in environment or parent == os.getpid()) and start_time(pid) is not None:
            yield describe(pid)


def _parent(pid: int) -> int:
    raw = Path(f"/proc/{pid}/stat").read_bytes()
    return int(raw[raw.rindex(b")") + 2 :].split()[1])


def _descriptors(lab: Lab) -> Iterator[str]:
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # the descriptor of the listing itself
            continue
        if target.startswith(("net:[", "mnt:[", f"{lab.directory}/")):
            yield f"{name} → {target}"


def remember_roots(lab: Lab, directory: Path) -> None:
    """Note the roots in *directory*, which is about to be removed, for the next picture."""
    lab.roots.update(_root_ids(directory))


def _cgroups(lab: Lab) -> Iterator[str]:
    for root_id in lab.roots.union(_root_ids(lab.directory)):
        for hierarchy in (_CGROUPS, *_CGROUPS.glob("*/")):
            if (left := hierarchy / "stowage" / root_id).is_dir():
                yield str(left)


def _root_ids(directory: Path) -> Iterator[str]:
    """The ids of the roots in the lab: cgroups of other roots are other people's."""
    for database in _databases(directory, depth=6):
        try:
            uri = f"file:{database}?mode=ro"
            connection = sqlite3.connect(uri, uri=True)
            try:
                rows = connection.execute("SELECT value FROM settings WHERE name LIKE 'root%id'")
                yield from (value for (value,) in rows)
            finally:
                connection.close()
        except sqlite3.Error:  # a test's junk database
            continue


def _databases(directory: Path, depth: int) -> Iterator[Path]:
    try:
        entries = list(os.scandir(directory))
    except OSError:  # gone meanwhile, or closed to a plain user
        return
    for entry in entries:
        if entry.name == "metadata.db" and entry.is_file(follow_symlinks=False):
            yield Path(entry.path)
        elif depth and entry.is_dir(follow_symlinks=False) and entry.name != "storage":
            yield from _databases(Path(entry.path), depth - 1)
