"""Flags are read as Docker's users write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowage.cli.command import Command
from stowage.cli.flags import Flag, Parsed, UsageError, integer, many, parse, switch

FLAGS = (
    switch("interactive", "Keep stdin open", "i"),
    switch("tty", "Allocate a terminal", "t"),
    switch("rm", "Remove it"),
    many("env", "Set variables", "e"),
    Flag("name", "Name it"),
    Flag("last", "Show so many", "n", value="int", default=-1, parse=integer),
)


def read(*words: str, interspersed: bool = False) -> Parsed:
    return parse(FLAGS, words, interspersed=interspersed)


@pytest.mark.parametrize(
    "words",
    [
        ("-it", "-e", "A=1", "--env", "B=2"),
        ("-i", "-t", "-eA=1", "--env=B=2"),
        ("--interactive", "--tty=true", "-e=A=1", "-e=B=2"),
        ("-tie", "A=1", "-e", "B=2"),
    ],
)
def test_every_way_of_writing_is_one(words: tuple[str, ...]) -> None:
    """Short flags join, values stand apart, behind ``=`` or right behind the letter."""
    parsed = read(*words, "img")

    assert (parsed.on("interactive"), parsed.on("tty")) == (True, True)
    assert parsed.texts("env") == ("A=1", "B=2")
    assert parsed.arguments == ("img",)


def test_flags_stop_at_the_image() -> None:
    """What follows belongs to the container, ``--`` and ``--help`` too."""
    parsed = read("--rm", "img", "ls", "--rm=false", "-la", "--", "--help")

    assert parsed.on("rm")
    assert parsed.arguments == ("img", "ls", "--rm=false", "-la", "--", "--help")


def test_flags_may_follow_arguments_elsewhere() -> None:
    """``rm a -f`` is ``rm -f a``; after ``--`` nothing is a flag."""
    parsed = read("a", "--rm", "b", "--", "-c", interspersed=True)

    assert parsed.on("rm")
    assert parsed.arguments == ("a", "b", "-c")


def test_a_switch_is_taken_back() -> None:
    """The last one holds."""
    assert not read("--rm", "--rm=false").on("rm")
    assert not read("-i", "-i=0").on("interactive")


def test_a_lone_dash_is_an_argument() -> None:
    """It means standard input."""
    assert read("-", "x", interspersed=True).arguments == ("-", "x")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--nosuch",), "unknown flag: --nosuch"),
        (("--nam", "x"), "unknown flag: --nam; did you mean 'name'?"),
        (("-z",), "unknown shorthand flag: 'z' in -z"),
        (("-itz",), "unknown shorthand flag: 'z' in -itz"),
        (("--name",), "flag needs an argument: --name"),
        (("-e",), "flag needs an argument: 'e' in -e"),
        (("-n", "x"), 'invalid argument "x" for "-n, --last" flag: expected a whole number'),
        (("--rm=x",), 'invalid argument "x" for "--rm" flag: expected true or false'),
    ],
)
def test_errors_are_pflags(words: tuple[str, ...], message: str) -> None:
    """The words and the code of Docker's users."""
    with pytest.raises(UsageError) as caught:
        read(*words)

    assert str(caught.value) == message
    assert caught.value.exit_code == 125


@given(st.lists(st.text(max_size=6), max_size=8))
def test_no_words_crash_the_parser(words: list[str]) -> None:
    """A parse, or a usage error; and flags never eat what follows the first argument."""
    try:
        parsed = read(*words)
    except UsageError:
        return
    count = len(parsed.arguments)
    assert parsed.arguments == tuple(words[len(words) - count :])


@given(
    st.lists(
        st.tuples(st.sampled_from(["-e", "--env", "="]), st.text(min_size=1, max_size=5)),
        max_size=4,
    ),
    st.lists(st.text(max_size=5), max_size=3),
)
def test_values_come_back_as_written(pairs: list[tuple[str, str]], rest: list[str]) -> None:
    """Whatever bytes a value has, a dash or an ``=`` in front included."""
    words: list[str] = []
    for form, value in pairs:
        words += [f"--env={value}"] if form == "=" else [form, value]

    parsed = read(*words, "--", *rest)

    assert parsed.texts("env") == tuple(value for _, value in pairs)
    assert parsed.arguments == tuple(rest)


@pytest.mark.parametrize(
    ("usage", "least", "most"),
    [
        ("[OPTIONS] IMAGE [COMMAND] [ARG...]", 1, None),
        ("[OPTIONS] CONTAINER [CONTAINER...]", 1, None),
        ("SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", 2, 2),
        ("[OPTIONS] file|- [REPOSITORY[:TAG]]", 1, 2),
        ("[OPTIONS]", 0, 0),
    ],
)
def test_usage_says_how_many_arguments(usage: str, least: int, most: int | None) -> None:
    """What is in brackets may be left out; dots go on."""
    assert Command(usage, lambda context, parsed: 0).arity == (least, most)
