"""What is wrong in a configuration file is named with its place and a remedy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowage.config_file import parse, read_file
from stowage.errors import InvalidConfig, NotFound

FILE = Path("/etc/x.json")


def problem_of(text: str) -> str:
    with pytest.raises(InvalidConfig) as caught:
        parse(text, FILE)
    assert str(FILE) in caught.value.brief
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ('{\n  "debug": true,\n}', "line 2, column 16", "trailing comma"),
        ('{"dns": [\n"1.1.1.1",\n]}', "line 3, column 1", "trailing comma in line 2, column 10"),
        ('{"a": {"b": 1,}}', "line 1", "trailing comma"),
        ("{'debug': true}", "line 1, column 2", "single quotes"),
        ("{\"debug\": 'x'}", "line 1, column 11", "single quotes"),
        ('{\n// no\n"debug": true}', "line 2, column 1", "a comment"),
        ('{"debug": true # no\n}', "line 1, column 16", "a comment"),
        ('{"debug": True}', "line 1, column 11", "JSON writes true"),
        ('{"debug": true\n "mtu": 1}', "line 2, column 2", "a comma is missing"),
        ('{"debug" true}', "line 1, column 10", "expected a colon"),
        ('{"debug": true', "line 1, column 15", "a closing brace is missing"),
        ('{"debug": true} {}', "line 1, column 17", "nothing may follow"),
        ("[]", "line 1, column 1", "expected an object"),
        ('{"mtu": NaN}', "line 1, column 9", "NaN is not JSON"),
        ('{"mtu": 1, "mtu": 2}', "line 1, column 12", "given twice, first in line 1"),
        ('{"runtimes": {"a": 1, "a": 2}}', "line 1", "'a' is given twice in one object"),
        ("{debug: true}", "line 1, column 2", "double quotes"),
        ('{"x": ' + "[" * 100000, "line 1, column 7", "nested too deeply"),
    ],
)
def test_a_syntax_error_says_where_and_what(text: str, place: str, words: str) -> None:
    """Line and column stand in the text, with the mistake by its everyday name."""
    problem = problem_of(text)

    assert place in problem
    assert words in problem


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_an_empty_file_says_what_to_write(text: str) -> None:
    """Docker says only EOF."""
    problem = problem_of(text)

    assert "empty" in problem
    assert "{}" in problem


def test_a_directive_knows_its_place() -> None:
    """Entries carry line and column of their names."""
    entries = parse('{"debug": true,\n   "mtu": 1400}', FILE)

    assert (entries["mtu"].line, entries["mtu"].column) == (2, 4)
    assert entries["mtu"].value == 1400


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), JSON, max_size=5), st.sampled_from([None, 2]))
def test_every_json_object_is_read_as_json_reads_it(value: dict[str, object], indent: int) -> None:
    """The walk over the outermost object agrees with the standard library."""
    text = json.dumps(value, indent=indent)

    assert {name: entry.value for name, entry in parse(text, FILE).items()} == value


@given(st.text(alphabet="{}[]\",:'#/ \n\\truefalsn0123e.-", max_size=40))
def test_junk_is_always_a_typed_error(text: str) -> None:
    """Whatever stands in the file: either JSON agrees that it is an object, or a typed error."""
    try:
        parse(text, FILE)
    except InvalidConfig:
        return
    assert isinstance(json.loads(text), dict)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    """The line of the first bad byte is said."""
    path = tmp_path / "daemon.json"
    path.write_bytes(b'{\n"a": "\xff"}')

    with pytest.raises(InvalidConfig, match="line 2: the file is not UTF-8"):
        read_file(path)


def test_a_directory_or_nothing_is_a_typed_error(tmp_path: Path) -> None:
    """Neither ends in a traceback."""
    with pytest.raises(NotFound, match="does not exist"):
        read_file(tmp_path / "none.json")
    with pytest.raises(Exception, match="cannot be read") as caught:
        read_file(tmp_path)
    assert type(caught.value).__module__ == "stowage.errors"


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    """Editors of another world write one."""
    path = tmp_path / "daemon.json"
    path.write_bytes(b'\xef\xbb\xbf{"debug": true}')

    assert read_file(path)["debug"].value is True
