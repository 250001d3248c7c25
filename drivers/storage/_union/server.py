"""The process that serves one snapshot: what :func:`stowage.linux.serving.start` is told to run."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from stowage.effects import effect
from stowage.errors import FailedPrecondition
from stowage.linux.files import remove_tree
from stowage.linux.fuse_server import FileSystem

from .calls import Union
from .marks import DeviceMarks, Marks, NamedMarks
from .tree import Tree
from .upper import Upper

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def build(arguments: Mapping[str, Any], _descriptors: Sequence[int]) -> FileSystem:
    """Open the layers that *arguments* name (``root`` and, beneath it, ``lowers``; ``upper`` and
    ``work``, or neither; ``form``, ``prefix``) and make the union of them."""
    root = os.open(arguments["root"], _DIRECTORY)
    lowers = [os.open(name, _DIRECTORY, dir_fd=root) for name in arguments["lowers"]]
    marks: Marks
    if arguments["form"] == "oci":
        marks = NamedMarks(arguments["prefix"])
    else:
        marks = DeviceMarks(arguments["prefix"])
    if arguments["upper"] is None:
        union = Union(Tree(None, lowers, marks), None)
    else:
        work = os.open(arguments["work"], _DIRECTORY, dir_fd=root)
        _take(work, arguments["name"], arguments["busy_seconds"])
        tree = Tree(os.open(arguments["upper"], _DIRECTORY, dir_fd=root), lowers, marks)
        union = Union(tree, Upper(tree, work), syncs=arguments["fsync"])
    os.close(root)
    options = {"fsname": arguments["name"], "subtype": arguments["subtype"]}
    times = {} if arguments["cache"] else _NO_CACHE
    return FileSystem(union, {**options, "dev": True, "suid": True, **times}, exact=True)


_NO_CACHE = {"entry_timeout": 0, "attr_timeout": 0, "negative_timeout": 0}


def _take(work: int, name: str, busy_seconds: float) -> None:
    """Lock the work directory, for as long as this process lives, and empty it.

    A server whose mount is gone has it for another moment.

    Raises:
        FailedPrecondition: if another one serves the same upper layer.
    """
    deadline = time.monotonic() + busy_seconds
    while True:
        try:
            with effect("union.lock"):
                fcntl.flock(work, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise FailedPrecondition(
                    f"{name} is mounted already",
                    details="another server works on the same upper layer",
                    resolution="unmount it first",
                ) from None
            time.sleep(0.002)
    with os.scandir(work) as left:
        for entry in left:
            if entry.is_dir(follow_symlinks=False):
                remove_tree(f"/proc/self/fd/{work}/{entry.name}")
            else:
                with effect("union.sweep", entry=entry.name):
                    os.unlink(entry.name, dir_fd=work)
