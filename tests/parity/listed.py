"""The differences that stay, as docs/docker-differences.md lists them: one bullet for each line."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "docker-differences.md"
#: The reason of lines whose feature is being built: they may differ, and need not.
UNFINISHED = "Being built"
_BULLET = re.compile(r"^- `(.*)`$")


def listed(page: Path = PAGE) -> Mapping[str, str]:
    """Return the reason (the heading above it) of each line that may differ."""
    found: dict[str, str] = {}
    heading = ""
    for text in page.read_text().splitlines():
        if text.startswith("### "):
            heading = text[4:]
        elif match := _BULLET.match(text):
            found[match[1]] = heading
    return found


def drop(lines: Collection[str], page: Path = PAGE) -> None:
    """Take *lines* out of *page*, and each reason that explains no line any more."""
    kept = [
        text
        for text in page.read_text().splitlines(keepends=True)
        if not ((match := _BULLET.match(text.rstrip("\n"))) and match[1] in lines)
    ]
    sections = re.split(r"(?m)^(?=##+ )", "".join(kept))
    page.write_text(
        "".join(s for s in sections if not s.startswith("### ") or re.search(r"(?m)^- `", s))
    )
