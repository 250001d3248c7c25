"""Docker's everyday command lines do here what dockerd did, but for the differences listed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stowage.testing.lab import Lab

from .listed import UNFINISHED, listed
from .scenes import Result, Scene, differing, play, recorded, scenes
from .sides import Stowage, stowage


@pytest.fixture(scope="module")
def side(lab: Lab) -> Iterator[Stowage]:
    with stowage(lab) as made:
        yield made


@pytest.mark.requires("containers", "overlay", "conmon", "busybox")
@pytest.mark.parametrize("scene", scenes(), ids=lambda scene: scene.topic.replace(" ", ""))
def test_a_topic_goes_as_with_docker(scene: Scene, side: Stowage, tmp_path: Path) -> None:
    """Line by line; exactly those differ that docs/docker-differences.md lists with a reason."""
    directory = tmp_path / "work"
    directory.mkdir()
    told: dict[str, tuple[Result, Result]] = {}

    found = differing(
        [one for one in recorded() if one.topic == scene.topic],
        list(play(scene, side, directory)),
        lambda one, other: told.update({one.line: (one, other)}),
    )

    known = listed()
    assert {line: told[line] for line in found - set(known)} == {}
    lines = {line for line in scene.lines if known.get(line, UNFINISHED) != UNFINISHED}
    assert lines - found == set(), "listed as different, and is not: python -m tests.parity drop"
