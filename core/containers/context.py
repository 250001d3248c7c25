"""What every part of this package works with: the root, its records and the names of things."""

from __future__ import annotations

import os
import posixpath
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..linux.cgroups import Cgroup
from ..store.locks import Lease, Locks
from .bundle import ContainerFiles
from .model import ContainerRecord
from .rows import ContainerRows
from .runtime import Runtime, find_program, find_runtime

if TYPE_CHECKING:
    from ..config import Config
    from ..handle import StorageHandle
    from ..images.service import Images
    from ..layers.store import LayerStore
    from ..net.networks import Networks
    from ..store.layout import RootLayout
    from ..store.metastore import Metastore
    from ..volumes.service import Volumes

#: How long a command waits for another that is changing the same container.
LOCK_WAIT_SECONDS = 60.0


class Root(Protocol):
    """What this package needs of an engine."""

    @property
    def config(self) -> Config: ...
    @property
    def layout(self) -> RootLayout: ...
    @property
    def metastore(self) -> Metastore: ...
    @property
    def layers(self) -> LayerStore: ...
    @property
    def images(self) -> Images: ...
    @property
    def networks(self) -> Networks: ...
    @property
    def volumes(self) -> Volumes: ...
    def storage(self, name: str | None = None) -> StorageHandle: ...


class Context:
    """One root as containers see it; safe from threads."""

    def __init__(self, root: Root, exit_command: Sequence[str] | None = None) -> None:
        self.root = root
        self.rows = ContainerRows(root.metastore)
        self.locks = Locks(root.layout.locks)
        self._exit_command = exit_command

    @property
    def root_id(self) -> str:
        return self.root.metastore.root_id

    @cached_property
    def running_directory(self) -> Path:
        """This root's directory below exec-root."""
        return self.root.layout.running(self.root_id)

    @property
    def bundles(self) -> Path:
        return self.running_directory / "containers"

    @property
    def cgroup_parent(self) -> Cgroup:
        return Cgroup(f"/stowage/{self.root_id}")

    def cgroup(self, record: ContainerRecord) -> Cgroup:
        """Return a container's cgroup: below this root's own, or the one it asked for."""
        parent = record.spec.resources.cgroup_parent
        if not parent:
            return self.cgroup_without_row(record.id)
        parent = posixpath.normpath("/" + parent.lstrip("/"))
        return Cgroup(posixpath.join(parent, record.id), kept_parent=parent)

    def cgroup_without_row(self, container_id: str) -> Cgroup:
        """Return the cgroup below this root's own that is called so."""
        return Cgroup(f"{self.cgroup_parent.path}/{container_id}")

    def files(self, container_id: str) -> ContainerFiles:
        """Return where a container's files are."""
        return ContainerFiles(
            container_id,
            self.root.layout.containers / container_id,
            self.bundles / container_id,
        )

    @contextmanager
    def locked(self, container_id: str, purpose: str) -> Iterator[None]:
        """Hold the container's lock: only its holder changes what is recorded or running.

        The lock goes with the container's row.

        Raises:
            Busy: naming who holds it, after :data:`LOCK_WAIT_SECONDS`.
        """
        lease = self.locks.acquire(
            self._lock_name(container_id),
            exclusive=True,
            subject=f"container {container_id[:12]}",
            purpose=purpose,
            wait_seconds=LOCK_WAIT_SECONDS,
        )
        with self._giving_up(lease, container_id):
            yield

    def with_lock(self) -> Sequence[str]:
        """Return the ids of the containers whose lock's file is there."""
        prefix = self._lock_name("")
        names = os.listdir(self.locks.directory)
        return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]

    @contextmanager
    def locked_if_free(self, container_id: str, purpose: str) -> Iterator[bool]:
        """Hold the container's lock if nobody else does; gives whether it is held."""
        lease = self.locks.try_acquire(
            self._lock_name(container_id), exclusive=True, purpose=purpose
        )
        if lease is None:
            yield False
            return
        with self._giving_up(lease, container_id):
            yield True

    @contextmanager
    def _giving_up(self, lease: Lease, container_id: str) -> Iterator[None]:
        with lease:
            try:
                yield
            finally:
                if self.rows.find(container_id) is None:
                    lease.discard()

    def _lock_name(self, container_id: str) -> str:
        return f"container-{container_id}"

    @cached_property
    def default_runtime(self) -> Runtime:
        """The runtime that new runs use; raises as :func:`find_runtime`."""
        config = self.root.config
        configured = config.default_runtime
        if configured is not None and configured in config.runtimes:
            configured = config.runtimes[configured].path
        return find_runtime(configured, self.running_directory / "runtime")

    def require_programs(self, *, direct: bool) -> None:
        """Refuse early what could not be started: the runtime, and what calls it, must be there.

        Raises:
            NotSupported: as :func:`find_runtime` and :func:`find_program`.
        """
        _ = self.default_runtime
        if direct:
            find_program("setpriv", "util-linux")
        else:
            find_program("conmon", "conmon")
            find_program("nsenter", "util-linux")

    def runtime_of(self, record: ContainerRecord) -> Runtime:
        """Return the runtime that has created this container."""
        if not record.runtime.runtime:
            return self.default_runtime
        return find_runtime(record.runtime.runtime, self.running_directory / "runtime")

    def exit_command(self, container_id: str, run: str) -> list[str]:
        """Return what conmon runs once *run* of a container has ended: this very program."""
        if self._exit_command is not None:
            return [*self._exit_command, container_id, run]
        layout = self.root.layout
        return [
            sys.executable, "-P", "-m", "stowage",
            "--data-root", str(layout.data_root), "--exec-root", str(layout.exec_root),
            "container", "finish", container_id, run,
        ]  # fmt: skip
