"""Control groups in all three layouts: v1, hybrid (v1 beside a v2 tree) and unified (v2).

A :class:`Cgroup` is one path (``/stowage/<root>/<container>``) in every hierarchy at once. Empty
parents are removed only by rmdir(2), which refuses while somebody lives below, and a leaf is
made again when its parent vanished in between, so no lock is needed between processes.
Sources: Documentation/admin-guide/cgroup-v1/*.rst and cgroup-v2.rst.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Literal

from msgspec import Struct

from ..effects import effect
from .mountinfo import read_mountinfo

Layout = Literal["v1", "hybrid", "v2", "none"]

_GONE = {errno.ENOENT, errno.ENODEV, errno.ENOTDIR}
_RETRIES = 50
_HOLD_SECONDS = 1.0


class Hierarchies(Struct, frozen=True):
    """Where this machine's hierarchies are mounted; *unified* is the v2 one, if there is any."""

    v1: tuple[str, ...]
    unified: str | None

    @property
    def layout(self) -> Layout:
        if self.unified is None:
            return "v1" if self.v1 else "none"
        return "hybrid" if self.v1 else "v2"

    @property
    def all(self) -> tuple[str, ...]:
        return (*self.v1, self.unified) if self.unified else self.v1


@lru_cache(maxsize=1)
def hierarchies() -> Hierarchies:
    """Return the cgroup mounts of this process's mount namespace; read once."""
    v1: dict[str, str] = {}
    unified = None
    for entry in read_mountinfo():
        if entry.root != "/":  # a part of a hierarchy, bind-mounted elsewhere
            continue
        if entry.type == "cgroup":
            v1.setdefault(",".join(sorted(entry.super_options)), entry.target)
        elif entry.type == "cgroup2" and unified is None:
            unified = entry.target
    return Hierarchies(tuple(v1.values()), unified)


@contextmanager
def _gone_is_not_found(path: str) -> Iterator[None]:
    """A file of a cgroup that is removed while it is open gives ENODEV; say ENOENT as before."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error


class _Freezer(Struct, frozen=True):
    """Where a cgroup's freezer is written and read, and in which words."""

    control: str
    state: str
    words: tuple[str, str]
    sign: str

    def set(self, *, frozen: bool) -> None:
        with _gone_is_not_found(self.control):
            Path(self.control).write_text(self.words[frozen])

    @property
    def frozen(self) -> bool:
        with _gone_is_not_found(self.state):
            state = Path(self.state).read_text()
        if self.sign in state:
            return True
        if self.control == self.state and "FREEZING" in state:
            self.set(frozen=True)  # freezer-subsystem.rst: write again while FREEZING
        return False


