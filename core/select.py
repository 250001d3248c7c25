"""Which storage driver a root uses, and why: a decision table, not a guess.

1. explicit (flag, environment, file): that one, or an error with its reasons;
2. the default that the root recorded at first use: that one, or a loud error, for otherwise the
   images would seem to be gone;
3. state on disk of exactly one driver and no record: that one; of several: refused, naming them;
4. the driver with the highest ``priority`` whose probe says it works. Falling back to a driver
   of priority 0 or less (a last resort) is never silent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from .errors import FailedPrecondition, InvalidConfig, NotSupported
from .explain import report
from .model import StorageProbe
from .registry import Registry

#: Opens nothing for good: returns what the driver's probe says for this root.
Prober = Callable[[str], StorageProbe]


class Selection(Struct, frozen=True):
    """The driver that was chosen, by which *rule*, and a *warning* if it is a last resort."""

    name: str
    rule: str
    warning: str | None = None


class Request(Struct, frozen=True):
    """What the decision hangs on.

    *explicit* is the asked-for name, *origin* where it was asked ("flag --storage-driver");
    *recorded* the root's default; *with_state* the drivers that have snapshots on disk.
    """

    explicit: str | None = None
    origin: str = ""
    recorded: str | None = None
    with_state: Sequence[str] = ()


def select_storage(request: Request, registry: Registry, probe: Prober) -> Selection:
    """Choose the root's default storage driver.

    Raises:
        NotFound, NotSupported: if the explicit or the recorded driver does not work here.
        InvalidConfig: if the options do not fit the driver that would be chosen.
        FailedPrecondition: for state of several drivers without a record, or when another
            default than the recorded one is asked for while snapshots live in the root.
    """
    if request.explicit is not None:
        return _explicit(request, registry, probe)
    if request.recorded is not None:
        _require(request.recorded, probe, "the default driver recorded in this root")
        return Selection(request.recorded, "recorded as this root's default at first use")
    if len(request.with_state) > 1:
        raise FailedPrecondition(
            f"this root holds state of {' and '.join(sorted(request.with_state))} "
            "and no record of which is its default",
            resolution="name one with --storage-driver",
        )
    if request.with_state:
        (name,) = request.with_state
        _require(name, probe, "the only driver with state in this root")
        return Selection(name, "the only driver with state in this root")
    return _by_priority(registry, probe)


def _explicit(request: Request, registry: Registry, probe: Prober) -> Selection:
    assert request.explicit is not None
    name = registry.canonical_name("storage", request.explicit)
    if request.recorded not in (None, name) and request.with_state:
        raise FailedPrecondition(
            f"this root's default storage driver is {request.recorded!r}, recorded at first use, "
            f"but {request.origin or 'the configuration'} asks for {name!r}",
            resolution=f"'run --storage-driver {name}' picks it for one container, "
            f"'stowage driver default {name}' makes it the default",
        )
    _require(name, probe, request.origin or "asked for")
    return Selection(name, request.origin or "asked for")


def _require(name: str, probe: Prober, rule: str) -> None:
    result = probe(name)
    if result.ok:
        return
    remedies = [finding.remedy for finding in result.findings if finding.remedy]
    raise NotSupported(
        f"storage driver {name!r} ({rule}) does not work here",
        details="\n".join(finding.reason for finding in result.findings),
        resolution="\n".join(remedies) or "'stowage driver ls' shows what works",
    )


def _by_priority(registry: Registry, probe: Prober) -> Selection:
    wrong: dict[str, InvalidConfig] = {}

    def watched(name: str) -> StorageProbe:
        try:
            return probe(name)
        except InvalidConfig as error:
            wrong[name] = error
            raise

    ranked = report(registry, "storage", watched)
    for candidate in ranked:
        if candidate.name in wrong:  # a mistyped option must not quietly choose another driver
            raise wrong[candidate.name]
        if candidate.works:
            warning = None
            if candidate.priority <= 0:
                better = [other for other in ranked if not other.works]
                reasons = "; ".join(f"{other.name}: {other.verdict}" for other in better)
                warning = (
                    f"falling back to storage driver {candidate.name!r}, which is slow and takes "
                    f"much space, because no better one works here ({reasons})"
                )
            return Selection(candidate.name, "the first that works, by priority", warning)
    raise NotSupported(
        "no storage driver works here",
        details="\n".join(f"{candidate.name}: {candidate.verdict}" for candidate in ranked),
        resolution="'stowage driver explain' shows what each one lacks",
    )
