"""The fault injector: an observer that fails, delays or kills at chosen effects and calls.

Rules come from the environment, where every process that is started inherits them, or from
Python::

    STOWAGE_OBSERVERS=faults STOWAGE_FAULTS='effect=mount.*:n=3:errno=ENOSPC' stowage run …

    with inject("effect=file.rename:errno=EIO") as faults:
        ...
    assert faults.counts["file.rename"] == 1

Rules are separated by ``;``. Each names what it is about and what happens::

    effect=GLOB | call=GLOB      effects by name; driver calls by hook or driver/hook
      :n=3                       only the third that matches in this process (else every one)
      :after                     once it has happened, not before
      :errno=ENOSPC | :kill | :delay=0.1     fail with OSError, SIGKILL itself, sleep seconds
    record:FILE                  append "pid effect NAME" or "pid call DRIVER/HOOK" for each
"""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from fnmatch import fnmatchcase
from typing import Literal

from msgspec import Struct

from ..effects import observe
from ..errors import InvalidArgument
from ..hookspecs import hookimpl

Subject = Literal["effect", "call"]


class Fault(Struct, frozen=True):
    """One rule: at the *nth* (or every) match of *pattern*, before or after it, do one thing."""

    subject: Subject
    pattern: str
    nth: int | None = None
    after: bool = False
    errno: int | None = None
    kill: bool = False
    delay_seconds: float = 0.0

    def matches(self, subject: Subject, name: str) -> bool:
        if subject != self.subject:
            return False
        return any(fnmatchcase(form, self.pattern) for form in (name, name.rpartition("/")[2]))

    def act(self, name: str) -> None:
        """Do it. Raises OSError if that is what it is about."""
        if self.delay_seconds:
            time.sleep(self.delay_seconds)
        if self.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.errno is not None:
            raise OSError(self.errno, f"{os.strerror(self.errno)} (injected at {name})")


class _Plan(Struct, frozen=True):
    faults: tuple[Fault, ...]
    record: str | None


def parse_faults(text: str) -> tuple[Fault, ...]:
    """Read rules as ``STOWAGE_FAULTS`` holds them; ``record:FILE`` is not a fault.

    Raises:
        InvalidArgument: naming the rule and what is wrong with it.
    """
    return _parse_plan(text).faults


def _parse_plan(text: str) -> _Plan:
    faults: list[Fault] = []
    record = None
    for rule in filter(None, (part.strip() for part in text.split(";"))):
        if rule.startswith("record:"):
            record = rule.removeprefix("record:")
        else:
            faults.append(_parse_rule(rule))
    return _Plan(tuple(faults), record)


def _parse_rule(rule: str) -> Fault:
    head, *words = rule.split(":")
    subject, _, pattern = head.partition("=")
    if subject not in ("effect", "call") or not pattern:
        raise _bad(rule, "it should begin with effect=GLOB, call=GLOB or record:FILE")
    values = {"n": "", "errno": "", "delay": "", "kill": "", "after": ""}
    for word in words:
        key, _, value = word.partition("=")
        if key not in values:
            raise _bad(rule, f"{key!r} is not one of {', '.join(values)}")
        values[key] = value or "yes"
    try:
        fault = Fault(
            "effect" if subject == "effect" else "call",
            pattern,
            nth=int(values["n"]) if values["n"] else None,
            after=bool(values["after"]),
            errno=_errno(values["errno"]),
            kill=bool(values["kill"]),
            delay_seconds=float(values["delay"] or 0),
        )
    except (ValueError, AttributeError) as error:
        raise _bad(rule, str(error)) from None
    if fault.errno is None and not fault.kill and not fault.delay_seconds:
        raise _bad(rule, "it lacks errno=, kill or delay=")
    return fault


def _errno(name: str) -> int | None:
    if not name:
        return None
    number: int = getattr(errno, name)
    return number


def _bad(rule: str, reason: str) -> InvalidArgument:
    return InvalidArgument(f"invalid fault {rule!r} in STOWAGE_FAULTS", details=reason)


class FaultObserver:
    """Counts every effect and call, and does what the rules say. Thread-safe.

    *counts* has the effects by name and the calls by ``driver/hook``.
    """

    name = "faults"
    api_version = 1

    def __init__(self, rules: str | None = None) -> None:
        plan = _parse_plan(os.environ.get("STOWAGE_FAULTS", "") if rules is None else rules)
        self._faults = plan.faults
        self._record = plan.record
        self._matched: Counter[Fault] = Counter()
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()

    @hookimpl
    def observer_call(
        self, driver: str, hook: str, arguments: Mapping[str, object]
    ) -> AbstractContextManager[object]:
        return self._around("call", f"{driver}/{hook}")

    @hookimpl
    def observer_effect(
        self, name: str, facts: Mapping[str, object]
    ) -> AbstractContextManager[object]:
        return self._around("effect", name)

    @contextmanager
    def _around(self, subject: Subject, name: str) -> Iterator[None]:
        due = self._due(subject, name)
        for fault in due:
            if not fault.after:
                fault.act(name)
        yield
        for fault in due:
            if fault.after:
                fault.act(name)

    def _due(self, subject: Subject, name: str) -> list[Fault]:
        due: list[Fault] = []
        with self._lock:
            self.counts[name] += 1
            if self._record is not None:
                self._note(self._record, f"{os.getpid()} {subject} {name}\n")
            for fault in self._faults:
                if fault.matches(subject, name):
                    self._matched[fault] += 1
                    if fault.nth in (None, self._matched[fault]):
                        due.append(fault)
        return due

    @staticmethod
    def _note(path: str, line: str) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)


@contextmanager
def inject(rules: str = "") -> Iterator[FaultObserver]:
    """Inject faults into the effects of this process while the context lasts.

    Without rules it only counts. Driver calls are seen only by an observer that is given to the
    registry by name.

    Raises:
        InvalidArgument: if a rule is malformed.
    """
    observer = FaultObserver(rules)
    remove = observe(lambda name, facts: observer.observer_effect(name, facts))
    try:
        yield observer
    finally:
        remove()
