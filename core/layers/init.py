"""The init snapshot: mount targets between an image and its containers.

A runtime makes the directories and files that it mounts things on. Made in the container's own
snapshot they would show in ``diff`` and be committed; so they are made once in a committed
snapshot of their own, which all containers of the same image and targets share.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress

from msgspec.structs import replace

from ..effects import effect
from ..errors import AlreadyExists, FailedPrecondition, InvalidArgument
from ..linux.paths import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2
from ..model import Kind
from . import rows
from .attach import attach, open_root
from .building import Draft, begin, dropped_on_error
from .committing import commit_draft
from .context import StoreContext

Target = str | bytes
"""``"dir"``, ``"file"``, or the text of a symlink."""

LABEL = "stowage.init"
"""Label of init snapshots; no image names them."""

_MOST_LINKS = 40  # as the kernel's own limit (path_resolution(7))
_BENEATH = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS


def init_snapshot(
    context: StoreContext, driver: str, parent: str | None, targets: Mapping[bytes, Target]
) -> str | None:
    """Return the name of a committed snapshot like *parent* that has all *targets*.

    It is *parent* itself if nothing is missing there. Safe against others who make the same.

    Raises:
        NotFound, InvalidArgument: if the parent does not exist or is not committed.
        FailedPrecondition: if a target leads through something that is not a directory.
    """
    name = _name(parent, targets)
    if rows.find(context.metastore.read(), driver, name) is not None:
        return name
    missing = _missing(context, driver, parent, targets)
    if parent is not None and not missing:
        return parent
    draft = begin(context, driver, f"{name}-{os.urandom(6).hex()}", parent, Kind.ACTIVE)
    with dropped_on_error(context, draft):
        _make_all(context, draft, missing)
    with suppress(AlreadyExists):  # another process was quicker
        commit_draft(context, draft, name, {LABEL: "true"})
    return name


def _name(parent: str | None, targets: Mapping[bytes, Target]) -> str:
    said = [parent, sorted((path.hex(), _text(target)) for path, target in targets.items())]
    return "init-" + hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _text(target: Target) -> str:
    if isinstance(target, bytes):
        return target.hex()
    return target if target in ("dir", "file") else os.fsencode(target).hex()


def _missing(
    context: StoreContext, driver: str, parent: str | None, targets: Mapping[bytes, Target]
) -> dict[bytes, Target]:
    above = rows.parent_for(context.metastore.read(), driver, parent)
    if above is None:
        return dict(targets)
    with attach(context, above) as attached:
        return {
            path: target
            for path, target in targets.items()
            if not _exists(attached.root, path, target)
        }


def _make_all(context: StoreContext, draft: Draft, missing: Mapping[bytes, Target]) -> None:
    row = draft.row
    context.metastore.transact(lambda tx: rows.set_content(tx, row.id, "written"))
    draft.row = replace(row, content="written")
    root = open_root(context, row, read_only=False)
    try:
        for path in sorted(missing):
            _make(root, path, missing[path])
    finally:
        os.close(root)


def _exists(root: int, path: bytes, target: Target) -> bool:
    found = resolve(root, path, follow_last=target in ("dir", "file"))
    return found is not None and _lstat(root, found) is not None


def _make(root: int, path: bytes, target: Target) -> None:
    """Make a target; its missing parents are directories 0755."""
    follow = target in ("dir", "file")
    found = resolve(root, path, follow_last=follow)
    if found is None:
        raise FailedPrecondition(
            f"mount target {os.fsdecode(path)!r} leads through a file or a loop of symlinks"
        )
    for depth in range(1, len(found)):
        _make_one(root, found[:depth], "dir")
    _make_one(root, found, target)


def _make_one(root: int, parts: list[bytes], target: Target) -> None:
    if not parts or _lstat(root, parts) is not None:
        return
    parent = openat2(root, _join(parts[:-1]), os.O_RDONLY | os.O_DIRECTORY, 0, _BENEATH)
    name = parts[-1]
    try:
        with effect("init.create", path=_join(parts)):
            if target == "dir":
                os.mkdir(name, 0o755, dir_fd=parent)
                os.chmod(name, 0o755, dir_fd=parent)
            elif target == "file":
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                descriptor = os.open(name, flags, 0o644, dir_fd=parent)
                os.fchmod(descriptor, 0o644)
                os.close(descriptor)
            else:
                os.symlink(os.fsencode(target), name, dir_fd=parent)
    finally:
        os.close(parent)


def resolve(root: int, path: bytes, *, follow_last: bool = True) -> list[bytes] | None:
    """Return the names that lead to *path* within *root* without any symlink.

    Symlinks are followed as if *root* were ``/``; from the first name on that does not exist the
    rest is taken as it is. None if the way leads through something that is not a directory. For
    a tree that nobody else changes meanwhile; what is made then is made beneath the root only.
    """
    todo = _split(path)
    done: list[bytes] = []
    links = 0
    while todo:
        name = todo.pop(0)
        if name == b"..":
            done = done[:-1]
            continue
        facts = _lstat(root, [*done, name])
        if facts is not None and stat.S_ISLNK(facts.st_mode) and (todo or follow_last):
            links += 1
            if links > _MOST_LINKS:
                return None
            text = _readlink(root, done, name)
            done = [] if text.startswith(b"/") else done
            todo = _split(text) + todo
            continue
        if facts is not None and todo and not stat.S_ISDIR(facts.st_mode):
            return None
        done.append(name)
    return done


def _split(path: bytes) -> list[bytes]:
    if b"\0" in path:
        raise InvalidArgument(f"invalid mount target {path!r}")
    return [name for name in path.split(b"/") if name not in (b"", b".")]


def _join(parts: list[bytes]) -> bytes:
    return b"/".join(parts) or b"."


def _readlink(root: int, parents: list[bytes], name: bytes) -> bytes:
    parent = openat2(root, _join(parents), os.O_PATH | os.O_DIRECTORY, 0, _BENEATH)
    try:
        return os.readlink(name, dir_fd=parent)
    finally:
        os.close(parent)


def _lstat(root: int, parts: list[bytes]) -> os.stat_result | None:
    try:
        flags = os.O_PATH | os.O_NOFOLLOW
        descriptor = openat2(root, _join(parts), flags, 0, RESOLVE_BENEATH)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)
