"""Owner, mode, xattrs and times of one inode, carried over to another.

The order matters: chown clears setuid bits and file capabilities, and an access ACL is also the
mode's group bits; times come last, since all else changes them.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from ..effects import effectful


@effectful("attributes.copy")
def copy_attributes(
    source: int,
    target: int,
    facts: os.stat_result,
    *,
    fresh: bool = False,
    skip_prefix: str = "",
) -> None:
    """Give the inode behind *target* the attributes of the one behind *source*.

    Both are descriptors, *facts* are of *source*. Xattrs that only *target* has are removed,
    but for those that security modules own; a *fresh* file is taken to have none. Names below
    *skip_prefix* are left alone on both: an overlay's own marks, but not what it has escaped
    because it is content (overlayfs.rst, "Nested overlayfs mounts").
    """
    current = os.fstat(target)
    given = (current.st_uid, current.st_gid) != (facts.st_uid, facts.st_gid)
    if given:
        os.chown(target, facts.st_uid, facts.st_gid)
    if given or current.st_mode != facts.st_mode:
        os.chmod(target, stat.S_IMODE(facts.st_mode))
    wanted = _names(source, skip_prefix)
    if not fresh:
        for name in _names(target, skip_prefix) - wanted:
            if not name.startswith("security."):
                os.removexattr(target, name)
    for name in wanted:
        os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(facts.st_atime_ns, facts.st_mtime_ns))


@effectful("attributes.copy")
def copy_attributes_at(
    source: int, target: int, name: str, facts: os.stat_result, *, target_name: str | None = None
) -> None:
    """Do the same for what must not or cannot be opened: symlinks, devices, fifos, sockets.

    *source* and *target* are the directories that hold *name*, which is new in *target* (and is
    *target_name* there, if that is another).
    """
    new = name if target_name is None else target_name
    os.chown(new, facts.st_uid, facts.st_gid, dir_fd=target, follow_symlinks=False)
    if not stat.S_ISLNK(facts.st_mode):
        os.chmod(new, stat.S_IMODE(facts.st_mode), dir_fd=target)
    # There is no *at call for xattrs before Linux 6.13; the directory's descriptor serves.
    reading, writing = f"/proc/self/fd/{source}/{name}", f"/proc/self/fd/{target}/{new}"
    for attribute in _names(reading, ""):
        value = os.getxattr(reading, attribute, follow_symlinks=False)
        os.setxattr(writing, attribute, value, follow_symlinks=False)
    times = (facts.st_atime_ns, facts.st_mtime_ns)
    os.utime(new, ns=times, dir_fd=target, follow_symlinks=False)


@effectful("attributes.base")
def make_base(target: int | Path) -> None:
    """Make the directory *target* what a base is: 0755, owned by 0:0, no ACLs.

    What it inherited from its parent directory (umask, setgid, default ACL) is taken off. Who
    is not root keeps the owner that the file system gave it.
    """
    if os.geteuid() == 0:
        os.chown(target, 0, 0)
    for name in _names(target, ""):
        if name.startswith("system.posix_acl_"):
            os.removexattr(target, name)
    os.chmod(target, 0o755)


def _names(inode: int | str | Path, skip_prefix: str) -> set[str]:
    try:
        names = os.listxattr(inode, follow_symlinks=isinstance(inode, int))
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return set()
    if skip_prefix:
        return {
            name
            for name in names
            if not name.startswith(skip_prefix) or name.startswith(f"{skip_prefix}overlay.")
        }
    return set(names)
