"""Whole numbers: ASCII digits of at most 64 bits, or a typed refusal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowage.numbers import parse_whole


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_every_number_of_64_bits_is_read_back(value: int) -> None:
    assert parse_whole(str(value)) == value


@pytest.mark.parametrize("text", ["", "1_000", " 1", "٣", "1.0", "0x10", "--1", "½"])
def test_what_is_no_whole_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a whole number"):
        parse_whole(text)


@pytest.mark.parametrize("text", [str(1 << 63), str(-(1 << 63) - 1), "9" * 5000])
def test_what_is_larger_is_out_of_range(text: str) -> None:
    with pytest.raises(ValueError, match="value out of range"):
        parse_whole(text)
