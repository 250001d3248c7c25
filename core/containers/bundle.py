"""The files of a container outside its root, and their paths.

::

    data-root/containers/<cid>/       kept as long as the container
      hosts  hostname  resolv.conf    bind-mounted into it
      ctr.log  ctr.log.<n>            what it wrote, in conmon's k8s-file form; older ones
    exec-root/<root-id>/containers/<cid>/   may be lost at any time
      config.json                     the OCI bundle
      rootfs/                         where the root is attached, in a namespace of its own
      shared/<n>                      where binds that are to be shared are attached
      pid  conmon.pid                 written by the runtime and by conmon
      attach  ctl                     conmon's socket and fifo
      exit/<cid>  oom                 written by conmon at the end
      runtime.log  conmon.log
      kept                            a link to the directory above
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from ..effects import effect


class ContainerFiles(Struct, frozen=True):
    """The paths of one container; makes none of them until :meth:`make_kept` and
    :meth:`make_bundle`."""

    container_id: str
    kept: Path
    bundle: Path

    @property
    def log(self) -> Path:
        return self.kept / "ctr.log"

    @property
    def linked_log(self) -> str:
        """The log's path from the bundle, without the root's own characters."""
        return f"kept/{self.log.name}"

    @property
    def rootfs(self) -> Path:
        return self.bundle / "rootfs"

    @property
    def pid_file(self) -> Path:
        return self.bundle / "pid"

    @property
    def monitor_pid_file(self) -> Path:
        return self.bundle / "conmon.pid"

    @property
    def exit_directory(self) -> Path:
        return self.bundle / "exit"

    @property
    def runtime_log(self) -> Path:
        return self.bundle / "runtime.log"

    @property
    def monitor_log(self) -> Path:
        return self.bundle / "conmon.log"

    def make_kept(self) -> None:
        """Make what is kept as long as the container. Idempotent."""
        with effect("container.make_directory", path=self.kept):
            self.kept.mkdir(mode=0o700, parents=True, exist_ok=True)

    def make_bundle(self) -> None:
        """Make the bundle's directory anew and empty: what a killed start left goes."""
        with effect("container.make_bundle", path=self.bundle):
            try:
                self.bundle.mkdir(mode=0o700, parents=True)
            except FileExistsError:
                shutil.rmtree(self.bundle, ignore_errors=True)
                self.bundle.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.rootfs.mkdir()
            self.bundle.joinpath("kept").symlink_to(self.kept)

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write ``config.json``; runtimes read it while they create."""
        with effect("container.write_config", path=self.bundle):
            write_named(self.bundle.joinpath("config.json"), json.dumps(config))

    def exit_code(self) -> int | None:
        """Return the exit code that conmon wrote (128+n for a signal), or None."""
        return _number(self.exit_directory / self.container_id)

    def leave_exit_code(self, code: int) -> None:
        """Write the exit code as conmon would, for whoever records it."""
        with effect("container.leave_exit_code", path=self.exit_directory):
            self.exit_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.exit_directory.joinpath(self.container_id).write_text(str(code))

    def pid(self) -> int | None:
        """Return the pid of the container's first process as its runtime wrote it, or None."""
        return _number(self.pid_file)

    def monitor_pid(self) -> int | None:
        """Return conmon's pid if it still is this container's conmon, else None."""
        pid = _number(self.monitor_pid_file)
        if pid is None:
            return None
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return None
        mine = self.container_id.encode() in words and b"conmon" in os.path.basename(words[0])
        return pid if mine else None

    @property
    def oom_killed(self) -> bool:
        """Whether conmon saw the kernel kill for memory."""
        return (self.bundle / "oom").exists()

    def remove_bundle(self) -> None:
        """Remove what a run needs. Idempotent."""
        _remove(self.bundle)

    def remove(self) -> None:
        """Remove everything. Idempotent."""
        _remove(self.bundle)
        _remove(self.kept)


def _remove(directory: Path) -> None:
    with effect("container.remove_directory", path=directory):
        try:
            shutil.rmtree(directory)
        except FileNotFoundError:
            pass


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (FileNotFoundError, ValueError):  # missing, or not written to its end
        return None


def write_named(path: Path, text: str) -> None:
    """Write a file; an error names it, also where it is the disk that is full."""
    try:
        with effect("container.write_file", path=path):
            path.write_text(text)
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise
