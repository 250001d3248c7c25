"""The detach keys, read as Docker does and watched for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowage.containers.detach_keys import KeyWatch, parse_detach_keys
from stowage.errors import InvalidArgument

_NAMES = {
    "a": b"a", "Z": b"Z", "ctrl-@": b"\x00", "ctrl-a": b"\x01", "ctrl-z": b"\x1a",
    "ctrl-[": b"\x1b", "ctrl-\\": b"\x1c", "ctrl-]": b"\x1d", "ctrl-^": b"\x1e", "ctrl-_": b"\x1f",
    "DEL": b"\x7f",
}  # fmt: skip


@given(names=st.lists(st.sampled_from(sorted(_NAMES)), min_size=1, max_size=5))
def test_keys_are_read_one_by_one(names: list[str]) -> None:
    assert parse_detach_keys(",".join(names)) == b"".join(_NAMES[name] for name in names)


def test_none_are_dockers_own() -> None:
    assert parse_detach_keys("") == b"\x10\x11"


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-1", "ctrl-A", "ab", "a,", ",", "del", "ä", "ctrl"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        parse_detach_keys(text)
    assert error.value.brief == f"Invalid detach keys ({text}) provided"


@given(
    chunks=st.lists(st.binary(max_size=6).map(lambda raw: raw.translate(b"pqx" * 85 + b"p"))),
    keys=st.sampled_from([b"pq", b"p", b"ppq"]),
)
def test_what_is_typed_arrives_unless_it_is_the_keys(chunks: list[bytes], keys: bytes) -> None:
    """All that was passed on, and what waits, is a beginning of what was typed."""
    watch = KeyWatch(keys)
    passed = b""
    for chunk in chunks:
        passed += watch.filter(chunk)
        if watch.seen:
            break
    typed = b"".join(chunks)

    if watch.seen:
        assert typed.startswith(passed + keys)
    else:
        rest = typed.removeprefix(passed)
        assert typed.startswith(passed)
        assert keys.startswith(rest)
        assert rest != keys
