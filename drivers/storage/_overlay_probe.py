"""Finding out what overlay can do on a file system, by doing it once in a scratch directory.

One mount of two layers answers nearly everything: the whiteout in the upper layer must hide the
file below it, writing to another file copies it up, and the kernel makes ``work/index`` only
where it keeps an index.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from stowage import Finding, NotSupported, effect, effectful
from stowage.linux.mount import attach
from stowage.linux.statfs import filesystem_name

from ._overlay_mounts import FORMS, Upper, overlay_mount
from ._overlay_options import Settings
from ._scratch import can_clone, existing, keeps_acls, scratch

_NEVER_UPPER = {"overlayfs", "aufs", "ecryptfs", "nfs", "cifs", "smb2", "vfat", "exfat", "9p"}


class Unfit(NotSupported):
    """Overlay cannot work here; *finding* says why and what would help."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason, resolution=remedy)
        self.finding = Finding(reason, remedy)


class _Wanted(Struct, frozen=True):
    """What the one mount of the probe asks for."""

    index: bool
    userxattr: bool


class Traits(Struct, frozen=True):
    """What a file system, a kernel and this process's privileges make of overlay."""

    form: str
    userxattr: bool
    index: bool
    whiteout_xattr: bool
    stable_inodes: bool
    fresh_reads: bool
    acl: bool
    reflink: bool

    @property
    def xattr_prefix(self) -> str:
        return "user.overlay." if self.userxattr else "trusted.overlay."


def probe_traits(root: Path, settings: Settings) -> Traits:
    """Try overlay below *root* (or where it will be made), as *settings* ask, and tell what
    it can do.

    Raises:
        Unfit: if it does not work; nothing is left behind.
    """
    try:
        with scratch(root) as place:
            entries, traits = _try_in(place, settings)
    except OSError as error:
        raise _unfit_place(root, error) from error
    # With the files gone only the directory's own d_type can still tell what they were.
    if not all(entry.is_file(follow_symlinks=False) for entry in entries):
        raise Unfit(
            f"{_name(root)} does not keep file types in directories (d_type)",
            "make the file system anew, xfs with 'mkfs.xfs -n ftype=1'",
        )
    return traits


def _try_in(place: Path, settings: Settings) -> tuple[list[os.DirEntry[str]], Traits]:
    lower, upper = place / "1" / "fs", Upper(place / "2" / "fs", place / "2" / "work")
    with effect("probe.layers", path=place):
        for directory in (lower, upper.directory, upper.work):
            directory.mkdir(parents=True)
        for name in ("gone", "kept"):
            os.close(os.open(lower / name, os.O_CREAT | os.O_WRONLY, 0o644))
        userxattr = _needs_userxattr(upper.directory)
        prefix = "user.overlay." if userxattr else "trusted.overlay."
        whiteout_xattr = _make_whiteout(upper.directory / "gone", prefix)
    with os.scandir(lower) as listing:
        entries = list(listing)
    flags = settings.writable_flags(_Wanted(settings.index != "off", userxattr))
    form, mounted = _mount(place, settings.forms, lower, upper, flags)
    try:
        indexed = (upper.work / "index").is_dir()
        if settings.index == "on" and not indexed:
            raise Unfit(
                f"index=on does not work on {_name(place)} (it has no file handles)",
                "set overlay.index=auto",
            )
        _check_whiteout(mounted)
        stable, fresh, acl = _copy_up(mounted)
    finally:
        os.close(mounted)
    reflink = can_clone(place)
    return entries, Traits(form, userxattr, indexed, whiteout_xattr, stable, fresh, acl, reflink)


@effectful("probe.xattr")
def _needs_userxattr(directory: Path) -> bool:
    """Whether overlay must keep its marks in ``user.``: in a user namespace (Linux 5.11)."""
    try:
        os.setxattr(directory, "trusted.stowage.probe", b"")
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP):
            raise
    else:
        return False
    try:
        os.setxattr(directory, "user.stowage.probe", b"")
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        raise Unfit(
            f"{_name(directory)} keeps no extended attributes",
            "put data-root on ext4, xfs or btrfs",
        ) from error
    return True


@effectful("probe.whiteout")
def _make_whiteout(path: Path, xattr_prefix: str) -> bool:
    """Make a whiteout; return whether it had to be a file with an xattr (Linux 6.7)."""
    try:
        os.mknod(path, stat.S_IFCHR)
    except PermissionError:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
        os.setxattr(path, f"{xattr_prefix}whiteout", b"y")
        os.setxattr(path.parent, f"{xattr_prefix}opaque", b"x")
        return True
    return False


def _mount(
    place: Path, forms: Sequence[str], lower: Path, upper: Upper, flags: Sequence[str]
) -> tuple[str, int]:
    failures: list[OSError] = []
    for form in forms:
        try:
            return form, attach(overlay_mount(form, place, [lower], upper, flags))
        except OSError as error:
            failures.append(error)
    raise _unfit_mount(place, forms, failures) from failures[-1]


def _unfit_mount(place: Path, forms: Sequence[str], failures: Sequence[OSError]) -> Unfit:
    numbers = {failure.errno for failure in failures}
    said = failures[-1].strerror
    if errno.ENODEV in numbers:
        return Unfit("the kernel does not know overlay", "load it with 'modprobe overlay'")
    if errno.EPERM in numbers:
        return Unfit(
            "mounting needs CAP_SYS_ADMIN", "run as root, or give the process CAP_SYS_ADMIN"
        )
    name = _name(place)
    if name in _NEVER_UPPER:
        return Unfit(
            f"overlay cannot write to {name}: {said}",
            "put data-root on ext4, xfs, btrfs or tmpfs",
        )
    if len(forms) < len(FORMS):
        return Unfit(f"mount_form={forms[0]} does not work here: {said}", "set mount_form=auto")
    return Unfit(f"overlay does not mount on {name}: {said}", "see the kernel's log (dmesg)")


def _check_whiteout(mounted: int) -> None:
    try:
        os.stat("gone", dir_fd=mounted)
    except FileNotFoundError:
        pass
    else:
        raise Unfit("the kernel does not honour whiteouts", "use Linux 6.7 or later, or be root")


def _copy_up(mounted: int) -> tuple[bool, bool, bool]:
    """Write to the lower layer's file through the mount, and look.

    Return whether its inode's number stays, whether a descriptor opened before sees what was
    written (Linux 4.19), and whether ACLs are kept.
    """
    reader = os.open("kept", os.O_RDONLY | os.O_CLOEXEC, dir_fd=mounted)
    try:
        before = os.fstat(reader)
        with effect("probe.copy_up"):
            writer = os.open("kept", os.O_WRONLY | os.O_CLOEXEC, dir_fd=mounted)
            try:
                os.write(writer, b"written")
                after = os.fstat(writer)
                acl = keeps_acls(writer)
            finally:
                os.close(writer)
        fresh = os.pread(reader, 7, 0) == b"written"
    finally:
        os.close(reader)
    return (before.st_dev, before.st_ino) == (after.st_dev, after.st_ino), fresh, acl


def _unfit_place(root: Path, error: OSError) -> Unfit:
    if os.geteuid() != 0:
        return Unfit(f"not root: {error.strerror} below {root}", "run as root")
    return Unfit(
        f"overlay cannot be tried below {root}: {error.strerror}",
        "free space there, or choose another data-root",
    )


def _name(path: Path) -> str:
    return filesystem_name(existing(path))
