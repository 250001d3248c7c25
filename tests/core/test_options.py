"""Typed options: all problems at once, the nearest name offered, sizes round-trip."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowage.errors import InvalidConfig
from stowage.options import (
    BooleanType,
    ChoiceType,
    IntegerType,
    Option,
    SizeType,
    format_size,
    parse_options,
    parse_size,
)

DECLARED: tuple[Option[object], ...] = (
    Option("index", ChoiceType(("auto", "on", "off")), "auto", "how to index"),
    Option("size", SizeType(1024), None, "limit", scope="snapshot"),
    Option("depth", IntegerType(1, 500, "layers"), 500, "deepest chain"),
    Option("volatile", BooleanType(), False, "no syncs"),
)


def test_defaults_stand_where_nothing_is_given() -> None:
    options = parse_options("d", DECLARED, [])
    assert dict(options) == {"index": "auto", "depth": 500, "volatile": False}
    assert options.given == frozenset()


def test_a_key_may_carry_the_drivers_name() -> None:
    assert parse_options("d", DECLARED, ["d.depth=7"]).integer("depth") == 7


def test_every_problem_is_in_one_report() -> None:
    with pytest.raises(InvalidConfig) as caught:
        parse_options("d", DECLARED, ["indx=on", "depth=0", "volatile=perhaps", "naked"])
    problems = caught.value.problems
    assert problems[0] == "unknown option 'indx'; did you mean 'index'?"
    assert "expected a whole number 1 to 500 layers" in problems[1]
    assert "expected true or false" in problems[2]
    assert "'naked' has no value" in problems[3]


def test_an_option_of_the_other_scope_says_where_it_belongs() -> None:
    with pytest.raises(InvalidConfig, match="can only be given for one container"):
        parse_options("d", DECLARED, ["size=1G"])
    with pytest.raises(InvalidConfig, match="can only be given for the whole root"):
        parse_options("d", DECLARED, ["depth=3"], scope="snapshot")


@given(st.integers(0, 1 << 60))
def test_a_size_is_read_as_it_was_written(size_bytes: int) -> None:
    assert parse_size(format_size(size_bytes)) == size_bytes


@pytest.mark.parametrize(
    "text", ["", "G", "-1", "1X", "1.2.3", "ten", "٣g", "1\N{KELVIN SIGN}", "8192P", "9" * 5000]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a size"):
        parse_size(text)
