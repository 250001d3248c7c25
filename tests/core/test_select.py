"""The decision table of driver selection, on stub drivers found through a stub registry."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import ClassVar, cast

import pytest

from stowage.errors import DriverFailed, FailedPrecondition, InvalidConfig, NotFound, NotSupported
from stowage.explain import report
from stowage.model import Finding, StorageProbe
from stowage.plugins import Plugin
from stowage.registry import Registry
from stowage.select import Request, select_storage

WORKS = StorageProbe()
FAILS = StorageProbe(findings=(Finding("no kernel support", "load a module"),))


class StubRegistry:
    """Knows drivers by name with a priority; ``alias`` is another name of ``fast``."""

    priorities: ClassVar = {"fast": 100, "middling": 50, "copy": 0}

    def plugins(self, family: str) -> Sequence[Plugin]:
        names = [*self.priorities, "alias"]
        return [Plugin("storage", name, f"m:{name}", f"dist-{name} 1") for name in names]

    def driver_class(self, family: str, name: str) -> tuple[object, str]:
        own = "fast" if name == "alias" else name
        if own not in self.priorities:
            raise NotFound("storage driver", name)
        return SimpleNamespace(name=own, priority=self.priorities[own]), f"dist-{own} 1"

    def canonical_name(self, family: str, name: str) -> str:
        return str(self.driver_class(family, name)[0].name)  # type: ignore[attr-defined]


REGISTRY = cast(Registry, StubRegistry())


def prober(**working: bool):  # type: ignore[no-untyped-def]
    return lambda name: WORKS if working.get(name) else FAILS


ALL = prober(fast=True, middling=True, copy=True)


def test_an_explicit_name_wins() -> None:
    chosen = select_storage(Request(explicit="copy", origin="flag"), REGISTRY, ALL)
    assert (chosen.name, chosen.rule, chosen.warning) == ("copy", "flag", None)


def test_an_alias_selects_the_driver_itself() -> None:
    assert select_storage(Request(explicit="alias"), REGISTRY, ALL).name == "fast"


def test_an_explicit_driver_that_fails_is_an_error_with_reason_and_remedy() -> None:
    with pytest.raises(NotSupported) as caught:
        select_storage(Request(explicit="fast"), REGISTRY, prober(copy=True))
    assert caught.value.details == "no kernel support"
    assert caught.value.resolution == "load a module"


def test_an_unknown_explicit_driver_is_not_found() -> None:
    with pytest.raises(NotFound):
        select_storage(Request(explicit="nosuch"), REGISTRY, ALL)


def test_the_recorded_default_comes_before_priority() -> None:
    assert select_storage(Request(recorded="copy"), REGISTRY, ALL).name == "copy"


def test_a_recorded_default_that_fails_is_loud() -> None:
    with pytest.raises(NotSupported, match="recorded in this root"):
        select_storage(Request(recorded="fast"), REGISTRY, prober(copy=True))


def test_another_default_than_the_recorded_one_is_refused_with_both_names() -> None:
    request = Request(explicit="copy", origin="flag", recorded="fast", with_state=["fast"])
    with pytest.raises(FailedPrecondition, match=r"'fast'.*'copy'"):
        select_storage(request, REGISTRY, ALL)


def test_another_default_is_taken_while_nothing_lives_in_the_root() -> None:
    request = Request(explicit="copy", recorded="fast")
    assert select_storage(request, REGISTRY, ALL).name == "copy"


def test_state_of_one_driver_without_a_record_decides() -> None:
    assert select_storage(Request(with_state=["middling"]), REGISTRY, ALL).name == "middling"


def test_state_of_two_drivers_without_a_record_is_refused_naming_both() -> None:
    with pytest.raises(FailedPrecondition, match="copy and fast"):
        select_storage(Request(with_state=["fast", "copy"]), REGISTRY, ALL)


def test_the_highest_priority_that_works_is_chosen() -> None:
    assert select_storage(Request(), REGISTRY, ALL).name == "fast"
    assert select_storage(Request(), REGISTRY, prober(middling=True, copy=True)).name == "middling"


def test_falling_back_to_the_last_resort_is_never_silent() -> None:
    chosen = select_storage(Request(), REGISTRY, prober(copy=True))
    assert chosen.name == "copy"
    assert chosen.warning is not None
    assert "fast: no kernel support" in chosen.warning


def test_a_fall_back_names_a_driver_that_cannot_even_be_loaded() -> None:
    class Blocking(StubRegistry):
        priorities: ClassVar = {"fast": 100, "copy": 0}

        def driver_class(self, family: str, name: str) -> tuple[object, str]:
            if name != "copy":
                raise DriverFailed(f"{name!r} cannot be used", details="blocked")
            return super().driver_class(family, name)

    chosen = select_storage(Request(), cast(Registry, Blocking()), ALL)
    assert chosen.warning is not None
    assert "fast: blocked" in chosen.warning


def test_nothing_that_works_names_what_each_one_lacks() -> None:
    with pytest.raises(NotSupported) as caught:
        select_storage(Request(), REGISTRY, prober())
    assert caught.value.details is not None
    assert caught.value.details.splitlines() == [
        "fast: no kernel support",
        "middling: no kernel support",
        "copy: no kernel support",
    ]


def test_aliases_are_considered_once() -> None:
    reports = report(REGISTRY, "storage", ALL)
    assert [(r.name, r.aliases) for r in reports] == [
        ("fast", ("alias",)),
        ("middling", ()),
        ("copy", ()),
    ]


def test_a_wrong_option_never_chooses_another_driver() -> None:
    """It is an error of the driver that would have been chosen; a lower one's does not matter."""

    def mistyped(name: str, wrong: str) -> StorageProbe:
        if name == wrong:
            raise InvalidConfig(f"invalid options for storage driver {name!r}", ["unknown option"])
        probed: StorageProbe = ALL(name)
        return probed

    with pytest.raises(InvalidConfig, match="'fast'"):
        select_storage(Request(), REGISTRY, lambda name: mistyped(name, "fast"))
    assert select_storage(Request(), REGISTRY, lambda name: mistyped(name, "copy")).name == "fast"
