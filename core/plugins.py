"""Finding drivers and observers: one entry point each, looked at one by one.

Groups ``stowage.storage``, ``stowage.network``, ``stowage.firewall`` and ``stowage.observers``;
the entry's name is the driver's name, its value a class. Reading the list imports no driver. A
plugin that cannot be used never stops another: it carries its :attr:`Plugin.problem` instead.

``STOWAGE_PLUGINS_BLOCK=a,b`` hides plugins, ``STOWAGE_PLUGINS_ALLOW=a,b`` hides all others (both
take names of plugins or of distributions); ``STOWAGE_PLUGINS_TRACE=1`` prints each load.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from typing import Literal

from msgspec import Struct

from .errors import DriverFailed, NotFound
from .model import API_VERSION
from .options import nearest

Family = Literal["storage", "network", "firewall", "observers"]
FAMILIES: tuple[Family, ...] = ("storage", "network", "firewall", "observers")
PREFIX_BY_FAMILY: Mapping[Family, str] = {
    "storage": "storage_",
    "network": "network_",
    "firewall": "firewall_",
    "observers": "observer_",
}
_KIND_BY_FAMILY: Mapping[Family, str] = {
    "storage": "storage driver",
    "network": "network driver",
    "firewall": "firewall backend",
    "observers": "observer",
}


class Plugin(Struct, frozen=True):
    """One entry point: *value* is ``module:Class``, *owner* the distribution and its version.

    *problem* says why it cannot even be tried (blocked, or claimed by two distributions), and
    *remedy* what helps.
    """

    family: Family
    name: str
    value: str
    owner: str
    problem: str | None = None
    remedy: str = ""

    def load(self) -> type:
        """Import the class and look at its attributes.

        Raises:
            DriverFailed: naming the distribution and the reason, whatever went wrong.
        """
        if self.problem is not None:
            raise self._failed(self.problem)
        _trace(f"loading {self.family} {self.name} ({self.value}) of {self.owner}")
        module, _, attribute = self.value.partition(":")
        try:
            loaded: object = import_module(module)
            for part in attribute.split("."):
                loaded = getattr(loaded, part)
        except Exception as error:  # a stranger's module may raise anything
            raise self._failed(f"it cannot be imported: {_one_line(error)}") from error
        if not isinstance(loaded, type):
            raise self._failed(f"{self.value} is not a class")
        self._check(loaded)
        return loaded

    def _check(self, loaded: type) -> None:
        wanted = ["name", "api_version"] + (["options"] if self.family != "observers" else [])
        missing = [attribute for attribute in wanted if not hasattr(loaded, attribute)]
        if missing:
            raise self._failed(f"{self.value} lacks the attribute {' and '.join(missing)}")
        version: object = getattr(loaded, "api_version")  # noqa: B009  # unknown class
        if version != API_VERSION:
            raise self._failed(
                f"it was written for version {version!r} of the contract, this is {API_VERSION}"
            )

    def _failed(self, reason: str) -> DriverFailed:
        return DriverFailed(
            f"{_KIND_BY_FAMILY[self.family]} {self.name!r} of {self.owner} cannot be used",
            details=reason,
            resolution=self.remedy or f"report it to {self.owner}",
        )


def discover(family: Family, environ: Mapping[str, str] = os.environ) -> Sequence[Plugin]:
    """Return every plugin of *family*, sorted by name, the unusable ones with their problem."""
    found: dict[str, list[Plugin]] = {}
    for plugin in _installed(_fingerprint()):
        if plugin.family == family:
            found.setdefault(plugin.name, []).append(plugin)
    plugins = [_resolve(rivals) for rivals in found.values()]
    return sorted((_filtered(plugin, environ) for plugin in plugins), key=lambda p: p.name)


def _fingerprint() -> tuple[tuple[str, int], ...]:
    """Say what the list of installed distributions depends on: the directories on ``sys.path``."""
    found = []
    for place in sys.path:
        try:
            found.append((place, os.stat(place or ".").st_mtime_ns))
        except OSError:
            found.append((place, 0))
    return tuple(found)


@lru_cache(maxsize=1)
def _installed(fingerprint: object) -> Sequence[Plugin]:
    """Return the entry points of all families; of a distribution that is found twice, the first."""
    from importlib.metadata import distributions

    plugins: dict[Plugin, None] = {}
    owners = set()
    for distribution in distributions():
        if "[stowage." not in (distribution.read_text("entry_points.txt") or ""):
            continue
        name = distribution.name
        if name in owners:
            continue
        owners.add(name)
        owner = f"{name} {distribution.version}"
        for point in distribution.entry_points:
            group, _, family = point.group.partition(".")
            if group == "stowage" and family in FAMILIES:
                plugins[Plugin(family, point.name, point.value, owner)] = None
    return tuple(plugins)


def find(family: Family, name: str, environ: Mapping[str, str] = os.environ) -> Plugin:
    """Return the plugin called *name*.

    Raises:
        NotFound: listing what there is and the nearest name.
    """
    plugins = discover(family, environ)
    for plugin in plugins:
        if plugin.name == name:
            return plugin
    names = [plugin.name for plugin in plugins]
    kind = _KIND_BY_FAMILY[family]
    raise NotFound(
        kind,
        name,
        resolution=f"available: {', '.join(names) or 'none'}{nearest(name, names)}",
    )


def _resolve(rivals: list[Plugin]) -> Plugin:
    first = rivals[0]
    if len(rivals) == 1:
        return first
    owners = " and ".join(sorted(plugin.owner for plugin in rivals))
    problem = f"two distributions claim the name {first.name!r}: {owners}"
    return Plugin(first.family, first.name, first.value, owners, problem, "uninstall one of them")


def _filtered(plugin: Plugin, environ: Mapping[str, str]) -> Plugin:
    names = {plugin.name, plugin.owner.split(" ")[0]}
    blocked = _words(environ.get("STOWAGE_PLUGINS_BLOCK", ""))
    allowed = _words(environ.get("STOWAGE_PLUGINS_ALLOW", ""))
    if names & blocked:
        reason = "blocked by STOWAGE_PLUGINS_BLOCK"
        remedy = f"take {' or '.join(sorted(names & blocked))} out of STOWAGE_PLUGINS_BLOCK"
    elif allowed and not names & allowed:
        reason = "not in STOWAGE_PLUGINS_ALLOW"
        remedy = f"add {plugin.name} to STOWAGE_PLUGINS_ALLOW"
    else:
        return plugin
    return Plugin(plugin.family, plugin.name, plugin.value, plugin.owner, reason, remedy)


def _words(text: str) -> set[str]:
    return {word.strip() for word in text.split(",") if word.strip()}


def _trace(message: str) -> None:
    if os.environ.get("STOWAGE_PLUGINS_TRACE"):
        print(f"stowage: {message}", file=sys.stderr)


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
