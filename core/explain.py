"""What every driver can do here and why not: the facts behind ``driver ls`` and ``explain``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from msgspec import Struct
from msgspec.structs import replace

from .errors import StowageError
from .model import Finding, NetworkCapabilities, NetworkProbe, StorageCapabilities, StorageProbe
from .plugins import Family
from .records import field_names
from .registry import Registry

Probe = StorageProbe | NetworkProbe


class DriverReport(Struct, frozen=True):
    """One driver: where it comes from, what its probe said, whether the root uses it by default.

    *capabilities* is None for a driver that could not be loaded or does not work here.
    """

    family: Family
    name: str
    aliases: tuple[str, ...]
    owner: str
    priority: int
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    capabilities: StorageCapabilities | NetworkCapabilities | None
    chosen: bool = False

    @property
    def works(self) -> bool:
        return not self.findings

    @property
    def verdict(self) -> str:
        """``"works"``, or all that it lacks, in one line."""
        reasons = (": ".join(finding.reason.splitlines()) for finding in self.findings)
        return "works" if self.works else "; ".join(reasons)

    @property
    def abilities(self) -> tuple[str, ...]:
        """Names of the capabilities it has (``"native_diff"``, ``"max_depth=500"``)."""
        if self.capabilities is None:
            return ()
        shown = []
        for name in field_names(self.capabilities):
            value = getattr(self.capabilities, name)
            if value is True:
                shown.append(name)
            elif isinstance(value, (int, str)) and value:
                shown.append(f"{name}={value}")
        return tuple(shown)


def report(
    registry: Registry, family: Family, probe: Callable[[str], Probe], chosen: str | None = None
) -> Sequence[DriverReport]:
    """Return a report of every driver of *family*, highest priority first.

    *probe* opens a driver and returns its probe; whatever it raises becomes a finding, so one
    broken driver never hides another.
    """
    reports: dict[str, DriverReport] = {}
    aliases: dict[str, list[str]] = {}
    for plugin in registry.plugins(family):
        try:
            driver_class, owner = registry.driver_class(family, plugin.name)
        except StowageError as error:
            reason = Finding(error.details or error.brief, error.resolution or "")
            reports[plugin.name] = DriverReport(
                family, plugin.name, (), plugin.owner, -1, (reason,), (), None
            )
            continue
        name = str(cast(Any, driver_class).name)
        if plugin.name != name:
            aliases.setdefault(name, []).append(plugin.name)
        if name not in reports:
            priority = int(getattr(driver_class, "priority", 1))
            reports[name] = _probed(family, name, owner, priority, probe, name == chosen)
    return sorted(
        (_with_aliases(entry, aliases.get(entry.name, [])) for entry in reports.values()),
        key=lambda entry: (-entry.priority, entry.name),
    )


def _probed(
    family: Family,
    name: str,
    owner: str,
    priority: int,
    probe: Callable[[str], Probe],
    chosen: bool,
) -> DriverReport:
    try:
        result = probe(name)
    except StowageError as error:
        finding = Finding(str(error))
        return DriverReport(family, name, (), owner, priority, (finding,), (), None, chosen)
    capabilities = result.capabilities if result.ok else None
    return DriverReport(
        family, name, (), owner, priority, result.findings, result.notes, capabilities, chosen
    )


def _with_aliases(entry: DriverReport, aliases: list[str]) -> DriverReport:
    return replace(entry, aliases=tuple(sorted(aliases))) if aliases else entry
