"""The tree that is measured with: a Debian root, or one of the same shape made up here."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from .places import run

# The shape of a minimal Debian 12 root without its package cache.
FILES, DIRECTORIES, SYMLINKS, SIZE_BYTES = 5_200, 780, 650, 128 << 20


def debian(directory: Path) -> Path:
    """Make a minimal Debian root in *directory* with debootstrap; needs the network.

    Raises:
        RuntimeError: with debootstrap's own words.
    """
    run("debootstrap", "--variant=minbase", "bookworm", str(directory))
    shutil.rmtree(directory / "var" / "cache" / "apt")
    shutil.rmtree(directory / "var" / "lib" / "apt" / "lists")
    return directory


def synthetic(directory: Path) -> Path:
    """Make a tree with as many files, directories, symlinks and bytes, always the same."""
    chance = random.Random(12)
    directories = [directory]
    directory.mkdir(parents=True, exist_ok=True)
    while len(directories) < DIRECTORIES:
        above = chance.choice(directories[-60:] + directories[:20])
        below = above / f"d{len(directories)}"
        below.mkdir()
        directories.append(below)
    for number, size in enumerate(_sizes(chance)):
        (chance.choice(directories) / f"f{number}").write_bytes(chance.randbytes(size))
    for number in range(SYMLINKS):
        (chance.choice(directories) / f"s{number}").symlink_to(f"../f{number}")
    return directory


def _sizes(chance: random.Random) -> list[int]:
    """Mostly small, some large, as files of a system are (log-normal)."""
    raw = [chance.lognormvariate(8, 2) for _ in range(FILES)]
    scale = SIZE_BYTES / sum(raw)
    return [int(size * scale) for size in raw]


def pack(tree: Path, archive: Path) -> Path:
    """Write *tree* as an uncompressed archive, the way a layer comes."""
    run("tar", "--numeric-owner", "--xattrs", "-C", str(tree), "-cf", str(archive), ".")
    return archive
