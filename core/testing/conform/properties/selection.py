"""S: how a driver is chosen, what its probe leaves, its options and its status."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import strategies as st

from ....errors import (
    FailedPrecondition,
    InvalidConfig,
    NotFound,
    NotSupported,
)
from ....explain import report
from ....hookspecs import hookimpl
from ....model import API_VERSION, Finding, StorageProbe
from ....options import IntegerType, Option, SizeType
from ....registry import Registry
from ....select import Request, Selection, select_storage
from ..case import Case
from ..footprint import assert_footprint, footprint
from ..registry import prop
from ..subject import Subject

_LOGGER = logging.getLogger("stowage.testing.conform")
_BAD = Finding("it does not work here, on purpose", "nothing helps, on purpose")


def _prober(subject: Subject, answers: dict[str, StorageProbe]) -> Callable[[str], StorageProbe]:
    """Probes of the subject's registry; *answers* replaces those of some drivers."""

    def probe(name: str) -> StorageProbe:
        if name in answers:
            return answers[name]
        root = subject.layout.driver_root(name)
        options = subject.options if name == subject.name else ()
        return subject.registry.storage(name, root, options, _LOGGER).probe

    return probe


def _select(
    subject: Subject, request: Request, answers: dict[str, StorageProbe] | None = None
) -> Selection:
    return select_storage(request, subject.registry, _prober(subject, answers or {}))


@prop(
    "S1", "The choice is the same each time, and the one that the explanation puts first", once=True
)
def autodetect(case: Case) -> None:
    subject = case.subject
    probe = _prober(subject, {})
    first = select_storage(Request(), subject.registry, probe)
    assert select_storage(Request(), subject.registry, probe).name == first.name
    best = next(one for one in report(subject.registry, "storage", probe) if one.works)
    assert first.name == best.name, f"chosen is {first.name}, the best is {best.name}"
    explicit = _select(subject, Request(explicit=subject.name, origin="flag --storage-driver"))
    assert explicit.name == subject.name


@prop(
    "S2", "A probe leaves no trace, whether it says yes or no, and says the same again", weight=0.2
)
def probe_leaves_nothing(case: Case) -> None:
    subject = case.subject
    root = subject.root / "elsewhere" / "storage"
    exists = case.maybe()
    subject.drain()
    if exists:
        root.mkdir(parents=True)
    before = footprint(subject.root)
    probes = []
    for _ in range(2):
        handle = subject.registry.storage(subject.name, root, subject.options, _LOGGER)
        probes.append(handle.probe)
        handle.close()
    assert_footprint(before, subject.root)
    assert root.exists() == exists, f"{root} was made"
    assert probes[0] == probes[1], f"first {probes[0]}, then {probes[1]}"
    if exists:
        root.rmdir()
        root.parent.rmdir()


@prop(
    "S3",
    "The recorded driver stays; state of two without a record is refused, naming both",
    once=True,
)
def prior_state(case: Case) -> None:
    subject = case.subject
    assert _select(subject, Request(recorded=subject.name)).name == subject.name
    assert _select(subject, Request(with_state=[subject.name])).name == subject.name
    try:
        _select(subject, Request(with_state=[subject.name, "another"]))
    except FailedPrecondition as error:
        said = str(error)
    else:
        raise AssertionError("with state of two drivers one is chosen")
    assert subject.name in said, f"it does not name {subject.name}: {said}"
    assert "another" in said, f"it does not name the other: {said}"


@prop(
    "S4",
    "Asked for by name, a driver that does not work is an error with reason and remedy",
    once=True,
)
def explicit_and_bad(case: Case) -> None:
    subject = case.subject
    bad = StorageProbe(findings=(_BAD,))
    for request in (
        Request(explicit=subject.name, origin="flag --storage-driver"),
        Request(recorded=subject.name),
        Request(with_state=[subject.name]),
    ):
        try:
            chosen = _select(subject, request, {subject.name: bad})
        except NotSupported as error:
            said = str(error)
        else:
            raise AssertionError(f"{request}: {chosen.name} is chosen instead")
        assert _BAD.reason in said, f"the reason is not said: {said}"
        assert _BAD.remedy in said, f"the remedy is not said: {said}"


