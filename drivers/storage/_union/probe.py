"""Finding out whether a union can be served here, by serving one in a scratch directory."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from stowage import Finding, NotSupported, StowageError, effect
from stowage.linux.serving import wait_ended
from stowage.linux.statfs import filesystem_name

from .._scratch import can_clone, existing, keeps_acls, scratch

_END_SECONDS = 10.0


class Unfit(NotSupported):
    """The union cannot work here; *finding* says why and what would help."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason, resolution=remedy)
        self.finding = Finding(reason, remedy)


class Traits(Struct, frozen=True):
    """What the backing file system makes of a union."""

    acl: bool
    reflink: bool


def probe_traits(root: Path, serve: Callable[[Path], int]) -> Traits:
    """Try *serve* on the directories ``1`` (a layer) and ``2`` (its child) of a place below *root*.

    Raises:
        Unfit: if it does not work; nothing is left behind.
    """
    if os.geteuid():
        raise Unfit("serving FUSE to other users takes root", "run as root")
    _open_device()
    try:
        with scratch(root) as place:
            traits = _try_in(place, serve)
            wait_ended(place / "2", _END_SECONDS)  # it writes a last line there
            return traits
    except StowageError as error:
        raise Unfit(
            f"{error.brief}: {error.details}" if error.details else error.brief,
            error.resolution or "see what is said above",
        ) from error
    except OSError as error:
        where = filesystem_name(existing(root))
        raise Unfit(
            f"a union cannot be kept below {root} ({where}): {error}",
            "put data-root on ext4, xfs, btrfs or tmpfs, with space left",
        ) from error


def _open_device() -> None:
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        reason = f"/dev/fuse cannot be opened: {error.strerror}"
        remedy = "modprobe fuse"
        if error.errno in (errno.EPERM, errno.EACCES):
            remedy = "allow the device 10:229 to this container (--device /dev/fuse)"
        elif not os.path.exists("/dev/fuse") and "fuse" in filesystems():
            remedy = "mknod /dev/fuse c 10 229"
        raise Unfit(reason, remedy) from error


def filesystems() -> list[str]:
    """Return the words of /proc/filesystems: what this kernel can mount just now."""
    try:
        return Path("/proc/filesystems").read_text().split()
    except OSError:
        return []


def _try_in(place: Path, serve: Callable[[Path], int]) -> Traits:
    """Hide one file of the layer and change another through the mount."""
    with effect("probe.layers", path=place):
        for name in ("1/fs", "1/diff", "2/fs", "2/diff"):
            (place / name).mkdir(parents=True)
        for name in ("fs", "diff"):
            (place / "1" / name / "gone").write_bytes(b"")
            (place / "1" / name / "kept").write_bytes(b"old")
    mounted = serve(place)
    try:
        acl = _use(mounted)
    finally:
        os.close(mounted)
    return Traits(acl, can_clone(place))


def _use(mounted: int) -> bool:
    with effect("probe.use"):
        os.unlink("gone", dir_fd=mounted)
        kept = os.open("kept", os.O_RDWR | os.O_CLOEXEC, dir_fd=mounted)
        try:
            os.pwrite(kept, b"new", 0)
            content = os.pread(kept, 10, 0)
            acl = keeps_acls(kept)
        finally:
            os.close(kept)
    root = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mounted)
    try:
        seen = os.listdir(root)
    finally:
        os.close(root)
    if seen != ["kept"] or content != b"new":
        raise Unfit(f"the union shows {seen}, not what was left", "report it with your kernel")
    return acl
