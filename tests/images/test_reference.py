"""Names of images follow Docker's grammar, and are kept as they are typed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowage.errors import InvalidArgument
from stowage.images.reference import (
    Reference,
    is_id_of,
    matches_pattern,
    parse_reference,
    parse_tag_target,
    short_id,
)

HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("busybox", Reference("busybox")),
        ("busybox:1.36", Reference("busybox", "1.36")),
        ("library/busybox", Reference("library/busybox")),
        ("host.example:5000/a/b:v1", Reference("host.example:5000/a/b", "v1")),
        ("HOST.example/a", Reference("HOST.example/a")),
        ("localhost/a", Reference("localhost/a")),
        ("[::1]:5000/a", Reference("[::1]:5000/a")),
        ("a.b_c__d--e", Reference("a.b_c__d--e")),
        (f"busybox@{DIGEST}", Reference("busybox", None, DIGEST)),
        (f"busybox:1@{DIGEST}", Reference("busybox", "1", DIGEST)),
        ("a:" + "x" * 128, Reference("a", "x" * 128)),
    ],
)
def test_a_reference_is_split_into_name_tag_and_digest(text: str, expected: Reference) -> None:
    assert parse_reference(text) == expected
    assert str(parse_reference(text)) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Bad", "invalid reference format: repository name must be lowercase"),
        ("a/Bad:Tag", "invalid reference format: repository name must be lowercase"),
        ("", "invalid reference format"),
        ("a:", "invalid reference format"),
        ("a::b", "invalid reference format"),
        ("-a", "invalid reference format"),
        ("a_", "invalid reference format"),
        ("a/", "invalid reference format"),
        ("a b", "invalid reference format"),
        ("a\n", "invalid reference format"),
        ("a:" + "x" * 129, "invalid reference format"),
        ("a@sha256:12", "invalid reference format"),
        ("a@md5:" + HEX, "unsupported digest algorithm"),
        ("a@sha256:" + HEX[:40], "invalid checksum digest format"),
        ("x" * 256, "repository name must not be more than 255 characters"),
        (HEX, f"invalid repository name ({HEX}), cannot specify 64-byte hexadecimal strings"),
        ("ä", "invalid reference format"),
        ("a:\u0661", "invalid reference format"),
    ],
)
def test_what_is_no_reference_is_refused_in_dockers_words(text: str, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_reference(text)

    assert caught.value.brief == words


def test_the_recorded_form_has_the_tag_latest_or_the_digest_alone() -> None:
    assert str(parse_reference("a").recorded) == "a:latest"
    assert str(parse_reference("a:b").recorded) == "a:b"
    assert str(parse_reference(f"a:b@{DIGEST}").recorded) == f"a@{DIGEST}"


def test_a_new_name_may_not_be_or_look_like_a_digest() -> None:
    with pytest.raises(InvalidArgument, match="digest reference"):
        parse_tag_target(f"a@{DIGEST}")
    with pytest.raises(InvalidArgument, match="ambiguous tag"):
        parse_tag_target("sha256:abc")
    assert str(parse_tag_target("a")) == "a:latest"


def test_an_id_prefix_is_told_from_a_name() -> None:
    assert is_id_of(DIGEST, HEX[:1])
    assert is_id_of(DIGEST, DIGEST)
    assert is_id_of(DIGEST, f"sha256:{HEX[:5]}")
    assert not is_id_of(DIGEST, "0124")
    assert not is_id_of(DIGEST, "busybox")
    assert short_id(DIGEST) == HEX[:12]


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("busybox", True),
        ("busy*", True),
        ("busybox:l*", True),
        ("b?sybox:latest", True),
        ("[a-c]usybox", True),
        ("*", True),
        ("*/busybox", False),
        ("busybox:1", False),
    ],
)
def test_a_pattern_is_held_against_the_name_with_and_without_tag(
    pattern: str, matches: bool
) -> None:
    assert matches_pattern(Reference("busybox", "latest"), pattern) is matches


def test_a_star_does_not_match_a_slash() -> None:
    assert not matches_pattern(Reference("a/b", "c"), "*")
    assert matches_pattern(Reference("a/b", "c"), "a/*")


@given(st.text(max_size=40))
def test_any_text_parses_to_itself_or_is_refused(text: str) -> None:
    """Nothing but InvalidArgument comes out, and what is accepted is printed unchanged."""
    try:
        reference = parse_reference(text)
    except InvalidArgument:
        return

    assert str(reference) == text
