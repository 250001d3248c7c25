"""Subvolumes that somebody made inside a snapshot: found without a walk, deleted, made plain.

A container may hold some (it ran btrfs, Docker or systemd-nspawn). A snapshot of it would show
an empty directory in the place of each, and none can be unlinked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from stowage import effect
from stowage.linux.attributes import make_base
from stowage.linux.copytree import copy_tree
from stowage.linux.files import RENAME_EXCHANGE, renameat2
from stowage.linux.paths import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2

from . import _tree as tree
from ._ioctl import (
    delete_subvolume,
    directory_path,
    is_read_only,
    set_read_only,
    subvolume_info,
)

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
_COPY = b".stowage-nested-copy"


def nested(root: int) -> list[tuple[bytes, bytes]]:
    """Return the subvolumes that stand directly in the one at *root*: directory's path, name."""
    number = subvolume_info(root).number
    return [
        (directory_path(root, above) if above != tree.TOP_INODE else b"", name)
        for above, name in tree.subvolumes_below(root, number)
    ]


def delete_tree(parent: int, name: bytes) -> None:
    """Delete the subvolume *name* of the directory *parent*, and first those inside it."""
    root = os.open(name, _DIRECTORY, dir_fd=parent)
    try:
        inside = nested(root)
        if inside and is_read_only(root):
            set_read_only(root, False)
        for above, below in inside:
            with _opened(root, above) as directory:
                delete_tree(directory, below)
    finally:
        os.close(root)
    delete_subvolume(parent, name)


def make_plain(root: int) -> None:
    """Put a directory in the place of each subvolume inside *root*: same content, by reflink.

    Idempotent, and whole at every moment: a copy takes the place once it is complete.
    """
    for above, name in nested(root):
        with _opened(root, above) as directory, _keeping_times(directory):
            if name != _COPY:
                _remove_copy(directory)
                _copy(directory, name, _COPY, directory)
                renameat2(directory, name, directory, _COPY, RENAME_EXCHANGE)
            delete_tree(directory, _COPY)


def fill_in(source: int, snapshot: int) -> None:
    """Put copies of the subvolumes inside *source* where its fresh *snapshot* has but an empty
    directory."""
    for above, name in nested(source):
        with (
            _opened(source, above) as reading,
            _opened(snapshot, above) as writing,
            _keeping_times(writing),
        ):
            with effect("btrfs.nested.remove", path=name):
                os.rmdir(name, dir_fd=writing)
            _copy(reading, name, name, writing)


def _copy(reading: int, name: bytes, target: bytes, writing: int) -> None:
    with effect("btrfs.nested.copy", path=name):
        os.mkdir(target, 0o700, dir_fd=writing)
        source = os.open(name, _DIRECTORY, dir_fd=reading)
        try:
            copy = os.open(target, _DIRECTORY, dir_fd=writing)
            try:
                make_base(copy)
                copy_tree(source, copy)
            finally:
                os.close(copy)
        finally:
            os.close(source)


def _remove_copy(directory: int) -> None:
    """Remove what a killed process left; of a subvolume, ``nested`` told."""
    from stowage.linux.files import remove_tree

    remove_tree(f"/proc/self/fd/{directory}/{os.fsdecode(_COPY)}")


@contextmanager
def _opened(root: int, path: bytes) -> Iterator[int]:
    descriptor = openat2(root, path or b".", _DIRECTORY, 0, _RESOLVE)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _keeping_times(directory: int) -> Iterator[None]:
    facts = os.fstat(directory)
    yield
    with effect("btrfs.nested.times", directory=directory):
        os.utime(directory, ns=(facts.st_atime_ns, facts.st_mtime_ns))