class Cgroup(Struct, frozen=True):
    """One cgroup *path* (absolute, ``/stowage/…``) in every hierarchy.

    *kept_parent* and what is above it belong to somebody else and are never removed.
    """

    path: str
    kept_parent: str = "/"

    def directories(self) -> Iterator[str]:
        """Yield its directory in each hierarchy that has it."""
        for base in hierarchies().all:
            directory = base + self.path
            if os.path.isdir(directory):
                yield directory

    def make(self, *, skip: Sequence[str] = ()) -> None:
        """Make the cgroup in every hierarchy but those mounted at *skip*. Idempotent."""
        for base in hierarchies().all:
            if base not in skip:
                _make(base + self.path)

    def processes(self) -> set[int]:
        """Return the pids in it and below, in any hierarchy; empty when it is gone."""
        return {pid for directory in self.directories() for pid in _processes(directory)}

    @property
    def populated(self) -> bool:
        """Whether any process is in it."""
        return any(True for directory in self.directories() for _ in _processes(directory))

    def freeze(self, *, timeout_seconds: float = 10.0) -> None:
        """Stop every process in it and return once they stand still.

        Raises:
            FileNotFoundError: if it does not exist.
            TimeoutError: if some did not stop in time; then nothing is frozen.
        """
        freezer = self._freezer()
        deadline = time.monotonic() + timeout_seconds
        with effect("cgroup.freeze", path=self.path):
            freezer.set(frozen=True)
        while not freezer.frozen:
            if time.monotonic() > deadline:
                self.thaw()
                raise TimeoutError(errno.ETIMEDOUT, f"cgroup {self.path} did not freeze")
            time.sleep(0.001)

    def thaw(self) -> None:
        """Let its processes run on. Idempotent.

        Raises:
            FileNotFoundError: if it does not exist.
        """
        with effect("cgroup.thaw", path=self.path):
            self._freezer().set(frozen=False)

    @property
    def frozen(self) -> bool:
        """Whether its processes stand still."""
        try:
            return self._freezer().frozen
        except FileNotFoundError:
            return False

    def _freezer(self) -> _Freezer:
        known = hierarchies()
        for base in known.v1:
            state = f"{base}{self.path}/freezer.state"
            if os.path.exists(state):
                return _Freezer(state, state, ("THAWED", "FROZEN"), "FROZEN")
        directory = f"{known.unified}{self.path}"
        if known.unified is None or not os.path.exists(f"{directory}/cgroup.freeze"):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.path)
        return _Freezer(
            f"{directory}/cgroup.freeze", f"{directory}/cgroup.events", ("0", "1"), "frozen 1"
        )

    def kill(self, *, timeout_seconds: float = 10.0) -> None:
        """Kill every process in it and return once none is left. Idempotent.

        Raises:
            TimeoutError: if processes are still there after that time (stuck in the kernel).
        """
        deadline = time.monotonic() + timeout_seconds
        while self._kill_once():
            if time.monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, f"processes of {self.path} do not die")
            time.sleep(0.002)

    def _kill_once(self) -> bool:
        """Send SIGKILL to all of it; False when nobody was there."""
        if not self.populated:
            return False
        with effect("cgroup.kill", path=self.path):
            for directory in self.directories():
                try:
                    Path(directory, "cgroup.kill").write_text("1")  # v2, Linux 5.14
                except OSError:
                    pass
            if hierarchies().v1 and self.populated:
                self._hold()
            for pid in self.processes():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            try:
                self.thaw()  # a frozen process of v1 dies only once it thaws
            except OSError:
                pass
        return True

    def _hold(self) -> None:
        """Freeze it for a kill: what forks faster than pids are read would outrun the signals."""
        try:
            self.freeze(timeout_seconds=_HOLD_SECONDS)
        except OSError:  # no freezer here, or one is stuck in the kernel: kill what can be
            pass

    def remove(self) -> None:
        """Remove it with all that is below, and its parents as far as they are empty.

        Idempotent. Parents that others use stay. Where one hierarchy refuses, it goes from the
        others all the same.

        Raises:
            OSError: EBUSY if a process is in it; the first one's, where several refuse.
        """
        failures: list[OSError] = []
        for base in hierarchies().all:
            try:
                with effect("cgroup.remove", path=base + self.path):
                    _remove_tree(base + self.path)
                    _remove_parents(base, os.path.dirname(self.path), self.kept_parent)
            except OSError as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def children(self) -> set[str]:
        """Return the names of the cgroups right below it, in any hierarchy."""
        names: set[str] = set()
        for directory in self.directories():
            try:
                names.update(entry.name for entry in os.scandir(directory) if entry.is_dir())
            except OSError:
                pass
        return names


def _make(directory: str) -> None:
    for _ in range(_RETRIES):
        with effect("cgroup.make", path=directory):
            try:
                os.mkdir(directory)
            except FileExistsError:
                return
            except FileNotFoundError:  # a parent is missing, or was just removed as empty
                _make_parents(os.path.dirname(directory))
            else:
                return
    raise OSError(errno.EBUSY, "the parents of a new cgroup vanish again and again", directory)


def _make_parents(directory: str) -> None:
    try:
        os.makedirs(directory, exist_ok=True)
    except FileNotFoundError:
        pass  # the caller tries again


def _processes(directory: str) -> Iterator[int]:
    try:
        with open(os.path.join(directory, "cgroup.procs")) as file:
            yield from map(int, file)
        below = [entry.path for entry in os.scandir(directory) if entry.is_dir()]
    except OSError as error:
        if error.errno in _GONE or error.errno == errno.EOPNOTSUPP:  # threaded v2 cgroup
            return
        raise
    for child in below:
        yield from _processes(child)


def _remove_tree(directory: str) -> None:
    try:
        below = [entry.path for entry in os.scandir(directory) if entry.is_dir()]
        for child in below:
            _remove_tree(child)
        _rmdir_when_empty(directory)
    except OSError as error:
        if error.errno not in _GONE:
            raise


def _remove_parents(base: str, parent: str, kept: str) -> None:
    while parent not in ("/", kept):
        try:
            os.rmdir(base + parent)
        except OSError:
            return
        parent = os.path.dirname(parent)


def _rmdir_when_empty(directory: str) -> None:
    """rmdir(2), given a moment: a process that was just reaped may still be counted."""
    for _ in range(_RETRIES):
        try:
            os.rmdir(directory)
        except OSError as error:
            if error.errno != errno.EBUSY or any(True for _ in _processes(directory)):
                raise
            time.sleep(0.002)
        else:
            return
    os.rmdir(directory)
