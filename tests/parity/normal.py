"""Taking away what may differ between two runs that did the same.

Ids, times, addresses and names of their own; the program's name and prefix; and what Stowage adds
to an error (why, and what to do about it), which Docker does not have.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_UNIT = "second|minute|hour|day|week|month|year"

#: pattern -> what stands for it; in this order. docs/docker-differences.md says them in words.
RULES: tuple[tuple[str, Any], ...] = (
    (r"\bstowage\b", "docker"),
    (r"(?m)^(docker: )?Error( response from daemon| parsing reference)?: ", r"\1"),
    (r"failed to create shim task: (OCI runtime create failed: )(?:runc create failed: )?", r"\1"),
    (r"(OCI runtime .*): unknown\b", r"\1"),
    (r"(?m)^Hint: .*\n?", ""),
    (r"; did you mean '[^']*'\?", ""),
    (r'(?m)^time="[^"]*" level=\w+ msg=', "time= "),
    (r"sha256:[0-9a-f]{64}", "sha256:ID"),
    (r"\b[0-9a-f]{64}\b", "ID"),
    (r"\b(?=[0-9a-f]*[0-9])[0-9a-f]{12}\b", "ID12"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( ?(Z|[+-]\d\d:?\d\d))?( UTC)?", "TIME"),
    (rf"(?i)\b(less than a second|about an? (minute|hour)|\d+ ({_UNIT})s?)( ago)?", "SPAN"),
    (r"\b02:42(:[0-9a-f]{2}){4}\b", "MAC"),
    (r"\b\d+(\.\d+)?MB\b", "SIZE"),
    (r"\b172\.\d+\.\d+\.\d+\b", "ADDRESS"),
    (r"\b(3[2-9]|4\d|5\d|6[0-5])\d{3}(?=->)", "PORT"),
    (r"/(docker|var/lib/docker|[^\s\"]*/data|[^\s\"]*/exec)/[^\s\"]*", "/PLACE"),
    (r" {3,}", "   "),
    (r"[ \t]+$", ""),
)  # fmt: skip


def normal(text: str, places: Mapping[str, str]) -> str:
    """Return *text* with *places* and all RULES applied; details of our errors are left out."""
    text = re.sub(r"(?m)^((?:stowage|Error): .*\n)(?:  .*\n)+", r"\1", text)
    for place, name in places.items():
        text = text.replace(place, name)
    for pattern, instead in RULES:
        text = re.sub(pattern, instead, text)
    return text
