"""The process that rotates the logs of one root's containers: ``python -m … DIRECTORY``.

It sleeps until a log is written to or a wish comes or goes (inotify), holds the lock of the
directory of wishes, and ends when that is empty. It opens no database and imports next to
nothing, for it lives long.

Killed at any point, the next one goes on: files are only renamed, oldest first, and where
``ctr.log`` is missing conmon has not been told to begin it anew. Until then conmon writes on to
the file that it has open, whatever its name, so no line is lost or doubled.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import sys
import time
from pathlib import Path
from typing import NamedTuple

from ..effects import effect
from ..linux.inotify import (
    IN_DELETE,
    IN_DELETE_SELF,
    IN_MODIFY,
    IN_MOVED_TO,
    IN_ONESHOT,
    Inotify,
)
from .log_files import rotated, rotated_numbers

#: How long it waits after a write before it looks: a busy log wakes it no more often.
_PAUSE_SECONDS = 0.02
_REOPEN_SECONDS = 5.0
_REOPEN = b"2 0 0\n"  # REOPEN_LOGS_EVENT; the two sizes belong to the form (conmon's src/ctrl.c)


class Wish(NamedTuple):  # a dataclass would cost two megabytes for as long as this lives
    """One log that is to be rotated; *control* is conmon's fifo."""

    log: Path
    control: Path
    max_size_bytes: int
    max_files: int

    @classmethod
    def read(cls, path: Path) -> Wish | None:
        """Return the wish in a file; None if it is gone or no wish."""
        try:
            plain = json.loads(path.read_text())
            return cls(
                Path(plain["log"]), Path(plain["control"]),
                plain["max_size_bytes"], plain["max_files"],
            )  # fmt: skip
        except (OSError, ValueError, KeyError):
            return None


def rotate(wish: Wish) -> None:
    """Begin a log anew if it is large enough, or if that was begun and not finished."""
    try:
        if wish.log.stat().st_size < wish.max_size_bytes:
            return
    except FileNotFoundError:
        if not rotated_numbers(wish.log):
            return
    else:
        _make_room(wish)
        with effect("log.rename", path=wish.log):
            wish.log.rename(rotated(wish.log, 1))
    if _told_to_reopen(wish):
        _wait_until_reopened(wish)
    _drop(wish)


def _make_room(wish: Wish) -> None:
    """Give every older file the next number; the oldest one's place is taken."""
    for number in reversed(rotated_numbers(wish.log)):
        with effect("log.rename", path=wish.log, number=number):
            rotated(wish.log, number).rename(rotated(wish.log, number + 1))


def _drop(wish: Wish) -> None:
    """Remove what is more than the files that are to be kept, oldest first."""
    older = wish.max_files - wish.log.exists()  # there is none if conmon ended meanwhile
    for number in reversed(rotated_numbers(wish.log)):
        if number > older:
            with effect("log.remove", path=wish.log, number=number):
                rotated(wish.log, number).unlink(missing_ok=True)


def _told_to_reopen(wish: Wish) -> bool:
    """Have conmon begin the log anew; False if it has ended meanwhile."""
    try:
        control = os.open(wish.control, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENXIO):
            raise
        return False
    try:
        with effect("log.reopen", path=wish.log):
            os.write(control, _REOPEN)
    finally:
        os.close(control)
    return True


def _wait_until_reopened(wish: Wish) -> None:
    """Wait until the new log is there, or conmon has ended and there will be none."""
    deadline = time.monotonic() + _REOPEN_SECONDS
    while not wish.log.exists() and wish.control.exists() and time.monotonic() < deadline:
        time.sleep(0.001)


def main(directory: Path) -> int:
    """Rotate until there is nothing to rotate any more."""
    while _serve(directory) and _wishes(directory):
        pass  # one that came while the lock was given up
    return 0


def _serve(directory: Path) -> bool:
    """Work until the directory is empty; False if somebody else does, or it is gone."""
    try:
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        try:
            with effect("rotation.lock"):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        _watch(directory)
        return True
    finally:
        os.close(lock)


def _watch(directory: Path) -> None:
    inotify = Inotify()
    try:
        inotify.add(directory, IN_MOVED_TO | IN_DELETE | IN_DELETE_SELF)
        while wishes := _wishes(directory):
            for wish in wishes:
                _look(inotify, wish)
            poller = select.poll()
            poller.register(inotify.descriptor, select.POLLIN)
            poller.poll()
            time.sleep(_PAUSE_SECONDS)
            inotify.read()
    finally:
        inotify.close()


def _look(inotify: Inotify, wish: Wish) -> None:
    """Wait for the next write first: what is written while we look wakes us again."""
    for step in (
        lambda: inotify.add(wish.log, IN_MODIFY | IN_ONESHOT),
        lambda: rotate(wish),
        lambda: inotify.add(wish.log, IN_MODIFY | IN_ONESHOT),  # a new one, perhaps
    ):
        try:
            step()
        except OSError:  # there is none, its container is going, or the disk is full
            pass


def _wishes(directory: Path) -> list[Wish]:
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    read = (Wish.read(directory / name) for name in names if not name.startswith("."))
    return [wish for wish in read if wish is not None]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
