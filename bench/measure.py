"""Comparing two ways of doing one thing in the same run: interleaved, medians, a ratio.

Absolute times say little about another machine; a ratio to a rival or a floor that was measured
a moment before and after says nearly all. So each round runs both sides, in turn the one and the
other first, and what prepares or clears a round is not measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter
from typing import Literal

Unit = Literal["seconds", "bytes"]


def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Side:
    """One way: *run* is measured, *before* and *after* are not."""

    name: str
    run: Callable[[], object]
    before: Callable[[], object] = _nothing
    after: Callable[[], object] = _nothing

    def seconds(self) -> float:
        """Run it once and return how long it took."""
        self.before()
        start = perf_counter()
        try:
            self.run()
            return perf_counter() - start
        finally:
            self.after()


@dataclass(frozen=True, slots=True)
class Limit:
    """What is allowed: *factor* times the rival and *extra* more."""

    factor: float = 0
    extra: float = 0

    def allowed(self, rival: float) -> float:
        return self.factor * rival + self.extra

    def text(self, unit: Unit) -> str:
        """Return it as it stands in the table."""
        parts = [f"{self.factor:g} x"] if self.factor else []
        if self.extra:
            parts.append(shown(self.extra, unit))
        return "<= " + " + ".join(parts) if parts else ""


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table: all rounds of both sides."""

    title: str
    rival: str
    limit: Limit | None
    ours_measured: Sequence[float]
    rival_measured: Sequence[float] = field(default=())
    unit: Unit = "seconds"

    @property
    def ours(self) -> float:
        return median(self.ours_measured)

    @property
    def theirs(self) -> float:
        return median(self.rival_measured)

    @property
    def ratio(self) -> float:
        """The median of ours over the median of the rival's."""
        return self.ours / self.theirs

    @property
    def within(self) -> bool | None:
        """Whether the limit is kept; None without one."""
        return None if self.limit is None else self.ours <= self.limit.allowed(self.theirs)


def compare(
    title: str, ours: Side, rival: Side, *, rounds: int, limit: Limit | None = None
) -> Figure:
    """Measure both sides *rounds* times, interleaved, after one round that does not count."""
    times: dict[str, list[float]] = {"ours": [], "rival": []}
    sides = [("ours", ours), ("rival", rival)]
    for number in range(-1, rounds):
        for key, side in sides if number % 2 else reversed(sides):
            seconds = side.seconds()
            if number >= 0:
                times[key].append(seconds)
    return Figure(title, rival.name, limit, times["ours"], times["rival"])


def table(figures: Sequence[Figure]) -> str:
    """Return the figures as lines of aligned columns."""
    rows = [("", "ours", "rival", "ratio", "allowed", "kept", "the rival")]
    rows += [
        (
            figure.title,
            shown(figure.ours, figure.unit),
            shown(figure.theirs, figure.unit),
            f"{figure.ratio:.2f}",
            figure.limit.text(figure.unit) if figure.limit else "",
            {True: "yes", False: "NO", None: ""}[figure.within],
            figure.rival,
        )
        for figure in figures
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    right = {1, 2, 3}
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def shown(value: float, unit: Unit = "seconds") -> str:
    """Return a time or a size in a unit that gives it three digits or so."""
    if unit == "bytes":
        return f"{value / (1 << 20):.2f} MiB"
    seconds = value
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 1:
        return f"{seconds * 1e3:.{1 if seconds >= 0.1 else 2}f} ms"
    return f"{seconds:.2f} s"
