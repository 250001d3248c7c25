"""What the crash tests kill: forks on demand, so that each victim starts at once and alone.

Run as ``python crash.py ROOT``; reads ``WORK NUMBER ARGUMENT`` from its standard input. A child
opens the root, does that work and kills itself at its NUMBER-th effect. Answers ``killed``, or
``done`` if the work has fewer effects.
"""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import stowage_drivers.storage.overlay  # loaded once, before the forks  # noqa: F401
from stowage.containers.mounts import mounts_of
from stowage.containers.service import Containers, ContainerSpec  # noqa: F401
from stowage.engine import Engine
from stowage.testing.faults import inject


def create(engine: Engine, argument: str) -> None:
    engine.volumes.create(argument)


def remove(engine: Engine, argument: str) -> None:
    engine.volumes.remove(argument)


def fill(engine: Engine, argument: str) -> None:
    engine.volumes.fill("vol", lambda: os.open(argument, os.O_RDONLY | os.O_DIRECTORY))


def create_container(engine: Engine, argument: str) -> None:
    volumes = mounts_of(["vol:/data", "/own"], [], []).volumes
    engine.containers.create(
        ContainerSpec(
            image=argument, name="box", network="none", volumes=volumes, command=("true",)
        )
    )


def remove_container(engine: Engine, argument: str) -> None:
    engine.containers.remove(argument, volumes=True)


WORK: dict[str, Callable[[Engine, str], None]] = {
    work.__name__.replace("_", "-"): work
    for work in (create, remove, fill, create_container, remove_container)
}


def child(root: str, work: str, number: str, argument: str) -> None:
    try:
        with Engine(root) as engine, inject(f"effect=*:n={number}:kill"):
            WORK[work](engine, argument)
    except BaseException:  # noqa: BLE001  # it must not come back
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main(root: str) -> None:
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            child(root, *line.split())
        _, status = os.waitpid(pid, 0)
        failed = "done" if status == 0 else "failed"
        print("killed" if os.WIFSIGNALED(status) else failed, flush=True)


@dataclass
class Killer:
    """The other end: a process that does work on *root* and is killed in it."""

    process: subprocess.Popen[str]

    def kills(self, work: str, number: int, argument: str) -> bool:
        """Do *work*, killed at its effect of that *number*; False if it has fewer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(work, number, argument, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline().strip()
        assert answer in ("killed", "done"), f"{work} at {number}: {answer}"
        return answer == "killed"


@contextmanager
def killer(root: Path) -> Iterator[Killer]:
    """Start one; it ends with the ``with``."""
    with subprocess.Popen(
        [sys.executable, __file__, str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Killer(process)
        assert process.stdin is not None
        process.stdin.close()


if __name__ == "__main__":
    main(sys.argv[1])
