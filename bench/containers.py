"""Figures of a whole container and of the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from stowage import Engine
from stowage.linux.mount import unmount
from stowage.linux.namespaces import (
    CLONE_NEWNS,
    in_mount_namespace,
    on_throwaway_thread,
    open_namespace,
    unshare,
)

from .measure import Figure, Limit, Side, compare

_HYBRID = Path("/sys/fs/cgroup/unified")


def start_up(rounds: int) -> Figure:
    """``stowage --version`` beside the least that a Python process costs."""
    command = Path(sys.executable).with_name("stowage")
    return compare(
        "start-up: stowage --version",
        Side("stowage", lambda: _quiet(str(command), "--version")),
        Side("python -S -c pass", lambda: _quiet(sys.executable, "-S", "-c", "pass")),
        rounds=rounds * 3,
        limit=Limit(1.5, 0.040),
    )


def _quiet(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


class RunBench:
    """``Engine.run`` beside the runtime alone, with the same bundle, on the same file system."""

    def __init__(self, kind: str, place: Path, rounds: int) -> None:
        self.kind = kind
        self.place = place
        self.rounds = rounds

    def figures(self) -> Iterator[Figure]:
        """Yield the figure; nothing where no runtime is installed."""
        from stowage.images.bootstrap import busybox

        crun = shutil.which("crun")
        if crun is None:
            return
        with Engine(self.place / "run", storage_driver="overlay") as engine:
            busybox(engine.images)
            bundle = self._bundle(engine)
            namespace = _namespace_without_hybrid()
            try:
                for network, factor in (("none", 2), ("bridge", 3)):
                    yield compare(
                        f"{self.kind}: a container run to its end, network {network}",
                        Side(
                            "stowage",
                            partial(engine.run, "busybox", ["true"], network=network),
                        ),
                        Side(
                            "crun run of the same bundle",
                            lambda: in_mount_namespace(
                                namespace,
                                lambda: _quiet(
                                    crun, "run", "--bundle", str(bundle), "stowage-bench"
                                ),
                            ),
                        ),
                        rounds=self.rounds * 3,
                        limit=Limit(factor),
                    )
            finally:
                os.close(namespace)

    def _bundle(self, engine: Engine) -> Path:
        """Make a bundle with the config.json that the engine writes, over a plain directory."""
        bundle = self.place / "bundle"
        rootfs = bundle / "rootfs"
        rootfs.mkdir(parents=True)
        config = self._config(engine)
        config["root"]["path"] = str(rootfs)
        config["process"]["args"] = ["true"]
        config["linux"]["cgroupsPath"] = f"/stowage-bench-{os.getpid()}"
        for namespace in config["linux"]["namespaces"]:
            namespace.pop("path", None)
        (bundle / "config.json").write_text(json.dumps(config))
        image = engine.images.resolve("busybox")
        (container,) = engine.containers.list()
        with engine.mounted(container.id) as root:
            subprocess.run(["cp", "-a", f"{root}/.", rootfs], check=True)
        assert image is not None
        return bundle

    def _config(self, engine: Engine) -> Any:
        """Read what the engine hands to the runtime, while a container of it runs.

        The container is kept: its name files are what the bundle's mounts refer to.
        """
        runner = threading.Thread(
            target=engine.run,
            args=("busybox", ["sleep", "1"]),
            kwargs={"network": "none", "remove": False},
        )
        runner.start()
        try:
            deadline = monotonic() + 10
            while monotonic() < deadline:
                for path in engine.layout.exec_root.rglob("config.json"):
                    try:
                        return json.loads(path.read_text())
                    except ValueError:  # half written
                        continue
                sleep(0.01)
            raise RuntimeError("the engine wrote no config.json")
        finally:
            runner.join()


def _namespace_without_hybrid() -> int:
    """Return a mount namespace in which crun works on a host with both cgroup hierarchies."""

    def make() -> int:
        unshare(CLONE_NEWNS)
        if _HYBRID.is_mount():
            unmount(_HYBRID, lazy=True)
        return open_namespace("mnt")

    return on_throwaway_thread(make)
