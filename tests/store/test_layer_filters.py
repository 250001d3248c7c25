"""Filters of ``walk`` mean what containerd's do."""

from __future__ import annotations

import pytest

from stowage.errors import InvalidArgument
from stowage.layers.filters import parse_filters
from stowage.model import Kind, SnapshotInfo

ACTIVE = SnapshotInfo(1, "vfs", "work", "base", Kind.ACTIVE, 0, 0, {"a.b": "c", "x": 'q"r'})
COMMITTED = SnapshotInfo(2, "vfs", "base", None, Kind.COMMITTED, 0, 0, {})


@pytest.mark.parametrize(
    ("filters", "active", "committed"),
    [
        ((), True, True),
        (("name==work",), True, False),
        (("name!=work",), False, True),
        (("kind==active",), True, False),
        (("kind==committed",), False, True),
        (("parent",), True, False),
        (("parent==base",), True, False),
        (("parent!=base",), False, True),
        (('labels."a.b"==c',), True, False),
        (('labels."a.b"',), True, False),
        (("labels.a.b==c",), True, False),
        (('labels.x==q"r',), True, False),
        (('labels.x=="q\\"r"',), True, False),
        (("labels.missing!=c",), True, True),
        (("parent~=^ba",), True, False),
        (("name~=/^(work|base)$/",), True, True),
        (("name~=|o.k|",), True, False),
        (("kind==active,parent==base",), True, False),
        (("kind==active,parent==other",), False, False),
        (("name==work", "name==base"), True, True),
        (("name==nobody", "kind==committed"), False, True),
    ],
)
def test_a_filter_selects(filters: tuple[str, ...], active: bool, committed: bool) -> None:
    matches = parse_filters(filters)

    assert matches(ACTIVE) is active
    assert matches(COMMITTED) is committed


@pytest.mark.parametrize(
    "text", ["", "size==1", "name==", "name==a b", "name==a,", "name~=(", "labels", ",", "=="]
)
def test_a_wrong_filter_is_named(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid filter"):
        parse_filters([text])
