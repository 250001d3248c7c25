"""Who a container's process runs as: ``--user`` looked up in the container's own passwd and group.

The files are read beneath the root's descriptor (openat2, in root), so that no symlink of an
image leads to the host's. The rules are runc's (libcontainer/user), the texts Docker's.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from ..errors import InvalidArgument
from ..linux.paths import open_in_root

_MAXIMUM_ID = (1 << 31) - 1
_MAXIMUM_FILE_BYTES = 4 << 20


class Account(Struct, frozen=True):
    """A resolved user; *home* is from passwd, else ``/``."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = "/"


def resolve_user(root: int, text: str) -> Account:
    """Return the account that *text* (``name|uid[:group|gid]``, empty for 0) means in *root*.

    A number need not be in the files. Without a group the user's own and those that list it
    are taken.

    Raises:
        InvalidArgument: for a name or an id that cannot be ("unable to find user …").
    """
    user, _, group = text.partition(":")
    entry = _find_user(root, user)
    number = _number(user or "0")
    if entry is None and number is None:
        raise InvalidArgument(f"unable to find user {user}: no matching entries in passwd file")
    if entry is not None:
        name, uid, gid, home = entry
    else:
        assert number is not None
        name, uid, gid, home = "", _checked(number), 0, "/"
    if group:
        return Account(uid, _find_group(root, group), (), home)
    return Account(uid, gid, tuple(_memberships(root, name)) if name else (), home)


def with_groups(root: int, account: Account, names: Sequence[str]) -> Account:
    """Return *account* as a member of further groups (``--group-add``), by name or number.

    Raises:
        InvalidArgument: for a group that does not exist.
    """
    if not names:
        return account
    added = (_find_group(root, name) for name in names)
    return replace(account, groups=(*account.groups, *added))


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def _checked(number: int) -> int:
    if number > _MAXIMUM_ID:
        raise InvalidArgument("uids and gids must be in range 0-2147483647")
    return number


def _find_user(root: int, user: str) -> tuple[str, int, int, str] | None:
    """Look for a name, or for a number in the third field; the first line that matches."""
    wanted = _number(user or "0")
    for fields in _lines(root, b"/etc/passwd", 4):
        uid, gid = _number(fields[2]), _number(fields[3])
        if uid is None or gid is None:
            continue
        if fields[0] == user or (wanted is not None and uid == wanted):
            home = fields[5] if len(fields) > 5 else ""
            return fields[0], _checked(uid), _checked(gid), home or "/"
    return None


def _find_group(root: int, group: str) -> int:
    wanted = _number(group)
    for fields in _lines(root, b"/etc/group", 3):
        gid = _number(fields[2])
        if gid is not None and (fields[0] == group or gid == wanted):
            return _checked(gid)
    if wanted is None:
        raise InvalidArgument(f"unable to find group {group}: no matching entries in group file")
    return _checked(wanted)


def _memberships(root: int, name: str) -> Iterator[int]:
    for fields in _lines(root, b"/etc/group", 4):
        gid = _number(fields[2])
        if gid is not None and name in fields[3].split(","):
            yield gid


def _lines(root: int, path: bytes, least: int) -> Iterator[list[str]]:
    """Yield the fields of each line; nothing where there is no such regular file."""
    try:
        descriptor = open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return
        text = file.read(_MAXIMUM_FILE_BYTES).decode(errors="surrogateescape")
    for line in text.splitlines():
        fields = line.strip().split(":")
        if len(fields) >= least:
            yield fields
