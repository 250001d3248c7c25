"""Sizes, durations and times look as Docker's do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowage.cli import human
from stowage.errors import InvalidArgument

NS = human.NS


@pytest.mark.parametrize(
    ("size_bytes", "digits", "text"),
    [
        (1985512, 4, "1.986MB"),
        (1985512, 3, "1.99MB"),
        (0, 3, "0B"),
        (999, 3, "999B"),
        (1000, 3, "1kB"),
        (999_999, 3, "1MB"),
        (123_456_789, 3, "123MB"),
        (5_000_000_000, 3, "5GB"),
    ],
)
def test_sizes(size_bytes: int, digits: int, text: str) -> None:
    """Powers of 1000 with three or four digits; never 1e+03."""
    assert human.size(size_bytes, digits) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (61, "About a minute"),
        (150, "2 minutes"),
        (3600, "About an hour"),
        (5 * 3600, "5 hours"),
        (3 * 86400, "3 days"),
        (20 * 86400, "2 weeks"),
        (100 * 86400, "3 months"),
        (800 * 86400, "2 years"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    """go-units' words."""
    assert human.duration(seconds) == text


@given(st.integers(1, 4_000_000_000 * NS))
def test_a_time_is_read_back_as_it_was_written(time_ns: int) -> None:
    """To the nanosecond."""
    assert human.parse_when(human.rfc3339(time_ns)) == time_ns


@pytest.mark.parametrize(
    ("text", "time_ns"),
    [
        ("100", 100 * NS),
        ("100.5", 100 * NS + NS // 2),
        ("10s", 90 * NS),
        ("1970-01-01T00:01:40Z", 100 * NS),
        ("1970-01-01T01:01:40.25+01:00", 100 * NS + NS // 4),
    ],
)
def test_since_takes_what_docker_takes(text: str, time_ns: int) -> None:
    """Seconds since 1970, a duration ago, a time."""
    assert human.parse_when(text, now_ns=100 * NS) == time_ns


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "10", "2026-13-01", "9" * 20, "9" * 400, "9" * 400 + "h", "0001-01-01", "٣"],
)
def test_junk_is_a_typed_error(text: str) -> None:
    """With how to write it."""
    if text == "10":
        assert human.parse_when(text) == 10 * NS
        return
    with pytest.raises(InvalidArgument, match="failed to parse value as time"):
        human.parse_when(text)


def test_short_ids() -> None:
    """Twelve digits, without the algorithm."""
    assert human.short_id("sha256:" + "ab" * 32) == "abababababab"
    assert human.short_id("cd" * 32) == "cdcdcdcdcdcd"
