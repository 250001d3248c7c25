"""Stowage: pluggable storage and network drivers for containers, and the engine that runs them.

``from stowage import Engine`` is the door for Python users; driver authors need ``hookimpl``,
the values of :mod:`stowage.model` and :func:`effect`. Names are loaded when first used, so that
importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .effects import effect as effect
    from .hookspecs import hookimpl as hookimpl

_MODULE_BY_NAME = {
    "effect": ".effects",
    "hookimpl": ".hookspecs",
}

__all__ = ["effect", "hookimpl"]  # grows with the table; a test holds both together


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("stowage")
    try:
        module = import_module(_MODULE_BY_NAME[name], __name__)
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(module, name)
