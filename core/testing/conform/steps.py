"""Steps: what a property did to its subject, kept to be shown and to be run again.

Each public method of the subject that is marked ``@step`` notes its own call, so that a failing
example can be printed as a list of operations and as a Python script, whatever the property.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar, cast

from msgspec import Struct

from .operations import literal

P = ParamSpec("P")
R = TypeVar("R")


class Noting(Protocol):
    """What has a log."""

    log: Log


S = TypeVar("S", bound="Noting")


class Step(Struct, frozen=True):
    """One call of a method of the subject, and how it ended (``""``: it returned)."""

    method: str
    arguments: tuple[object, ...]
    keywords: Mapping[str, object]
    outcome: str = ""

    def call(self) -> str:
        """Return it as the call in Python that it was."""
        words = [_literal(value) for value in self.arguments]
        words += [f"{name}={_literal(value)}" for name, value in self.keywords.items()]
        return f"{self.method}({', '.join(words)})"

    def __str__(self) -> str:
        return f"{self.call()}  → {self.outcome}" if self.outcome else self.call()


class Log:
    """The steps of the example that runs now; calls that a step makes itself are not noted."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._inside = False

    def clear(self) -> None:
        self.steps = []

    def around(self, method: str, call: Callable[[], R], step: Step) -> R:
        if self._inside:
            return call()
        self._inside = True
        outcome = ""
        try:
            return call()
        except BaseException as error:
            outcome = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            raise
        finally:
            self._inside = False
            self.steps.append(Step(step.method, step.arguments, step.keywords, outcome))


def step(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Note each call of a method in the subject's log."""

    @wraps(method)
    def noted(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        call = Step(method.__name__, args, kwargs)
        return self.log.around(method.__name__, lambda: method(self, *args, **kwargs), call)

    return cast("Callable[Concatenate[S, P], R]", noted)


def script(steps: Sequence[Step], opening: str, property_name: str, message: str) -> str:
    """Return *steps* as a program that does the same once more.

    *opening* is the call that makes the subject.
    """
    lines = [
        f'"""{property_name}: what failed, shrunk. Run it as root."""',
        "",
        "from stowage.errors import *",
        "from stowage.testing.conform import *",
        "",
        f"with {opening} as subject:",
    ]
    for one in steps:
        lines.append(f"    subject.{one.call()}")
        if one.outcome:
            lines[-1] += f"  # {one.outcome}"
    if not steps:
        lines.append("    pass")
    lines += ["", *(f"# {line}".rstrip() for line in message.splitlines()), ""]
    return "\n".join(lines)


def _literal(value: object) -> str:
    if isinstance(value, type):
        return value.__name__
    if isinstance(value, tuple):
        return f"({', '.join(map(_literal, value))}{',' if len(value) == 1 else ''})"
    return literal(value)


__all__ = ["Log", "Step", "script", "step"]
