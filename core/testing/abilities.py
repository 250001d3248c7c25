"""What this machine can do, found out by doing it; tests and the tour say by it what they skip.

An *ability* has a name (``"mounts"``, ``"xfs"``, ``"crun"``); :func:`missing` gives the reason
why it is not there, or None. Each is tried at most once per process.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from ..linux.mount import attach
from ..linux.namespaces import (
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUTS,
    new_network_namespace,
    on_throwaway_thread,
    unshare,
)
from ..model import Mount

_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))

#: Commands whose presence is an ability of the same name, with Debian's package.
COMMANDS = {
    "crun": "crun",
    "runc": "runc",
    "conmon": "conmon",
    "nft": "nftables",
    "iptables": "iptables",
    "busybox": "busybox-static",
    "debootstrap": "debootstrap",
    "git": "git",
    "fish": "fish",
    "zsh": "zsh",
}

_MKFS_PACKAGES = {"ext4": "e2fsprogs", "xfs": "xfsprogs", "btrfs": "btrfs-progs"}


def missing(ability: str) -> str | None:
    """Return why this machine lacks *ability*, or None if it is there.

    Raises:
        KeyError: if there is no ability of that name.
    """
    return _PROBES[ability]()


def known() -> tuple[str, ...]:
    """Return the names of all abilities, sorted."""
    return tuple(sorted(_PROBES))


def find_command(name: str) -> str | None:
    """Return the path of a command, looked for in the sbin directories too."""
    return shutil.which(name, path=_PATH)


def _root() -> str | None:
    return None if os.geteuid() == 0 else "not root"


def _tried(what: str, attempt: Callable[[], object]) -> str | None:
    try:
        attempt()
    except OSError as error:
        return f"{what}: {error.strerror or error}"
    return None


def _mounts() -> str | None:
    what = "no CAP_SYS_ADMIN (a mount namespace cannot be made)"
    return _root() or _tried(what, lambda: on_throwaway_thread(lambda: unshare(CLONE_NEWNS)))


def _netns() -> str | None:
    what = "a network namespace cannot be made"
    return _root() or _tried(what, lambda: os.close(new_network_namespace()))


def _namespaces() -> str | None:
    # A thread cannot do anything useful after unsharing the pid namespace, and need not here.
    flags = CLONE_NEWPID | CLONE_NEWUTS
    what = "pid and uts namespaces cannot be made"
    return _mounts() or _tried(what, lambda: on_throwaway_thread(lambda: unshare(flags)))


def _userns() -> str | None:
    done = subprocess.run(
        ["unshare", "--user", "true"], capture_output=True, text=True, check=False
    )  # fmt: skip
    why = done.stderr.strip().removeprefix("unshare: unshare failed: ")
    hint = " (the kernel refuses them in a chroot)" if done.returncode else ""
    return f"a user namespace cannot be made: {why}{hint}" if done.returncode else None


def _cgroups() -> str | None:
    roots = [Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")]
    root = next((path for path in roots if (path / "cgroup.procs").exists()), None)
    if root is None:
        return "no cgroup hierarchy is mounted at /sys/fs/cgroup"

    def attempt() -> None:
        made = root / f"stowage-probe-{os.getpid()}"
        made.mkdir()
        made.rmdir()

    return _root() or _tried(f"{root} is not writable", attempt)


def _runtime() -> str | None:
    if find_command("crun") or find_command("runc"):
        return None
    return "no OCI runtime (apt-get install crun)"


def _containers() -> str | None:
    return _namespaces() or _netns() or _cgroups() or _runtime()


def _overlay() -> str | None:
    def attempt() -> None:
        with tempfile.TemporaryDirectory() as scratch:
            for name in ("lower", "upper", "work"):
                Path(scratch, name).mkdir()
            options = (
                f"lowerdir={scratch}/lower", f"upperdir={scratch}/upper",
                f"workdir={scratch}/work",
            )  # fmt: skip
            os.close(attach(Mount("overlay", "overlay", options)))

    return _mounts() or _tried("kernel overlayfs does not mount here", attempt)


def _loop() -> str | None:
    def attempt() -> None:
        os.close(os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC))

    return _mounts() or _tried("no loop devices (/dev/loop-control)", attempt)


def _fuse() -> str | None:
    def attempt() -> None:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))

    return _mounts() or _tried("no FUSE (/dev/fuse)", attempt) or _fusepy()


def _fusepy() -> str | None:
    try:
        import fuse  # noqa: F401  # only whether it can be imported
    except (ImportError, OSError) as error:  # OSError: no libfuse
        return f"{error} (pip install 'stowage[fuse]', apt-get install libfuse2)"
    return None


def _disk(kind: str) -> str | None:
    if reason := _loop():
        return reason
    if find_command(f"mkfs.{kind}") is None:
        return f"mkfs.{kind} is not installed (apt-get install {_MKFS_PACKAGES[kind]})"
    from .disks import loop_mounted

    with tempfile.TemporaryDirectory() as scratch:
        try:
            with loop_mounted(kind, Path(scratch)):
                return None
        except subprocess.CalledProcessError as error:
            return f"{kind} does not mount here: {error.stderr.strip()}"


def _command(name: str, package: str) -> str | None:
    if find_command(name):
        return None
    return f"{name} is not installed (apt-get install {package})"


def _once(probe: Callable[..., str | None], *arguments: str) -> Callable[[], str | None]:
    return lru_cache(maxsize=1)(lambda: probe(*arguments))


_PROBES: dict[str, Callable[[], str | None]] = {
    "root": _once(_root),
    "mounts": _once(_mounts),
    "netns": _once(_netns),
    "namespaces": _once(_namespaces),
    "userns": _once(_userns),
    "cgroups": _once(_cgroups),
    "runtime": _once(_runtime),
    "containers": _once(_containers),
    "overlay": _once(_overlay),
    "loop": _once(_loop),
    "fuse": _once(_fuse),
    **{kind: _once(_disk, kind) for kind in _MKFS_PACKAGES},
    **{name: _once(_command, name, package) for name, package in COMMANDS.items()},
}
