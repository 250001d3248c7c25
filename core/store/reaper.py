"""The reaper: deletes what lies in the trash, in the background and in any process.

One daemon thread per open root, started when there is something to do and ending when there is
not. A short-lived process waits for it only as long as :meth:`Reaper.close` allows; the rest stays
in the trash and the next process that opens the root goes on, so that a command never waits for a
big layer, and none needs a daemon. ``stowage gc`` drains all of it. One entry that cannot be
deleted never stops the others.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable

from ..effects import effect
from ..errors import StowageError, from_os_error
from ..handle import StorageHandle
from .erase import Stopped, erase_path
from .layout import RootLayout
from .metastore import Metastore
from .recipes import Recipes
from .trash import Trash, TrashEntry

_LEAD_SECONDS = 0.005
"""Who removed something goes on first: deleting many files keeps the interpreter's lock busy."""
_STOP_SECONDS = 5.0
"""A driver that takes longer over one entry is left alone; the thread is a daemon."""

_log = logging.getLogger("stowage.store.reaper")


class Reaper:
    """Deletes the trash of one root; safe beside the reapers of other processes."""

    def __init__(
        self,
        layout: RootLayout,
        metastore: Metastore,
        trash: Trash,
        recipes: Recipes,
        open_storage: Callable[[str], StorageHandle],
    ) -> None:
        self._layout = layout
        self._metastore = metastore
        self._trash = trash
        self._recipes = recipes
        self._open_storage = open_storage
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wanted = threading.Event()
        self._stopping = threading.Event()
        self._told: set[str] = set()
        self.problems: dict[str, StowageError] = {}
        """Why an entry could not be deleted, by its name in the trash; for ``check``."""

    def nudge(self) -> None:
        """Say that there is something in the trash; returns at once."""
        with self._guard:
            if self._stopping.is_set():
                return
            self._wanted.set()
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="stowage-reaper", daemon=True
                )
                self._thread.start()

    def drain(self, timeout_seconds: float | None = None) -> list[TrashEntry]:
        """Delete here and now what is in the trash; returns what is left.

        Entries that another process is deleting are waited for. What is left after no
        *timeout_seconds* is what could not be deleted; :attr:`problems` says why.
        """
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds

        def late() -> bool:
            return deadline is not None and time.monotonic() >= deadline

        while True:
            left = self._pass(late)
            if late() or all(entry.directory in self.problems for entry in left):
                return left
            time.sleep(0.01)

    def close(self, grace_seconds: float = 0.25) -> None:
        """Let the thread work for *grace_seconds* more, then stop it between two files.
        Idempotent."""
        with self._guard:
            thread = self._thread
        if thread is not None:
            thread.join(grace_seconds)
        self._stopping.set()
        self._wanted.set()
        if thread is not None:
            thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        self._stopping.wait(_LEAD_SECONDS)
        while True:
            self._wanted.clear()
            try:
                self._pass(self._stopping.is_set)
            except (StowageError, OSError) as error:  # the metastore: the next opening tries again
                _log.warning("the trash cannot be read: %s", error)
            with self._guard:
                if self._stopping.is_set() or not self._wanted.is_set():
                    self._metastore.leave_thread()
                    self._thread = None
                    return

    def _pass(self, stop: Callable[[], bool]) -> list[TrashEntry]:
        """Go once through the trash; returns what is left of it."""
        entries = self._trash.entries()
        if not entries:
            return []
        self._metastore.checkpoint()  # a row must not come back when its files cannot
        for entry in entries:
            if stop():
                break
            self._reap(entry, stop)
        self._metastore.ballast.ensure()
        self._metastore.reserve.ensure()
        return self._trash.entries()

    def _reap(self, entry: TrashEntry, stop: Callable[[], bool]) -> None:
        self.problems.pop(entry.directory, None)
        try:
            self._trash.bury(entry)
            if self._delete(entry, stop):
                if entry.diff_id is not None:
                    self._recipes.release(entry.diff_id)
                self._trash.clear(entry)
        except Stopped:
            pass
        except StowageError as error:
            self._note(entry, error)
        except OSError as error:
            self._note(entry, from_os_error(error, f"cannot delete {entry.directory!r}"))

    def _note(self, entry: TrashEntry, error: StowageError) -> None:
        self.problems[entry.directory] = error
        if entry.directory not in self._told:
            self._told.add(entry.directory)
            _log.warning("%s stays in the trash: %s", entry.directory, error)

    def _delete(self, entry: TrashEntry, stop: Callable[[], bool]) -> bool:
        """Delete an entry's directory; False if another reaper is at it."""
        path = self._trash.path(entry)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            try:
                with effect("trash.lock", path=path):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            if path.exists():  # else the reaper that had it before has finished
                self._open_storage(entry.driver).destroy(path)
                erase_path(path, stop=stop)
            return True
        finally:
            os.close(descriptor)
