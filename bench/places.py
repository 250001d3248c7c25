"""File systems to measure on: made for the run, loop-mounted, gone afterwards."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stowage.linux.mount import unmount

KINDS = ("ext4", "xfs")


@contextmanager
def loop_mounted(kind: str, directory: Path, size_bytes: int = 3 << 30) -> Iterator[Path]:
    """Give the root of a fresh file system of *kind* as mkfs makes it, journal included.

    The image is sparse, lies in *directory* and is unlinked as soon as it is mounted; the loop
    device detaches itself. So nothing is left, however the run ends.
    """
    image, root = directory / f"{kind}.img", directory / kind
    with image.open("wb") as file:
        file.truncate(size_bytes)
    root.mkdir()
    try:
        # Inode tables at once: the kernel would write them while it is measured.
        lazy = ("-E", "lazy_itable_init=0,lazy_journal_init=0") if kind == "ext4" else ()
        run(f"mkfs.{kind}", "-q", *lazy, str(image))
        run("mount", "-o", "loop", str(image), str(root))
        image.unlink()
        try:
            yield root
        finally:
            unmount(root)
    finally:
        image.unlink(missing_ok=True)
        root.rmdir()


def run(*command: str) -> None:
    """Run a command quietly.

    Raises:
        RuntimeError: with what it said, if it fails.
    """
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PATH": path},
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
