"""A minimal Debian system by debootstrap, and its archive.

debootstrap unpacks some 90 packages file by file and calls fsync for each, so where there is
memory to spare it works on a tmpfs. That and whatever debootstrap mounts are in a mount
namespace of their own, which is gone with its last process, however that ends. Without a tmpfs
the system is made in a directory below data-root, which is removed afterwards.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..effects import effect
from ..errors import NotSupported, Unavailable
from ..layers.diff import pack_tree
from ..layers.tree import Tree
from ..linux.mount import MS_PRIVATE, MS_REC, set_propagation, syscall_mount
from ..linux.namespaces import CLONE_FS, CLONE_NEWNS, on_throwaway_thread, unshare
from .apt_sources import PackageSource, package_source

_MEMORY_WANTED_BYTES = 1536 << 20
_TMPFS_SIZE = "1200m"
_TIMEOUT_SECONDS = 1800
_LOG_LINES = 15
_EMPTIED = ("dev", "proc", "run", "sys", "tmp", "var/cache/apt", "var/lib/apt/lists", "var/tmp")
_BLANKED = ("etc/hostname", "etc/machine-id", "etc/resolv.conf")
_WRITTEN = {
    # services are not started in a container: invoke-rc.d(8) asks this
    "usr/sbin/policy-rc.d": ("#!/bin/sh\nexit 101\n", 0o755),
    # layers should not keep what can be downloaded again
    "etc/apt/apt.conf.d/stowage-clean": ('APT::Keep-Downloaded-Packages "false";\n', 0o644),
}


def debian_root(suite: str, data_root: Path, out: BinaryIO, tell: Callable[[str], None]) -> None:
    """Make a minimal system of *suite* and write its archive to *out*.

    Raises:
        NotSupported: if debootstrap is missing or apt has no source for *suite*.
        Unavailable: if debootstrap fails, with the end of its log.
    """
    if shutil.which("debootstrap") is None:
        raise NotSupported(
            "cannot make a Debian image: there is no debootstrap on this machine",
            resolution="install it: apt-get install debootstrap",
        )
    source = package_source(suite)
    with _staging(data_root) as directory:

        def make() -> int:
            unshare(CLONE_NEWNS | CLONE_FS)
            set_propagation("/", MS_REC | MS_PRIVATE)
            if _available_bytes() >= _MEMORY_WANTED_BYTES:
                syscall_mount("tmpfs", directory, "tmpfs", 0, f"size={_TMPFS_SIZE},mode=755")
            _debootstrap(suite, source, directory, tell)
            _tidy(directory)
            return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

        root = on_throwaway_thread(make)
        try:
            tell("Packing the layer")
            pack_tree(Tree(root), out)
        finally:
            os.close(root)


@contextmanager
def _staging(data_root: Path) -> Iterator[Path]:
    with effect("bootstrap.stage", path=data_root):
        directory = Path(tempfile.mkdtemp(prefix="bootstrap-", dir=data_root))
    try:
        yield directory
    finally:
        with effect("bootstrap.unstage", path=directory):
            shutil.rmtree(directory)


def _available_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 0


def _debootstrap(
    suite: str, source: PackageSource, directory: Path, tell: Callable[[str], None]
) -> None:
    command = [
        # neither it nor what it starts outlives us (prctl(2), PR_SET_PDEATHSIG)
        "setpriv", "--pdeathsig", "KILL",
        # what it mounts and forgets is gone with it, before anything is deleted here
        "unshare", "--mount", "--pid", "--fork", "--kill-child", "--",
        "debootstrap", "--variant=minbase", *source.options,
        suite, os.fspath(directory), source.uri,
    ]  # fmt: skip
    tell(f"Running debootstrap --variant=minbase {suite}")
    lines: list[str] = []
    with effect("bootstrap.debootstrap", suite=suite):
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, "LC_ALL": "C"},
        )
        with process:
            assert process.stdout is not None
            for line in process.stdout:
                lines = [*lines, line.rstrip()][-_LOG_LINES:]
                tell(line.rstrip())
    if process.returncode != 0:
        raise Unavailable(
            f"debootstrap failed with exit code {process.returncode}",
            details="\n".join([*lines, *_log_of(directory)]),
            resolution="see whether 'apt-get update' works on this machine",
        )


def _log_of(directory: Path) -> list[str]:
    try:
        text = (directory / "debootstrap/debootstrap.log").read_text(errors="replace")
    except OSError:
        return []
    return text.splitlines()[-_LOG_LINES:]


def _tidy(root: Path) -> None:
    """Take away what is of this machine or can be had again, and what a container is given."""
    with effect("bootstrap.tidy", path=root):
        for name in _EMPTIED:
            _empty(root / name)
        for log in (root / "var/log").rglob("*"):
            if log.is_file() and not log.is_symlink():
                log.unlink()
        for name in _BLANKED:
            (root / name).unlink(missing_ok=True)
            (root / name).write_text("")
        for name, (text, mode) in _WRITTEN.items():
            (root / name).write_text(text)
            (root / name).chmod(mode)


def _empty(directory: Path) -> None:
    with effect("bootstrap.empty", path=directory), os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
