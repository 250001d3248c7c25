"""Victims: processes that open a subject's root, do some steps and are killed at one of them.

A server without threads forks each of them, so that neither the price of starting Python nor the
trap of forking a process with threads is paid per kill::

    with Victims() as victims:
        fate = victims.run(Errand("vfs", root, (), steps, faults="effect=*:n=7:kill"))

Run as ``python -m stowage.testing.conform.victims`` it is that server.
"""

from __future__ import annotations

import base64
import importlib
import importlib.util
import inspect
import os
import pickle
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import IO, Any, Literal

import msgspec
from msgspec import Struct

from .steps import Step


class Errand(Struct, frozen=True):
    """What a victim is to do: open the root of a driver, take *steps*, each a call of the subject.

    *faults* are rules of the fault injector (:mod:`stowage.testing.faults`); they hold while the
    steps are taken, or with *while_opening* from before the root is opened. *end* says how it
    goes if it comes that far: killed with the root open, or with the root closed in order.
    """

    driver: str | type
    root: Path
    options: tuple[str, ...]
    steps: tuple[Step, ...]
    faults: str = ""
    while_opening: bool = False
    end: Literal["killed", "closed"] = "killed"


class Fate(Struct, frozen=True):
    """How a victim ended. *finished*: it took all steps; else it was killed on the way, or one
    of them raised *error*."""

    finished: bool
    error: str = ""

    @property
    def killed(self) -> bool:
        return not self.finished and not self.error


class Victims:
    """The server of victims; started at the first errand, ended by ``close``."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Victims:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def run(self, errand: Errand) -> Fate:
        """Send a victim on an errand and wait for its end."""
        if self._server is None:
            self._server = _start()
        stdin, stdout = _pipes(self._server)
        stdin.write(base64.b64encode(pickle.dumps(_portable(errand))) + b"\n")
        stdin.flush()
        answer = stdout.readline()
        if not answer:
            raise RuntimeError("the server of victims is gone")
        return msgspec.json.decode(answer, type=Fate)

    def close(self) -> None:
        """End the server. Idempotent."""
        server, self._server = self._server, None
        if server is not None:
            stdin, stdout = _pipes(server)
            stdin.close()
            server.wait()
            stdout.close()


def _start() -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    )


def _pipes(server: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    assert server.stdin is not None
    assert server.stdout is not None
    return server.stdin, server.stdout


# --- classes that are no installed driver's ------------------------------------------------------


def _portable(errand: Errand) -> tuple[Errand, tuple[str, str, str] | None]:
    """A class goes as where it is defined: the server may not be able to unpickle it."""
    if isinstance(errand.driver, str):
        return errand, None
    kind = errand.driver
    where = (kind.__module__, kind.__qualname__, inspect.getsourcefile(kind) or "")
    return msgspec.structs.replace(errand, driver=""), where


def _found(where: tuple[str, str, str]) -> type:
    name, qualname, file = where
    found: Any = _module(name, file)
    for part in qualname.split("."):
        found = getattr(found, part)
    assert isinstance(found, type)
    return found


def _module(name: str, file: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        spec = importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            raise
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module


# --- the server ----------------------------------------------------------------------------------


def serve() -> None:
    """Read errands from stdin, a line each, and answer each with its victim's fate."""
    from . import subject  # noqa: F401  # imported once, not by every victim

    answers = os.dup(1)
    os.dup2(2, 1)  # whatever a driver prints must not get between the answers
    for line in sys.stdin.buffer:
        errand, where = pickle.loads(base64.b64decode(line))
        if where is None:
            _preload(errand.driver)
        fate = _send(errand, where)
        os.write(answers, msgspec.json.encode(fate) + b"\n")


def _preload(driver: str) -> None:
    """Import a driver's module before the first victim does; what fails is the victim's to say."""
    from ...errors import StowageError
    from ...registry import Registry

    with suppress(StowageError):
        Registry().driver_class("storage", driver)


def _send(errand: Errand, where: tuple[str, str, str] | None) -> Fate:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _live(errand, where, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as answers:
        said = answers.read()
    os.waitpid(child, 0)
    return msgspec.json.decode(said, type=Fate) if said else Fate(finished=False)


def _live(errand: Errand, where: tuple[str, str, str] | None, answers: int) -> None:
    """The victim's whole life; does not return."""
    try:
        fate = _take(errand, _found(where) if where else errand.driver, answers)
    except BaseException as error:  # noqa: BLE001  # it is told, and there is nobody above
        fate = Fate(finished=False, error=f"{type(error).__name__}: {error}")
    if fate is not None:
        os.write(answers, msgspec.json.encode(fate))
    os.kill(os.getpid(), signal.SIGKILL)


def _take(errand: Errand, driver: str | type, answers: int) -> Fate | None:
    from ..faults import inject
    from .subject import Subject

    def act(subject: Subject) -> None:
        for step in errand.steps:
            getattr(subject, step.method)(*step.arguments, **step.keywords)

    if errand.while_opening:
        with inject(errand.faults):
            subject = Subject(driver, errand.root, errand.options)
            act(subject)
    else:
        subject = Subject(driver, errand.root, errand.options)
        with inject(errand.faults):
            act(subject)
    if errand.end == "closed":
        subject.shut()
    os.write(answers, msgspec.json.encode(Fate(finished=True)))
    return None


if __name__ == "__main__":
    serve()

__all__ = ["Errand", "Fate", "Victims", "serve"]
