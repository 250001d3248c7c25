"""Which of a root's storage options are a driver's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from stowage.errors import InvalidConfig
from stowage.registry import Registry, own_options

NAMES, OTHERS = {"overlay", "overlay2"}, {"vfs"}


@pytest.mark.parametrize(
    ("given", "own"),
    [
        (["index=off"], ["index=off"]),
        (["overlay.index=off"], ["index=off"]),
        (["overlay2.index=off"], ["index=off"]),
        (["vfs.x=1"], []),
        (["foo.bar=1"], ["foo.bar=1"]),
        (["dm.basesize=1.5G"], ["dm.basesize=1.5G"]),
        (["size=1.5G"], ["size=1.5G"]),
    ],
)
def test_options_of_others_are_left_to_them(given: list[str], own: list[str]) -> None:
    assert own_options(given, NAMES, OTHERS) == own


def test_an_alias_is_a_prefix_too(tmp_path: Path) -> None:
    handle = Registry().storage("overlay", tmp_path, ["overlay2.index=off"])
    assert handle.name == "overlay"


@pytest.mark.parametrize("option", ["overlay2.metacoppy=1", "foo.bar=1"])
def test_an_unknown_option_under_any_prefix_is_refused(option: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="unknown option"):
        Registry().storage("overlay", tmp_path, [option])
