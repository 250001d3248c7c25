"""From a driver's name to an open handle: load, parse options, construct, check."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

from . import effects
from .errors import DriverFailed, StowageError
from .handle import FirewallHandle, Handle, NetworkHandle, StorageHandle, validate
from .model import NetworkContext
from .options import Option, Options, parse_options
from .plugins import Family, Plugin, discover, find


class Registry:
    """Opens drivers; holds the observers that were named and gives them to every handle."""

    def __init__(self, observers: Iterable[str] = ()) -> None:
        self._observers: list[object] = []
        self._classes: dict[tuple[Family, str], tuple[type, str]] = {}
        for name in observers:
            self._observe(name)

    def plugins(self, family: Family) -> Sequence[Plugin]:
        """Return every plugin of a family; nothing is imported."""
        return discover(family)

    def driver_class(self, family: Family, name: str) -> tuple[type, str]:
        """Return the class behind a name and its owner, loaded once.

        Raises:
            NotFound: if no plugin has the name.
            DriverFailed: if it cannot be loaded.
        """
        known = self._classes.get((family, name))
        if known is None:
            plugin = find(family, name)
            known = self._classes[family, name] = (plugin.load(), plugin.owner)
        return known

    def provide(self, family: Family, driver_class: type, owner: str = "this program") -> str:
        """Let a class that no entry point names be opened by its own name; returns that."""
        name = str(cast(Any, driver_class).name)
        self._classes[family, name] = (driver_class, owner)
        return name

    def canonical_name(self, family: Family, name: str) -> str:
        """Return the driver's own name for a name or alias (Docker's ``overlay2``)."""
        return str(cast(Any, self.driver_class(family, name)[0]).name)

    def declared_options(self, family: Family, name: str) -> Sequence[Option[object]]:
        """Return what the driver declared, in its order."""
        return tuple(cast(Any, self.driver_class(family, name)[0]).options)

    def storage(
        self,
        name: str,
        root: Path,
        options: Iterable[str] = (),
        logger: logging.Logger | None = None,
    ) -> StorageHandle:
        """Open a storage driver for *root*, the directory that holds its snapshots.

        Raises:
            NotFound, DriverFailed: as ``driver_class``.
            InvalidConfig: for options that it does not take, all at once.
        """
        driver_class, owner = self.driver_class("storage", name)
        canonical = str(cast(Any, driver_class).name)
        names = self.storage_names(canonical)
        others = {plugin.name for plugin in self.plugins("storage")} - names
        given = own_options(options, names, others)
        parsed = parse_options(canonical, self.declared_options("storage", name), given)
        driver = self._construct("storage", name, owner, root, parsed, logger)
        return StorageHandle(driver, owner, self._observers)

    def storage_names(self, canonical: str) -> set[str]:
        """Return a storage driver's own name and its aliases."""
        plugins = self.plugins("storage")
        values = {plugin.value for plugin in plugins if plugin.name == canonical}
        return {plugin.name for plugin in plugins if plugin.value in values} | {canonical}

    def network(
        self,
        name: str,
        context: NetworkContext,
        options: Iterable[str] = (),
        logger: logging.Logger | None = None,
    ) -> NetworkHandle:
        """Open a network driver; raises as ``storage``."""
        _, owner = self.driver_class("network", name)
        parsed = parse_options(name, self.declared_options("network", name), options)
        driver = self._construct("network", name, owner, context, parsed, logger)
        return NetworkHandle(driver, owner, self._observers)

    def firewall(
        self,
        name: str,
        context: NetworkContext,
        options: Iterable[str] = (),
        logger: logging.Logger | None = None,
    ) -> FirewallHandle:
        """Open a firewall backend; raises as ``storage``."""
        _, owner = self.driver_class("firewall", name)
        parsed = parse_options(name, self.declared_options("firewall", name), options)
        driver = self._construct("firewall", name, owner, context, parsed, logger)
        return FirewallHandle(driver, owner, self._observers)

    def _construct(
        self,
        family: Family,
        name: str,
        owner: str,
        first: object,
        options: Options,
        logger: logging.Logger | None,
    ) -> object:
        driver_class, _ = self.driver_class(family, name)
        logger = logger or logging.getLogger(f"stowage.{family}.{name}")
        try:
            return driver_class(first, options, logger)
        except StowageError:
            raise
        except Exception as error:
            raise DriverFailed(
                f"{family} driver {name!r} of {owner} cannot be constructed",
                details=f"{type(error).__name__}: {error}",
            ) from error

    def _observe(self, name: str) -> None:
        observer_class, owner = self.driver_class("observers", name)
        observer = observer_class()
        validate("observers", observer, owner)
        self._observers.append(observer)
        around = getattr(observer, "observer_effect", None)
        if around is not None:
            effects.observe(around)


def own_options(options: Iterable[str], names: set[str], others: set[str]) -> list[str]:
    """Return the options meant for a driver called *names*: all but those of *others*.

    ``storage-opts`` serves every driver of a root, as Docker writes it: ``overlay2.index=off``.
    A prefix that names no driver stays, for the driver to know or to refuse.
    """
    own = []
    for option in options:
        prefix, _, rest = option.partition("=")[0].partition(".")
        if rest and prefix in names:
            own.append(option.partition(".")[2])
        elif not rest or prefix not in others:
            own.append(option)
    return own


__all__ = ["Handle", "NetworkContext", "Registry", "own_options"]
