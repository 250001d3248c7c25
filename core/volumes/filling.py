"""Filling an empty volume with what an image has at its place, all or nothing.

::

    volumes/<name>/
      _data/    what containers see
      _fill/    the copy, until it is whole

The copy is made beside the volume (*copying*). When it is whole (*moving*), its entries are moved
into the volume one by one: a container that has the empty volume mounted already keeps the same
directory. Killed while copying, the copy is thrown away; killed while moving, whoever comes next
moves the rest.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from ..effects import effect
from ..linux.attributes import copy_attributes, make_base
from ..linux.copytree import copy_tree
from ..linux.files import RENAME_NOREPLACE, renameat2
from ..store.erase import erase_path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

#: Records how far a fill is: ``copying``, ``moving``, or None once it is over.
Record = Callable[[str | None], None]


def fill(volume: Path, source: int, record: Record) -> None:
    """Copy the directory *source*, its attributes included, into *volume* if that is empty.

    The caller holds the volume's lock, and no fill of it is unfinished.

    Raises:
        OSError: at the first thing that cannot be copied; the volume is empty as before.
    """
    data, copy = volume / "_data", volume / "_fill"
    if _names(data):
        return
    if not os.listdir(source):
        _like(source, data)
        return
    record("copying")
    try:
        with effect("volume.make_copy", path=copy):
            copy.mkdir(0o700)
        make_base(copy)
        copy_tree(source, copy)
    except BaseException:
        undo(volume, record)
        raise
    record("moving")
    finish(volume, record)


def undo(volume: Path, record: Record) -> None:
    """Throw away a copy that is not whole. Idempotent."""
    erase_path(volume / "_fill")
    record(None)


def finish(volume: Path, record: Record) -> None:
    """Move a whole copy into the volume; what came into it meanwhile stays. Idempotent."""
    data, copy = volume / "_data", volume / "_fill"
    try:
        source = os.open(copy, _DIRECTORY)
    except FileNotFoundError:  # moved, and the kill came before that was recorded
        record(None)
        return
    try:
        target = os.open(data, _DIRECTORY)
        try:
            facts = os.fstat(source)  # moving changes its times
            for name in os.listdir(source):
                _move(source, target, os.fsencode(name))
            copy_attributes(source, target, facts)
        finally:
            os.close(target)
    finally:
        os.close(source)
    undo(volume, record)


def _move(source: int, target: int, name: bytes) -> None:
    try:
        renameat2(source, name, target, name, RENAME_NOREPLACE)
    except OSError as error:
        if error.errno != errno.EEXIST:  # a container has made it meanwhile
            raise


def _like(source: int, data: Path) -> None:
    target = os.open(data, _DIRECTORY)
    try:
        copy_attributes(source, target, os.fstat(source))
    finally:
        os.close(target)


def _names(directory: Path) -> list[str]:
    return os.listdir(directory)