@prop("S5", "Each option is taken with its own default, and refused by name with a wrong value")
def options(case: Case) -> None:
    subject = case.subject
    declared = subject.registry.declared_options("storage", subject.name)
    root = subject.layout.driver_root(subject.name)

    def opened(*given: str) -> None:
        subject.registry.storage(subject.name, root, [*subject.options, *given], _LOGGER).close()

    for option in declared:
        assert option.meaning.strip(), f"option {option.name} is not documented"
        if option.allowed_in("root") and option.default is not None and not option.default_text:
            opened(f"{option.name}={option.shown_default}")
            opened(f"{subject.name}.{option.name}={option.shown_default}")
    misspelt = "nosuch" + case.draw(st.text("abc", max_size=5))
    _refused_by_name(lambda: opened(f"{misspelt}=1"), misspelt)
    picked = [option for option in declared if option.allowed_in("root") and _wrong(option)]
    if picked:
        option = case.one_of(*picked)
        value = _wrong(option)
        _refused_by_name(lambda: opened(f"{option.name}={value}"), option.name)


def _wrong(option: Option[Any]) -> str | None:
    """A value that the option's type cannot take."""
    if isinstance(option.type, IntegerType | SizeType):
        return "x"
    try:
        option.type.parse("\0no such value")
    except ValueError:
        return "\0no such value"
    return None


def _refused_by_name(call: Callable[[], None], name: str) -> None:
    try:
        call()
    except InvalidConfig as error:
        said = str(error)
    else:
        raise AssertionError(f"option {name} is accepted with a wrong value, or at all")
    assert name in said, f"{name!r} is not named: {said}"


@prop("S5b", "Status is plain text, the same each time, and says where it lies", once=True)
def status(case: Case) -> None:
    handle = case.subject.handle
    first = handle.status()
    assert handle.status() == first, f"first {first}, then {handle.status()}"
    wrong = {
        key: value
        for key, value in first.items()
        if not (isinstance(key, str) and isinstance(value, str) and key)
    }
    assert not wrong, f"no text: {wrong}"


@prop(
    "S6",
    "A driver that is not installed is NotFound, with the nearest name where there is one",
    once=True,
)
def removed_driver(case: Case) -> None:
    subject = case.subject
    try:
        Registry().storage(subject.name + "x", Path(subject.root), (), _LOGGER)
    except NotFound as error:
        said = str(error)
    else:
        raise AssertionError("a driver of that name can be opened")
    assert subject.name + "x" in said, f"it does not name it: {said}"


class _RaisesInProbe:
    """A neighbour whose probe is broken."""

    name: ClassVar[str] = "raises-in-probe"
    api_version: ClassVar[int] = API_VERSION
    options: ClassVar[tuple[Option[object], ...]] = ()

    def __init__(self, root: Path, options: object, logger: logging.Logger) -> None:
        pass

    @hookimpl
    def storage_probe(self) -> StorageProbe:
        raise RuntimeError("a bug in a driver")

    @hookimpl
    def storage_prepare(self) -> None:
        raise NotImplementedError

    @hookimpl
    def storage_mounts(self) -> list[object]:
        raise NotImplementedError


@prop("S7", "A driver whose probe raises is reported as not working, and hides no other", once=True)
def raising_probe(case: Case) -> None:
    subject = case.subject
    name = subject.registry.provide("storage", _RaisesInProbe)
    probe = subject.registry.storage(name, subject.layout.driver_root(name), (), _LOGGER).probe
    assert not probe.ok, "it is said to work"
    assert "a bug in a driver" in probe.findings[0].reason, f"it says {probe.findings}"
    try:
        _select(subject, Request(explicit=name))
    except NotSupported:
        pass
    else:
        raise AssertionError("a driver is chosen that does not work")
    assert _select(subject, Request(explicit=subject.name)).name == subject.name
