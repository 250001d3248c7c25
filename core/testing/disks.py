"""File systems of one's own: an image file, formatted and loop-mounted, gone afterwards."""

from __future__ import annotations

import gc
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..linux.mount import unmount

#: Flags that make formatting quick; the sizes are the least that mkfs takes, or comfortable.
_FORMAT = {
    "ext4": (256 << 20, ("-q", "-F", "-O", "^has_journal", "-E", "lazy_itable_init=1")),
    "xfs": (320 << 20, ("-q", "-f", "-m", "reflink=1")),
    "btrfs": (256 << 20, ("-q", "-f")),
}


@contextmanager
def loop_mounted(
    kind: str, directory: Path, *, size_bytes: int | None = None, options: str = ""
) -> Iterator[Path]:
    """Give the root of a fresh file system of *kind* (ext4, xfs, btrfs), mounted below *directory*.

    The image is sparse and unlinked once mounted, and the loop device is autoclear: whatever
    becomes of the process, both go with the mount. Needs root.

    Raises:
        subprocess.CalledProcessError: if mkfs or mount refuses; ``stderr`` says why.
    """
    image, root = directory / f"{kind}.img", directory / kind
    least, flags = _FORMAT[kind]
    with image.open("wb") as file:
        file.truncate(size_bytes or least)
    root.mkdir()
    try:
        _run(f"mkfs.{kind}", *flags, str(image))
        _run("mount", "-t", kind, "-o", ",".join(filter(None, ("loop", options))),
             str(image), str(root))  # fmt: skip
        image.unlink()
        try:
            yield root
        finally:
            gc.collect()  # a cursor in a cycle keeps its database open
            unmount(root)
    finally:
        image.unlink(missing_ok=True)
        root.rmdir()


def _run(*command: str) -> None:
    environment = {**os.environ, "PATH": os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"}
    subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
