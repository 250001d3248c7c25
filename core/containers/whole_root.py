"""A container's root as it sees it itself, with what is mounted there: for copying in and out.

The root is cloned from the container's own mount namespace if it runs, else attached; clones of
its binds, volumes and file systems in memory go on top of it, in a mount namespace that nobody
else is in and that goes with its descriptor. Docker's own mounts (/proc, /sys, /dev) are absent.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ..linux.mount import clone_tree, enter_own_namespace, make_read_only, move
from ..linux.namespaces import in_mount_namespace, on_throwaway_thread, open_namespace
from ..linux.paths import open_in_root
from .context import Context
from .model import ContainerRecord
from .processes import mount_namespace
from .volume_use import all_binds

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NAME_FILES = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")


@contextmanager
def whole_root(context: Context, record: ContainerRecord) -> Iterator[int]:
    """Give a descriptor of a container's root, running or not; what is written there stays.

    Raises:
        Busy: if somebody works on the root of one that does not run.
    """
    with ExitStack() as stack:
        root, extras = _parts(context, record, stack)
        place = context.root.layout.containers
        namespace, opened = on_throwaway_thread(lambda: _assemble(root, extras, place))
        stack.callback(os.close, namespace)
        stack.callback(os.close, opened)
        yield opened


def _parts(
    context: Context, record: ContainerRecord, stack: ExitStack
) -> tuple[int, list[tuple[int, str]]]:
    """Return detached mounts: the root, and what goes where on it; closed with *stack*."""
    namespace = stack.enter_context(mount_namespace(context, record))
    if namespace is not None:
        targets = [*(mount.target for mount in record.spec.mounted), *_NAME_FILES]
        root, extras = in_mount_namespace(namespace, lambda: _clones(targets))
        for descriptor in (root, *(clone for clone, _ in extras)):
            stack.callback(os.close, descriptor)
        return root, extras
    attached = context.root.layers.attached(record.snapshot, driver=record.driver)
    root = stack.enter_context(attached)
    extras = []
    for bind in all_binds(context, record.spec):
        try:
            clone = clone_tree(bind.source, recursive=bind.recursive)
        except FileNotFoundError:  # made when it starts
            continue
        stack.callback(os.close, clone)
        if bind.read_only:
            make_read_only(clone)
        extras.append((clone, bind.target))
    return root, extras


def _clones(targets: list[str]) -> tuple[int, list[tuple[int, str]]]:
    """Clone the root and the mounts at *targets*, in the container's namespace."""
    extras: list[tuple[int, str]] = []
    try:
        for target in targets:
            try:
                extras.append((clone_tree(target, recursive=True), target))
            except OSError as error:  # unmounted or moved inside
                if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL):
                    raise
        return clone_tree("/"), extras
    except BaseException:
        for descriptor, _ in extras:
            os.close(descriptor)
        raise


def _assemble(root: int, extras: list[tuple[int, str]], place: Path) -> tuple[int, int]:
    """Attach all of it in a new namespace; returns that and the root in it."""
    enter_own_namespace()
    move(root, place)
    opened = os.open(place, _DIRECTORY)
    try:
        for clone, target in sorted(extras, key=lambda extra: extra[1].count("/")):
            _attach(opened, clone, target)
        return open_namespace("mnt"), opened
    except BaseException:
        os.close(opened)
        raise


def _attach(root: int, clone: int, target: str) -> None:
    try:
        point = open_in_root(root, os.fsencode(target), os.O_PATH)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return
        raise
    try:
        move(clone, "", dirfd=point)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.EINVAL):  # a file where a directory is
            raise
    finally:
        os.close(point)
