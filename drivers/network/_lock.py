"""One lock per root over what its drivers make on the host's network.

Those who add or remove one thing share it; who compares all that there is with all that is
recorded holds it alone, so that nothing appears between the two looks.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stowage import effect


class NetworkLock:
    """A ``flock`` on ``network.lock`` in a root's exec directory; gone with its holder."""

    def __init__(self, exec_root: Path) -> None:
        self._path = exec_root / "network.lock"

    @contextmanager
    def shared(self) -> Iterator[None]:
        with self._held(fcntl.LOCK_SH):
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._held(fcntl.LOCK_EX):
            yield

    @contextmanager
    def _held(self, mode: int) -> Iterator[None]:
        descriptor = self._open()
        try:
            with effect("lock.take", path=self._path):
                fcntl.flock(descriptor, mode)
            yield
        finally:
            os.close(descriptor)

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        try:
            return self._create(flags)
        except FileNotFoundError:
            with effect("directory.create", path=self._path.parent):
                self._path.parent.mkdir(parents=True, exist_ok=True)
            return self._create(flags)

    def _create(self, flags: int) -> int:
        with effect("lock.create", path=self._path):
            return os.open(self._path, flags, 0o600)
