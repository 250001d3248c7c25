"""Running properties on a driver: examples, shrinking, time, and what is told of each.

Hypothesis makes and shrinks the examples. The smallest failing one that was seen is what the
report shows, so a run may be cut short at any time, and a driver that fails only now and then is
still reported with what it failed on.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from random import randrange
from types import TracebackType

from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.errors import HypothesisException, UnsatisfiedAssumption
from msgspec import Struct

from ...errors import InvalidArgument, NotSupported, StowageError
from ...version import VERSION
from ..abilities import missing
from .case import Case
from .places import place
from .registry import Property, find_properties
from .report import Outcome, Report
from .steps import Step, script
from .subject import Subject

#: Examples of each property, and the time that all may take, where nothing else is asked for.
EXAMPLES = 25
SECONDS = 165.0
_SHRINKING_SECONDS = 20.0

Tell = Callable[[Outcome], None]


class NotApplicable(Exception):
    """Raised by a property that finds out only as it runs that it does not apply, and why."""


class _TimeUp(BaseException):
    """No exception of its own kind: Hypothesis lets it through."""


class Plan(Struct, frozen=True):
    """How much is run. *seconds* is a limit for all properties together (None: none); each gets
    at least one example."""

    examples: int = EXAMPLES
    seed: int = 0
    seconds: float | None = SECONDS
    shrinking_seconds: float = _SHRINKING_SECONDS


class Bench:
    """Gives each example an empty subject; makes a new one where the old cannot be emptied."""

    def __init__(
        self,
        driver: str | type,
        directory: Path,
        options: Sequence[str] = (),
        *,
        on: str | Path | None = None,
    ) -> None:
        self._driver = driver
        self._directory = directory
        self._on = on if on is not None else directory
        self._options = tuple(options)
        self._subject: Subject | None = None

    @property
    def subject(self) -> Subject:
        if self._subject is None:
            subject = Subject.open(self._driver, on=self._directory, options=self._options)
            subject.on = self._on  # as whoever runs its script can have it
            self._subject = subject
        return self._subject

    def renew(self) -> None:
        """Give up the subject; what is left of it is removed as far as it can be."""
        subject, self._subject = self._subject, None
        if subject is not None:
            try:
                subject.close()
            except (StowageError, OSError, AssertionError):
                pass  # the property that broke it has failed already

    def __enter__(self) -> Bench:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.renew()


class _Failure(Struct):
    message: str
    steps: Sequence[Step]
    opening: str

    @property
    def size(self) -> tuple[int, int]:
        return len(self.steps), sum(len(step.call()) for step in self.steps)


class _Trial:
    """The run of one property."""

    def __init__(
        self, one: Property, bench: Bench, plan: Plan, examples: int, until: float
    ) -> None:
        self.property = one
        self.bench = bench
        self.plan = plan
        self.examples = examples
        self.until = until
        self.done = 0
        self.failure: _Failure | None = None
        self.broken = False
        self.over = False
        self.noted: BaseException | None = None

    def fresh(self) -> Subject:
        """Begin an example: empty the subject, or make another where that cannot be done.

        What keeps it from being emptied is a failure of the example before.
        """
        if self.done and time.monotonic() > self.until:
            self.over = True
            raise _TimeUp
        self.done += 1
        subject = self.bench.subject
        if self.broken:
            self.bench.renew()
            subject = self.bench.subject
            self.broken = False
        elif subject.names():
            self.emptied(subject)
        subject.log.clear()
        return subject

    def emptied(self, subject: Subject) -> None:
        try:
            subject.clear()
        except Exception as error:
            error.add_note("(the root could not be emptied after the example)")
            self.note(error)
            raise

    def example(self, data: st.DataObject | None) -> None:
        subject = self.fresh()
        try:
            self.property.body(Case(subject, data, self.examples, self.plan.seed, self))
            if not self.broken:
                self.emptied(self.bench.subject)
        except (UnsatisfiedAssumption, NotApplicable):
            raise
        except Exception as error:
            self.note(error)
            raise

    def spoiled(self) -> None:
        """Use the subject no more."""
        self.broken = True

    def note(self, error: BaseException) -> None:
        """Keep what failed, if it is the smallest so far; what it failed on is not used again."""
        if self.over or error is self.noted:  # over: Hypothesis wonders that nothing was drawn
            return
        self.noted, self.broken = error, True
        subject = self.bench.subject
        failure = _Failure(message_of(error), tuple(subject.log.steps), subject.opening)
        if self.failure is None:
            self.until = min(self.until, time.monotonic() + self.plan.shrinking_seconds)
        if self.failure is None or failure.size <= self.failure.size:
            self.failure = failure

    def run(self) -> None:
        if self.property.once:
            self.example(None)
            return

        @seeded(self.plan.seed)
        @hypothesis_settings(self.examples)
        @given(st.data())
        def examples(data: st.DataObject) -> None:
            self.example(data)

        examples()


def hypothesis_settings(examples: int, steps: int = 1) -> settings:
    """The settings of every run: nothing kept on disk, no time limits but our own."""
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        print_blob=False,
        verbosity=Verbosity.quiet,
        stateful_step_count=steps,
    )


def run_property(one: Property, bench: Bench, plan: Plan, until: float | None = None) -> Outcome:
    """Run one property; never raises for what the driver does."""
    started = time.monotonic()

    def outcome(status: str, reason: str = "", failure: _Failure | None = None) -> Outcome:
        seconds = time.monotonic() - started
        told = Outcome(one.name, one.text, one.family, status, seconds, trial.done, reason)
        if failure is None:
            return told
        told.message = failure.message
        told.program = [str(step) for step in failure.steps]
        title = f"{one.name}: {one.text}"
        told.snippet = script(failure.steps, failure.opening, title, failure.message)
        return told

    examples = max(1, round(plan.examples * one.weight))
    trial = _Trial(one, bench, plan, examples, until if until is not None else float("inf"))
    for ability in one.machine:
        if reason := missing(ability):
            return outcome("skipped", f"this machine lacks {ability}: {reason}")
    if lacking := one.missing(bench.subject.capabilities):
        return outcome("skipped", f"capability {lacking}")
    try:
        trial.run()
    except NotApplicable as skipped:
        return outcome("skipped", str(skipped))
    except _TimeUp:
        pass
    except Exception as error:  # noqa: BLE001  # a driver may raise anything, which is the finding
        if trial.over:
            pass
        elif trial.failure is None:
            trial.note(error)
        elif isinstance(error, HypothesisException):
            trial.failure.message += "\n(it does not fail each time that it is tried)"
    if trial.broken:
        bench.renew()
    if trial.failure is not None:
        return outcome("failed", failure=trial.failure)
    return outcome("held")


def message_of(error: BaseException) -> str:
    """Return what an exception says; of a bare ``assert``, the line that it stands in."""
    text = str(error)
    if not text and error.__traceback__ is not None:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{frame.line} ({os.path.basename(frame.filename)}:{frame.lineno})"
    lines = [f"{type(error).__name__}: {text}"]
    if isinstance(error, BaseExceptionGroup):
        lines += [message_of(inner) for inner in error.exceptions]
    elif error.__cause__ is not None and str(error.__cause__) not in text:
        lines.append(f"caused by {message_of(error.__cause__)}")
    return "\n".join(lines)


def conform(
    driver: str | type,
    *,
    on: str | Path | None = None,
    options: Sequence[str] = (),
    examples: int | None = None,
    seed: int | None = None,
    seconds: float | None = None,
    names: Iterable[str] = (),
    tell: Tell = lambda outcome: None,
) -> Report:
    """Hold a storage driver against its definition.

    Args:
        driver: an installed driver's name, or a class.
        on: where: a directory, or ``ext4``, ``xfs`` or ``btrfs`` for a loop-mounted file system
            made for the run. Without it ext4 if that can be mounted, else the directory for
            temporary files.
        options: the driver's own (``key=value``).
        examples: how many of each property; by default 25, and no more than about three minutes
            in all.
        seconds: a limit for all of them together.
        names: which properties; see :func:`.registry.find_properties`.
        tell: is told each outcome as it comes.

    Raises:
        NotFound: if there is no such driver or property.
        NotSupported: if the driver's probe says that it does not work there.
    """
    chosen = find_properties(names)
    if examples is not None and examples < 1:
        raise InvalidArgument("at least one example is needed")
    limit = seconds if seconds is not None or examples is not None else SECONDS
    plan = Plan(examples or EXAMPLES, randrange(1 << 32) if seed is None else seed, limit)
    started = time.monotonic()
    with place(on) as directory, Bench(driver, directory, options, on=on) as bench:
        require_working(bench.subject)
        report = begin_report(bench.subject, plan)
        for outcome in run_all(chosen, bench, plan):
            report.outcomes.append(outcome)
            tell(outcome)
    report.seconds = time.monotonic() - started
    return report


def run_all(chosen: Sequence[Property], bench: Bench, plan: Plan) -> Iterator[Outcome]:
    """Run *chosen*, sharing the time that there is by weight."""
    end = None if plan.seconds is None else time.monotonic() + plan.seconds
    for index, one in enumerate(chosen):
        until = None
        if end is not None:
            left = end - time.monotonic()
            rest = sum(other.weight for other in chosen[index:]) or 1.0
            until = time.monotonic() + max(0.0, min(left, 1.5 * left * one.weight / rest))
        yield run_property(one, bench, plan, until)


def require_working(subject: Subject) -> None:
    """Raise NotSupported with the findings of a probe that says no."""
    probe = subject.handle.probe
    if probe.ok:
        return
    raise NotSupported(
        f"the storage driver {subject.name!r} does not work in {subject.root.parent}",
        details="\n".join(finding.reason for finding in probe.findings),
        resolution="\n".join(finding.remedy for finding in probe.findings if finding.remedy)
        or None,
    )


def begin_report(subject: Subject, plan: Plan) -> Report:
    """Return a report that says what is tested, and where."""
    _, owner = subject.registry.driver_class("storage", subject.name)
    fields = type(subject.capabilities).__struct_fields__
    claims = {name: getattr(subject.capabilities, name) for name in fields}
    return Report(
        driver=subject.name,
        owner=owner,
        options=list(subject.options),
        backing=subject.backing,
        kernel=os.uname().release,
        version=VERSION,
        seed=plan.seed,
        examples=plan.examples,
        capabilities={
            name: list(value) if isinstance(value, tuple) else value
            for name, value in claims.items()
        },
    )


__all__ = ["Bench", "NotApplicable", "Plan", "conform", "run_property"]
