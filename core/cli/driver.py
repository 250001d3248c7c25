"""``driver ls``, ``explain``, ``options``, ``default``: which drivers there are, and why."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import NotFound, NotSupported, StowageError
from ..options import nearest
from .command import Command
from .context import Context
from .errors import FAILED, report
from .flags import Parsed
from .image import FORMAT, QUIET
from .table import Listing

if TYPE_CHECKING:
    from ..explain import DriverReport
    from ..options import Option

DRIVERS = Listing(
    {
        "Name": "NAME",
        "Family": "FAMILY",
        "Works": "WORKS",
        "Default": "DEFAULT",
        "Priority": "PRIORITY",
        "Aliases": "ALIASES",
        "Owner": "FROM",
        "Abilities": "ABILITIES",
        "Detail": "WHAT IT CAN DO HERE, OR WHY NOT",
        "Remedies": "REMEDY",
        "Notes": "NOTES",
    },
    ("Name", "Aliases", "Family", "Works", "Default", "Detail"),
    quiet="Name",
)

OPTIONS = Listing(
    {
        "Name": "OPTION",
        "Default": "DEFAULT",
        "Expects": "TAKES",
        "Scope": "FOR",
        "Meaning": "MEANING",
    },
    ("Name", "Default", "Expects", "Scope", "Meaning"),
    quiet="Name",
)

_SCOPES = {"root": "the root", "snapshot": "one container", "both": "either"}


def _reports(context: Context) -> Sequence[DriverReport]:
    engine = context.probing_engine
    return [*engine.storage_drivers(), *engine.network_drivers()]


def _row(report: DriverReport) -> Mapping[str, object]:
    works = "yes" if report.works else "no"
    return {
        "Name": report.name,
        "Family": report.family,
        "Works": works,
        "Default": "*" if report.chosen else "",
        "Priority": report.priority,
        "Aliases": ", ".join(report.aliases),
        "Owner": report.owner,
        "Abilities": list(report.abilities),
        "Detail": ", ".join(report.abilities) if report.works else report.verdict,
        "Remedies": [finding.remedy for finding in report.findings if finding.remedy],
        "Notes": list(report.notes),
    }


def _list(context: Context, parsed: Parsed) -> int:
    """List them; if the configured storage driver is none of them, that is said afterwards."""
    rows = [_row(report) for report in _reports(context)]
    context.print(DRIVERS.show(rows, format=parsed.text("format"), quiet=parsed.on("quiet")))
    try:
        context.probing_engine.decide()
    except NotFound as error:
        sys.stdout.flush()
        report(error, debug=context.debug)
        return FAILED
    except StowageError:  # the rows say why none works
        pass
    return 0


def _explain(context: Context, parsed: Parsed) -> None:
    wanted = parsed.arguments[0] if parsed.arguments else None
    reports = _reports(context)
    if wanted is None:
        context.print(_choice(context))
        context.print("")
    else:
        known = [name for one in reports for name in (one.name, *one.aliases)]
        reports = [one for one in reports if wanted in (one.name, *one.aliases)]
        if not reports:
            raise NotFound(
                "driver",
                wanted,
                brief=f"No such driver: {wanted}{nearest(wanted, known)}",
                resolution="'stowage driver ls' lists them",
            )
    context.print("\n\n".join(_explained(report) for report in reports))


def _choice(context: Context) -> str:
    """Say which storage driver the root uses and by which rule, or why it can use none."""
    try:
        selection = context.probing_engine.decide()
    except StowageError as error:
        return f"No storage driver is used: {error}"
    lines = [f"The storage driver of this root is {selection.name}: {selection.rule}."]
    return "\n".join([*lines, *([selection.warning] if selection.warning else [])])


def _explained(report: DriverReport) -> str:
    state = "works here" if report.works else "does not work here"
    title = f"{report.name} ({report.family}, from {report.owner}"
    title += f", also called {', '.join(report.aliases)}" if report.aliases else ""
    lines = [f"{title}): {state}{', and is the default' if report.chosen else ''}"]
    for finding in report.findings:
        lines.append("  lacks   " + finding.reason.replace("\n", "\n          "))
        lines += [f"  remedy  {finding.remedy}"] if finding.remedy else []
    if report.family == "storage" and report.works and not report.chosen:
        last = ", a last resort" if report.priority <= 0 else ""
        lines.append(
            f"  note    priority {report.priority}{last}: the highest that works is chosen"
        )
    lines += [f"  note    {note}" for note in report.notes]
    lines += [f"  can     {', '.join(report.abilities)}"] if report.abilities else []
    return "\n".join(lines)


def _options(context: Context, parsed: Parsed) -> None:
    from ..registry import Registry

    name = parsed.arguments[0]
    registry = Registry()
    family: str = "storage"
    try:
        declared = registry.declared_options("storage", name)
    except NotFound as missing:
        try:
            declared = registry.declared_options("network", name)
            family = "network"
        except NotFound:
            raise missing from None
    rows = [_option_row(option) for option in declared]
    if not rows and parsed.text("format") is None:
        context.print(f"The {family} driver {name} has no options.")
        return
    context.print(OPTIONS.show(rows, format=parsed.text("format"), quiet=parsed.on("quiet")))


def _option_row(option: Option[object]) -> Mapping[str, object]:
    return {
        "Name": option.name,
        "Default": option.shown_default,
        "Expects": option.type.expects,
        "Scope": _SCOPES[option.scope],
        "Meaning": option.meaning,
    }


def _default(context: Context, parsed: Parsed) -> None:
    context.print(context.engine.set_default_driver(parsed.arguments[0]).name)


def _new(context: Context, parsed: Parsed) -> None:
    from pathlib import Path

    from ..scaffold import new_storage_driver

    family, name = parsed.arguments
    if family != "storage":
        raise NotSupported(
            f"there is no template of a {family} driver",
            resolution="'stowage driver new storage NAME' writes a storage driver",
        )
    folder = new_storage_driver(name, Path.cwd())
    context.print(f"Wrote {folder}. Next:")
    context.print(f"  pip install -e '{folder.name}[testing]'")
    context.print(f"  stowage conform storage {name}")


COMMANDS = {
    "driver ls": Command("[OPTIONS]", _list, (FORMAT, QUIET)),
    "driver explain": Command("[DRIVER]", _explain),
    "driver new": Command("FAMILY NAME", _new),
    "driver options": Command("[OPTIONS] DRIVER", _options, (FORMAT, QUIET)),
    "driver default": Command("DRIVER", _default),
}
