"""What the crash tests kill: does random operations on one root until its time is up.

Run as ``python worker.py ROOT SEED SECONDS OPERATIONS``; prints ``ready`` before the first one.
Refusals that another process causes (a name taken, a layer in use) are part of the game; anything
else is an error and ends it with a traceback.
"""

from __future__ import annotations

import io
import random
import sys
import tarfile
import time
from collections.abc import Callable, Mapping

from stowage.containers.model import ContainerSpec
from stowage.containers.networking import requested
from stowage.engine import Engine
from stowage.errors import AlreadyExists, Busy, FailedPrecondition, NotFound, Unavailable

IMAGE = "busybox"


def archive(dice: random.Random) -> io.BytesIO:
    """A small random layer, deletions among it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number in range(dice.randrange(1, 60)):
            name = f"data/{dice.randrange(8)}/file{number}"
            content = dice.randbytes(dice.randrange(20_000))
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    out.seek(0)
    return out


class Worker:
    """The operations, on names that several workers share."""

    def __init__(self, engine: Engine, dice: random.Random) -> None:
        self.engine = engine
        self.dice = dice

    def name(self) -> str:
        return f"n{self.dice.randrange(6)}"

    def driver(self) -> str:
        return self.dice.choice(["overlay", "vfs"])

    def network(self) -> str:
        return self.dice.choice(["bridge", "none"])

    def apply(self) -> None:
        self.engine.images.import_tree(archive(self.dice), f"{self.name()}:latest")

    def run(self) -> None:
        script = "echo hello > /written; mkdir /new; rm /bin/vi; cat /etc/hostname"
        result = self.engine.run(
            IMAGE,
            ["sh", "-c", script],
            network=self.network(),
            ports=["9000-9003:80"],
            storage_driver=self.driver(),
        )
        assert result.exit_code == 0, result.stderr

    def start(self) -> None:
        spec = ContainerSpec(
            image=IMAGE,
            name=self.name(),
            command=("sh", "-c", "echo begun > /written; sleep 100"),
            network=self.network(),
            networking=requested(ports=["9000-9003:80", "9000-9003:53/udp"]),
            storage_driver=self.driver(),
        )
        record = self.engine.containers.create(spec)
        self.engine.containers.start(record.id)

    def commit(self) -> None:
        self.engine.commit(self.name(), f"{self.name()}:latest")

    def remove(self) -> None:
        self.engine.containers.remove(self.name(), force=True)

    def remove_image(self) -> None:
        self.engine.images.remove(f"{self.name()}:latest")

    def prepare(self) -> None:
        key = f"key-{self.name()}"
        self.engine.layers.prepare(key, driver=self.driver())
        self.engine.layers.remove(key, driver=self.driver())

    @property
    def operations(self) -> Mapping[str, Callable[[], None]]:
        return {
            "apply": self.apply,
            "run": self.run,
            "start": self.start,
            "commit": self.commit,
            "rm": self.remove,
            "rmi": self.remove_image,
            "prepare": self.prepare,
        }


def main(root: str, seed: str, seconds: str, names: str) -> None:
    dice = random.Random(seed)
    deadline = time.monotonic() + float(seconds)
    with Engine(root) as engine:
        worker = Worker(engine, dice)
        operations = [worker.operations[name] for name in names.split(",")]
        print("ready", flush=True)
        while time.monotonic() < deadline:
            try:
                dice.choice(operations)()
            except (AlreadyExists, NotFound, Busy, FailedPrecondition, Unavailable):
                continue


if __name__ == "__main__":
    main(*sys.argv[1:])
