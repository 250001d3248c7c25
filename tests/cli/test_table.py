"""Rows come out as Docker's columns, templates or JSON lines."""

from __future__ import annotations

import pytest

from stowage.cli.filters import accept, pairs_of, parse_filter
from stowage.cli.flags import many, parse
from stowage.cli.table import Listing, columns
from stowage.errors import InvalidArgument

LISTING = Listing(
    {"ID": "IMAGE ID", "Tag": "TAG", "Size": "SIZE"}, ("Tag", "ID", "Size"), quiet="ID"
)
ROWS = [{"ID": "158fa3f5ad95", "Tag": "latest", "Size": "1.99MB", "Label": lambda key: key * 2}]


def test_columns_are_laid_out_as_dockers() -> None:
    """Ten wide at least, three between; the last one has no blanks after it."""
    lines = [
        ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"],
        ["busybox", "latest", "158fa3f5ad95", "About a minute ago", "1.986MB"],
    ]

    assert columns(lines).split("\n") == [
        "REPOSITORY   TAG       IMAGE ID       CREATED              SIZE",
        "busybox      latest    158fa3f5ad95   About a minute ago   1.986MB",
    ]


@pytest.mark.parametrize(
    ("format", "quiet", "text"),
    [
        (None, False, "TAG       IMAGE ID       SIZE\nlatest    158fa3f5ad95   1.99MB"),
        ("table", False, "TAG       IMAGE ID       SIZE\nlatest    158fa3f5ad95   1.99MB"),
        (None, True, "158fa3f5ad95"),
        ("{{.Tag}}", False, "latest"),
        ("{{.Tag}}", True, "latest"),
        (r"{{.Tag}}\t{{.Size}}", False, "latest\t1.99MB"),
        (r"table {{.Size}}\t{{.Tag}}", False, "SIZE      TAG\n1.99MB    latest"),
        (r'table {{.Size}}\t{{.Label "x"}}', False, "SIZE      x\n1.99MB    xx"),
        ("json", False, '{"ID":"158fa3f5ad95","Tag":"latest","Size":"1.99MB"}'),
        ("{{json .}}", False, '{"ID":"158fa3f5ad95","Tag":"latest","Size":"1.99MB"}'),
    ],
)
def test_format_chooses(format: str | None, quiet: bool, text: str) -> None:
    """A table, a table of one's own, one line each, JSON; -q gives ids."""
    assert LISTING.show(ROWS, format=format, quiet=quiet) == text


def test_an_empty_table_has_its_headings() -> None:
    """As ``docker ps`` without containers; -q prints nothing."""
    assert LISTING.show([]) == "TAG       IMAGE ID   SIZE"
    assert LISTING.show([], quiet=True) == ""


def test_filters_join_as_dockers_do() -> None:
    """Values of one key are alternatives, labels must all hold, keys must all hold."""
    tests = {"name": "web".__contains__, "label": {"a", "b"}.__contains__}

    assert accept([("name", "x"), ("name", "e")], tests)
    assert not accept([("name", "e"), ("label", "a"), ("label", "c")], tests)
    assert accept([("label", "a"), ("label", "b")], tests)
    flags = (many("filter", "", parse=parse_filter),)
    parsed = parse(flags, ["--filter", "nam=x"])
    with pytest.raises(InvalidArgument, match="Invalid filter 'nam'; did you mean 'name'"):
        pairs_of(parsed, tests)
    with pytest.raises(ValueError, match="bad format of filter"):
        parse_filter("x")
