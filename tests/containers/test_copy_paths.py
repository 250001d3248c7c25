"""Where a copy goes and what it is called: Docker's table (docker cp, "Extended description")."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowage.containers.copy_paths import Copy, End, plan, split_argument, split_arguments
from stowage.errors import FailedPrecondition, InvalidArgument, NotFound, StowageError

FILE, DIRECTORY, CONTENTS = (
    End("/s/a"),
    End("/s/d", is_directory=True),
    End("/s/d/.", is_directory=True),
)
NEW, NEW_SLASH = End("/t/n", exists=False), End("/t/n/", exists=False)
OLD_FILE, OLD_DIRECTORY = End("/t/f"), End("/t/e", is_directory=True)


@pytest.mark.parametrize(
    ("source", "destination", "expected"),
    [
        (FILE, NEW, Copy("n", "/t")),
        (FILE, OLD_FILE, Copy("f", "/t")),
        (FILE, OLD_DIRECTORY, Copy("a", "/t/e")),
        (DIRECTORY, NEW, Copy("n", "/t")),
        (DIRECTORY, NEW_SLASH, Copy("n", "/t")),
        (DIRECTORY, OLD_DIRECTORY, Copy("d", "/t/e")),
        (CONTENTS, NEW, Copy("n", "/t")),
        (CONTENTS, OLD_DIRECTORY, Copy("", "/t/e")),
        (End("/", is_directory=True), OLD_DIRECTORY, Copy("", "/t/e")),
    ],
)
def test_a_copy_goes_where_docker_puts_it(source: End, destination: End, expected: Copy) -> None:
    assert plan(source, destination) == expected


def test_what_cannot_be_copied_is_refused_in_dockers_words() -> None:
    with pytest.raises(NotFound) as missing:
        plan(FILE, NEW_SLASH)
    assert missing.value.brief == "no such directory"
    with pytest.raises(FailedPrecondition, match="cannot copy directory"):
        plan(DIRECTORY, OLD_FILE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("web:/x", ("web", "/x")),
        ("web:x:y", ("web", "x:y")),
        ("/a:b", (None, "/a:b")),
        ("./a:b", (None, "./a:b")),
        ("plain", (None, "plain")),
        ("-", (None, "-")),
    ],
)
def test_an_argument_names_a_container_or_not(text: str, expected: object) -> None:
    assert split_argument(text) == expected


@pytest.mark.parametrize(
    ("source", "destination", "words"),
    [
        ("a", "b", "must specify at least one container source"),
        ("a:/x", "b:/y", "copying between containers is not supported"),
        ("", "b:/y", "source can not be empty"),
        ("a:/x", "", "destination can not be empty"),
    ],
)
def test_one_end_is_a_containers(source: str, destination: str, words: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        split_arguments(source, destination)
    assert refusal.value.brief == words


paths = st.from_regex(r"(/[a-c.]{1,3}){0,3}(/|/\.)?", fullmatch=True).map(lambda text: text or "/")
ends = st.builds(End, paths, st.booleans(), st.booleans())


@given(ends, ends)
def test_any_copy_has_one_name_in_one_directory(source: End, destination: End) -> None:
    try:
        copy = plan(source, destination)
    except StowageError:
        return
    assert "/" not in copy.base
    assert copy.directory.startswith("/")
    assert "/../" not in copy.directory + "/"
