"""What is compared with Docker, and the page that lists what differs."""

from __future__ import annotations

from pathlib import Path

import pytest

from .listed import drop, listed
from .normal import normal
from .scenes import compared, recorded, scenes


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
