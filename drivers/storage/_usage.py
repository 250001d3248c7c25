"""What a whole tree occupies on its disk."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from stowage import Usage

_BLOCK_BYTES = 512  # the unit of st_blocks, whatever the file system's own (stat(2))


def tree_usage(tree: Path) -> Usage:
    """Return the allocated bytes and the inodes of *tree*, the directory itself included.

    A file with several names in it counts once; what a reflink shares counts in full.
    """
    facts = os.stat(tree)
    blocks, inodes = facts.st_blocks, 1
    linked: set[tuple[int, int]] = set()
    todo = [os.fspath(tree)]
    while todo:
        with os.scandir(todo.pop()) as entries:
            for entry in entries:
                facts = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(facts.st_mode):
                    todo.append(entry.path)
                elif facts.st_nlink > 1:
                    inode = (facts.st_dev, facts.st_ino)
                    if inode in linked:
                        continue
                    linked.add(inode)
                blocks += facts.st_blocks
                inodes += 1
    return Usage(blocks * _BLOCK_BYTES, inodes)
