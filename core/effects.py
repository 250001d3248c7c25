"""Effects: each change to the kernel or a file system runs inside ``with effect(...)``.

One seam for all faults: an observer can time, delay, fail or kill at every effect of the core
and of the drivers, so none of them has a private hook. Without observers an effect costs well
under a microsecond.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

#: An observer of effects: given the effect's name and facts, returns a context that surrounds it.
Around = Callable[[str, dict[str, object]], AbstractContextManager[object]]


class _Nothing:
    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exc: object) -> None:
        return None


_NOTHING = _Nothing()
_around: tuple[Around, ...] = ()


def effect(name: str, **facts: object) -> AbstractContextManager[object]:
    """Surround one change to the kernel or a file system; *name* is dotted ("mount.move").

    *facts* say on what (paths, descriptors, sizes), for observers to show. The body should be
    one system call, or several that are only useful together.
    """
    if not _around:
        return _NOTHING
    return _observed(name, facts)


@contextmanager
def _observed(name: str, facts: dict[str, object]) -> Iterator[None]:
    with ExitStack() as stack:
        for around in _around:
            stack.enter_context(around(name, facts))
        yield


def effectful(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make every call of a function one effect called *name*; its arguments are the facts."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            if not _around:
                return function(*args, **kwargs)
            facts: dict[str, Any] = {"args": args, **kwargs}
            with _observed(name, facts):
                return function(*args, **kwargs)

        return wrapper

    return decorate


def observe(around: Around) -> Callable[[], None]:
    """Add an observer of effects for the whole process; returns the function that removes it."""
    global _around
    _around = (*_around, around)

    def remove() -> None:
        global _around
        _around = tuple(other for other in _around if other is not around)

    return remove
