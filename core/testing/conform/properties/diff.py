"""D: diff and apply."""

from __future__ import annotations

from ..case import Case
from ..registry import prop


@prop("D1", "What a snapshot changed, applied to another child of its parent, makes it the same")
def roundtrip(case: Case) -> None:
    subject = case.subject
    parent = above = None
    if case.maybe():
        parent, trees = case.chain(most=2)
        above = trees[-1]
    tree = case.layer("changed", parent, above, least=0, most=10)
    subject.prepare("copy", parent)

    subject.apply_diff("copy", of="changed")

    case.shows("copy", tree)
    subject.same("copy", "changed")
