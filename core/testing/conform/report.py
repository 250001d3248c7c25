"""The report of a run: held, skipped by which capability, or failed with the shrunk program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec
from msgspec import Struct, field

#: How it is written in a report, by status.
MARKS = {"held": "held", "skipped": "skipped", "failed": "FAILED"}

_LONGEST = 240
_MOST_STEPS = 40


class Outcome(Struct):
    """What became of one property.

    *reason* says why it was skipped; *program* is the shrunk one that failed, step by step, and
    *snippet* the same as a Python script.
    """

    name: str
    text: str
    family: str
    status: str
    seconds: float
    examples: int
    reason: str = ""
    message: str = ""
    program: list[str] = field(default_factory=list)
    snippet: str = ""


class Report(Struct):
    """What became of all properties of one run, and where that was."""

    driver: str
    owner: str
    options: list[str]
    backing: str
    kernel: str
    version: str
    seed: int
    examples: int
    capabilities: dict[str, bool | int | list[str]]
    outcomes: list[Outcome] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether no property failed."""
        return not self.count("failed")

    def count(self, status: str) -> int:
        """How many properties ended so."""
        return sum(outcome.status == status for outcome in self.outcomes)

    @property
    def title(self) -> str:
        """Which driver, on what."""
        options = f" ({', '.join(self.options)})" if self.options else ""
        return f"{self.driver}{options} of {self.owner} on {self.backing}, Linux {self.kernel}"

    @property
    def summary(self) -> str:
        """One line: how many of each, and how long it took."""
        counts = [f"{count} {word}" for word in MARKS if (count := self.count(word))]
        return (
            f"{len(self.outcomes)} properties: {', '.join(counts)} "
            f"in {self.seconds:.1f} s (seed {self.seed}, {self.examples} examples)"
        )

    def to_json(self) -> str:
        """Return it as JSON, for machines."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Report:
        """Read what :meth:`to_json` wrote."""
        return msgspec.json.decode(text, type=cls)


def outcome_line(outcome: Outcome) -> str:
    """Return one line for one property."""
    if outcome.status == "skipped":
        return f"{MARKS[outcome.status]:8} {outcome.name:5} {outcome.text} [{outcome.reason}]"
    effort = f"{outcome.examples} in {outcome.seconds:.1f} s"
    return f"{MARKS[outcome.status]:8} {outcome.name:5} {outcome.text} [{effort}]"


def failure_lines(outcome: Outcome) -> Iterator[str]:
    """Yield what a failed property is to be told of: message, program, script."""
    yield f"{outcome.name}: {outcome.text}"
    yield from (f"  {line}" for line in outcome.message.splitlines())
    yield "  The program, shrunk:"
    for number, step in enumerate(outcome.program[:_MOST_STEPS], 1):
        yield f"    {number}. {step if len(step) <= _LONGEST else step[: _LONGEST - 1] + '…'}"
    if len(outcome.program) > _MOST_STEPS:
        yield f"    … and {len(outcome.program) - _MOST_STEPS} more; the report in JSON has all,"
        yield "    and the script that does it again"
        return
    yield "  As a script:"
    yield from (f"    {line}".rstrip() for line in outcome.snippet.splitlines())


def by_family(report: Report) -> Mapping[str, list[Outcome]]:
    """Return the outcomes by the module that their properties stand in."""
    found: dict[str, list[Outcome]] = {}
    for outcome in report.outcomes:
        found.setdefault(outcome.family, []).append(outcome)
    return found


__all__ = ["MARKS", "Outcome", "Report", "by_family", "failure_lines", "outcome_line"]
