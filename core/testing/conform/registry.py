"""The properties: each a function under a name, with the sentence that must hold.

A property is added by writing it, in a module of :mod:`.properties`::

    @prop("L3", "A new child shows what its parent shows, its root's own attributes included")
    def child_sees_parent(case: Case) -> None:
        subject = case.subject
        ...

It runs once for each example; what it draws (``case.draw``) differs each time. With ``once=True``
there is one example. ``needs`` names capabilities (fields of ``StorageCapabilities``) that the
driver must declare, else it is skipped and the report says by which; ``lacks`` those it must not.
``machine`` names abilities of the machine (:mod:`stowage.testing.abilities`), ``weight`` how many
of the examples that are asked for it gets (0.2: a fifth, for what is slow).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from msgspec import Struct

from ...errors import NotFound
from ...model import StorageCapabilities
from ...options import nearest

if TYPE_CHECKING:
    from .case import Case

Body = Callable[["Case"], None]


class Property(Struct, frozen=True):
    """One thing that must hold; *family* is the module that it stands in."""

    name: str
    text: str
    body: Body
    family: str
    needs: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    machine: tuple[str, ...] = ()
    once: bool = False
    weight: float = 1.0

    @property
    def slug(self) -> str:
        """Its name as an identifier: ``L3_child_sees_parent``."""
        return f"{re.sub(r'[^A-Za-z0-9]', '_', self.name)}_{self.body.__name__}"

    def missing(self, capabilities: StorageCapabilities) -> str | None:
        """Return the capability by which it does not apply, or None."""
        for name in self.needs:
            if not getattr(capabilities, name):
                return name
        for name in self.lacks:
            if getattr(capabilities, name):
                return f"not {name}"
        return None


_BY_NAME: dict[str, Property] = {}


def prop(
    name: str,
    text: str,
    *,
    needs: str | Sequence[str] = (),
    lacks: str | Sequence[str] = (),
    machine: str | Sequence[str] = (),
    once: bool = False,
    weight: float = 1.0,
) -> Callable[[Body], Body]:
    """Register a function as a property; see the module's docstring.

    Raises:
        ValueError: if the name is taken, or a capability does not exist.
    """

    def register(body: Body) -> Body:
        if name in _BY_NAME:
            raise ValueError(f"there are two properties called {name}")
        family = body.__module__.rpartition(".")[2]
        made = Property(
            name, text, body, family, _words(needs), _words(lacks), _words(machine), once, weight
        )
        unknown = {*made.needs, *made.lacks} - set(StorageCapabilities.__struct_fields__)
        if unknown:
            raise ValueError(f"property {name}: no such capability: {', '.join(sorted(unknown))}")
        _BY_NAME[name] = made
        return body

    return register


def _words(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def find_properties(patterns: Iterable[str] = ()) -> list[Property]:
    """Return all properties in the order of their names, or those that *patterns* pick.

    A pattern is a name (``L3``), a glob (``D1?``), a letter (``L``) or a module (``layers``).

    Raises:
        NotFound: if a pattern picks none.
    """
    from . import properties as package

    for module in iter_modules(package.__path__):
        import_module(f"{package.__name__}.{module.name}")
    every = sorted(_BY_NAME.values(), key=lambda one: _natural(one.name))
    chosen: dict[str, Property] = {}
    for pattern in patterns:
        found = [one for one in every if _picks(pattern, one)]
        if not found:
            known = [*_BY_NAME, *{one.family for one in every}]
            raise NotFound(
                "property",
                pattern,
                resolution=f"'stowage conform properties' lists them{nearest(pattern, known)}",
            )
        chosen.update((one.name, one) for one in found)
    return [one for one in every if one.name in chosen] if chosen else every


def _picks(pattern: str, one: Property) -> bool:
    letters = re.match(r"[^0-9]*", one.name)
    family = pattern in (one.family, letters[0] if letters else "")
    return family or fnmatchcase(one.name, pattern) or pattern == one.body.__name__


#: The letters in the order of the handbook; others follow.
_LETTERS = ["L", "M", "F", "D", "Q", "U", "I", "C", "X", "S"]


def _natural(name: str) -> tuple[int, str, int, str]:
    """L before M, L2 before L10 before L10b."""
    found = re.fullmatch(r"([^0-9]*)([0-9]*)(.*)", name)
    assert found is not None
    letters, number, rest = found.groups()
    rank = _LETTERS.index(letters) if letters in _LETTERS else len(_LETTERS)
    return rank, letters, int(number or 0), rest


__all__ = ["Body", "Property", "find_properties", "prop"]
