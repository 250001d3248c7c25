"""``conform``: hold a driver against the definition of what a driver must do."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import NotSupported
from .command import Command
from .context import Context
from .errors import FAILED
from .flags import Flag, Parsed, integer, many

if TYPE_CHECKING:
    from ..testing.conform.report import Outcome, Report

_FORMATS = ("text", "json", "html", "badge")


def _format(text: str) -> object:
    if text not in _FORMATS:
        raise ValueError(f"expected one of {', '.join(_FORMATS)}")
    return text


def _positive(text: str) -> int:
    value = integer(text)
    if value < 1:
        raise ValueError("expected a whole number above 0")
    return value


def _require_kit() -> None:
    """Raises NotSupported if what the kit itself is built on is not installed."""
    try:
        import hypothesis  # noqa: F401  # only whether it can be imported
        import pytest  # noqa: F401  # as above
    except ImportError as error:
        raise NotSupported(
            "the conformance kit is not installed",
            details=str(error),
            resolution="pip install 'stowage[testing]'",
        ) from error


def _storage(context: Context, parsed: Parsed) -> int:
    """Run in a lab, whose mounts die with it; text is printed as it comes."""
    _require_kit()
    from ..testing.conform.runner import conform
    from ..testing.lab import enter_lab

    form = parsed.text("format")
    on = parsed.text("on")
    if on is not None and Path(on).exists():
        on = str(Path(on).absolute())
    lab = enter_lab()
    logging.getLogger("stowage").addHandler(logging.NullHandler())  # faults are made on purpose
    try:
        report = conform(
            parsed.arguments[0],
            on=on,
            options=parsed.texts("option"),
            examples=parsed.number("examples"),
            seed=parsed.number("seed"),
            names=parsed.texts("property"),
            tell=_tell if form == "text" else _mark,
        )
    finally:
        lab.leave()
    if form == "text":
        _conclude(context, report)
    elif form == "json":
        context.print(report.to_json())
    elif form == "badge":
        from ..testing.conform.badge import badge

        context.print(badge(report))
    else:
        from ..testing.conform.page import page

        context.print(page(report))
    return 0 if report.passed else FAILED


def _tell(outcome: Outcome) -> None:
    from ..testing.conform.report import outcome_line

    print(outcome_line(outcome), flush=True)


def _mark(outcome: Outcome) -> None:
    """Where a person waits for a file, say how far it is."""
    if sys.stderr.isatty():
        print({"failed": "F", "skipped": "s"}.get(outcome.status, "."), end="", file=sys.stderr)


def _conclude(context: Context, report: Report) -> None:
    from ..testing.conform.report import failure_lines

    for outcome in report.outcomes:
        if outcome.status == "failed":
            context.print("\n" + "\n".join(failure_lines(outcome)))
    context.print(f"\n{report.title}\n{report.summary}")


def _properties(context: Context, parsed: Parsed) -> None:
    _require_kit()
    from ..testing.conform.registry import find_properties

    for one in find_properties(parsed.arguments):
        needs = [*one.needs, *(f"not {name}" for name in one.lacks)]
        context.print(f"{one.name:6} {one.text}" + (f" [{', '.join(needs)}]" if needs else ""))


COMMANDS = {
    "conform storage": Command(
        "[OPTIONS] DRIVER",
        _storage,
        (
            Flag(
                "examples",
                "Examples of each property (as many as three minutes allow, up to 25)",
                value="number",
                parse=_positive,
            ),
            Flag("seed", "What the examples start from", value="number", parse=integer),
            many("option", "An option of the driver", value="key=value"),
            many("property", "Only these: names, globs, letters", "p", value="name"),
            Flag(
                "format",
                "text, json, html or badge (SVG)",
                value="form",
                default="text",
                parse=_format,
            ),
            Flag("on", "A directory, or ext4, xfs, btrfs: where to test", value="place"),
        ),
    ),
    "conform properties": Command("[NAME...]", _properties),
}
