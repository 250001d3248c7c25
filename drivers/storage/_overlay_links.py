"""Making an upper directory say what overlay's index knows: the other names of a hard link.

With ``index=on`` a file of a lower layer that has several names is copied up once; the names
that nobody wrote through stay in the lower layer and reach the copy through ``work/index``.
Without the index they would show the old content again, so a snapshot that is sealed gets all
names of such a file in its upper directory.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from stowage import effect


def complete_hard_links(merged: int, upper: Path) -> None:
    """Copy up every name of each hard-linked file of which *upper* holds one.

    *merged* is a descriptor of the writable overlay whose upper directory is *upper*.
    """
    names_by_inode: dict[tuple[int, int], list[tuple[str, os.stat_result]]] = {}
    for name, facts in _hard_linked(merged):
        names_by_inode.setdefault((facts.st_dev, facts.st_ino), []).append((name, facts))
    for names in names_by_inode.values():
        missing = [(name, facts) for name, facts in names if not _lexists(upper / name)]
        if len(missing) == len(names):
            continue
        for name, facts in missing:
            # Setting the times that it has anyway is a change to the inode, hence a copy-up.
            with effect("overlay.link_up", path=name):
                times = (facts.st_atime_ns, facts.st_mtime_ns)
                os.utime(name, ns=times, dir_fd=merged, follow_symlinks=False)


def _hard_linked(merged: int) -> Iterator[tuple[str, os.stat_result]]:
    """Give each name beneath *merged*, relative to it, whose inode has more than one."""
    for folder, _, _, descriptor in os.fwalk(".", dir_fd=merged):
        with os.scandir(descriptor) as entries:
            for entry in entries:
                facts = entry.stat(follow_symlinks=False)
                if facts.st_nlink > 1 and not stat.S_ISDIR(facts.st_mode):
                    yield os.path.join(folder, entry.name), facts


def _lexists(path: Path) -> bool:
    return os.path.lexists(path)
