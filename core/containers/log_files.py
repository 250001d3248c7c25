"""The files of one log: ``ctr.log``, which is written, and before it ``ctr.log.1``, ``.2``, ….

A rotation (:mod:`.rotation`) gives every file the next number and has conmon begin ``ctr.log``
anew, at any time while somebody reads. So files are told by device and inode: whoever looks from
the newest on misses none, for a file only ever moves to where he looks next.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_CHUNK_BYTES = 1 << 16


def rotated(path: Path, number: int) -> Path:
    """Return the *number*-th file before *path*, which is number 0 itself."""
    return path if number == 0 else path.with_name(f"{path.name}.{number}")


def rotated_numbers(path: Path) -> list[int]:
    """Return the numbers of the files before *path* that exist, newest first."""
    prefix = f"{path.name}."
    try:
        names = os.listdir(path.parent)
    except FileNotFoundError:
        return []
    tails = (name.removeprefix(prefix) for name in names if name.startswith(prefix))
    return sorted(int(tail) for tail in tails if tail.isdigit())


class LogFiles:
    """Reads a log from its oldest byte on; close it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files: list[BinaryIO] = []

    def close(self) -> None:
        """Close what is open. Idempotent."""
        for file in self._files:
            file.close()
        self._files = []

    def newest(self) -> BinaryIO | None:
        """Open what there is now and return the newest file."""
        self._files = self._files or self._newer(None)
        return self._files[-1] if self._files else None

    def start_at(self, offset: int) -> None:
        """Read nothing before *offset* in the newest file."""
        for file in self._files[:-1]:
            file.close()
        del self._files[:-1]
        self._files[0].seek(offset)

    def chunks(self) -> Iterator[bytes]:
        """Yield what has been written since the last call, oldest first."""
        if not self._files:
            self._files = self._newer(None)
        while self._files:
            current = self._files[0]
            yield from _rest(current)
            if len(self._files) == 1:
                self._files += self._newer(current)
                if len(self._files) == 1:
                    return
                yield from _rest(current)  # it is whole since there is a newer one
            current.close()
            del self._files[0]

    def _newer(self, last: BinaryIO | None) -> list[BinaryIO]:
        """Open the files that are newer than *last*, oldest first."""
        known = set() if last is None else {_identity(last)}
        found: list[BinaryIO] = []
        most = max(rotated_numbers(self._path), default=0)
        for number in range(most + 3):  # a rotation or two may happen meanwhile
            try:
                file = open(rotated(self._path, number), "rb")  # noqa: SIM115  # kept open
            except FileNotFoundError:
                continue
            identity = _identity(file)
            if last is not None and identity == _identity(last):
                file.close()
                break
            if identity in known:
                file.close()
                continue
            known.add(identity)
            found.append(file)
        return found[::-1]


def _identity(file: BinaryIO) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino


def _rest(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk
