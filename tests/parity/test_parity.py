"""Docker's everyday command lines do here what dockerd did, but for the differences listed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stowage.testing.lab import Lab

from .listed import UNFINISHED, drop, listed
from .normal import normal
from .scenes import Result, Scene, compared, differing, play, recorded, scenes
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


def test_there_are_enough_lines_and_each_is_recorded() -> None:
    """At least 150, the same and in the same order as in commands.txt."""
    lines = [(scene.topic, line) for scene in scenes() for line in scene.lines if compared(line)]

    assert len(lines) >= 150
    assert [(one.topic, one.line) for one in recorded()] == lines


def test_every_listed_line_is_one_that_is_compared() -> None:
    lines = {line for scene in scenes() for line in scene.lines if compared(line)}

    assert set(listed()) - lines == set()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Error response from daemon: no\n", "no\n"),
        ("docker: Error response from daemon: no.\n", "docker: no.\n"),
        ("stowage: no.\n  why\nHint: do it\n", "docker: no.\n"),
        ("See 'stowage run --help'.", "See 'docker run --help'."),
        ("f" * 11 + "1 " + "ab" * 32, "ID12 ID"),
        ("Up 3 seconds, 2 minutes ago", "Up SPAN, SPAN"),
        ("0.0.0.0:32768->80/tcp", "0.0.0.0:PORT->80/tcp"),
        ("0.0.0.0:8080->80/tcp", "0.0.0.0:8080->80/tcp"),
    ],
)
def test_what_may_differ_is_taken_away(text: str, expected: str) -> None:
    assert normal(text, {}) == expected


def test_a_reason_goes_with_its_last_line(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# T\n\n### A\n\nWhy.\n\n- `one`\n- `two`\n\n### B\n\n- `three`\n")

    drop({"one", "three"}, page)

    assert listed(page) == {"two": "A"}
    assert page.read_text() == "# T\n\n### A\n\nWhy.\n\n- `two`\n\n"
