"""What the crash tests of networks kill: a process without threads, which forks for each victim.

A fork of the tests' own process could inherit a lock that another of its threads holds just then,
SQLite's for one, and wait for it for ever.

Run as ``python victims.py``; reads the root (its command line must not name it) and then lines
``WORK RULES`` from its standard input, lets a child do that work with these faults, and answers
with how it ended: 0, 2 for a refusal, -9, or 1 for what no victim may end with.
"""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from stowage.engine import Engine
from stowage.errors import StowageError


def run(engine: Engine) -> None:
    """A run with a port, in process."""
    engine.run("busybox", ["true"], ports=["8080:80", "5353:53/udp"])


def start(engine: Engine) -> None:
    """A detached one, which stays."""
    engine.start(engine.create("busybox", ["sleep", "60"], ports=["8080:80"]).id)


def stop(engine: Engine) -> None:
    """The end of one that runs, by force."""
    for record in engine.containers.list():
        engine.containers.remove(record.id, force=True)


def run_long(engine: Engine) -> None:
    """A run in process that somebody has to end."""
    engine.run("busybox", ["sleep", "60"])


def take_ports(engine: Engine) -> None:
    """As many of a range of ports as there are left."""
    for _ in range(10):
        record = engine.create("busybox", ["sleep", "60"], ports=["9000-9009:80"])
        try:
            engine.start(record.id)
        except StowageError:  # the range is used up
            return


WORK: dict[str, Callable[[Engine], None]] = {
    work.__name__: work for work in (run, start, stop, run_long, take_ports)
}


def child(root: str, work: str, rules: str) -> None:
    """Do the work; never returns."""
    code = 1
    try:
        os.environ["STOWAGE_FAULTS"] = rules
        with Engine(root, observers=["faults"]) as engine:
            WORK[work](engine)
        code = 0
    except (StowageError, OSError):
        code = 2
    except BaseException:  # noqa: BLE001  # it must not come back
        traceback.print_exc()
    finally:
        os._exit(code)


def main() -> None:
    root = sys.stdin.readline().rstrip("\n")
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            child(root, *line.split())
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


class Victims:
    """The other end: work on *root*, each in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def end(self, work: str, rules: str) -> int:
        """Do *work* with faults and return how it ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(work, rules, file=self._process.stdin, flush=True)
        code = int(self._process.stdout.readline())
        assert code in (0, 2, -9)
        return code


@contextmanager
def victims(root: Path) -> Iterator[Victims]:
    """Start it; it ends with the ``with``."""
    command = [sys.executable, __file__]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        print(root, file=process.stdin, flush=True)
        yield Victims(process)
        process.stdin.close()


def alone(root: Path, work: str) -> subprocess.Popen[bytes]:
    """Start one work in a process of its own and do not wait for it."""
    script = f"from {__name__} import *; child(sys.argv[1], {work!r}, '')"
    here = str(Path(__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, "-c", script, str(root)], env={**os.environ, "PYTHONPATH": here}
    )


if __name__ == "__main__":
    main()
