"""The image config: typed where it is known, untouched where it is not."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowage.errors import InvalidArgument
from stowage.images.config import (
    HistoryEntry,
    Platform,
    image_id,
    layers_of_history,
    parse_config,
)
from stowage.images.times import format_time, parse_time

DIFF_ID = "sha256:" + "ab" * 32
DOCUMENT: dict[str, object] = {
    "architecture": "amd64",
    "os": "linux",
    "created": "2026-11-24T04:16:43.972860518Z",
    "author": "someone",
    "docker_version": "20.10",
    "config": {
        "User": "1000:1000",
        "ExposedPorts": {"80/tcp": {}},
        "Env": ["PATH=/bin", "A=b=c"],
        "Entrypoint": ["/init"],
        "Cmd": ["sh", "-c", "echo ä"],
        "Volumes": {"/data": {}},
        "WorkingDir": "/srv",
        "Labels": {"a": "b"},
        "StopSignal": "SIGTERM",
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1000000000, "StartInterval": 5},
        "OnBuild": ["RUN true"],
        "Shell": ["/bin/bash", "-c"],
        "ArgsEscaped": True,
    },
    "rootfs": {"type": "layers", "diff_ids": [DIFF_ID]},
    "history": [{"created_by": "ADD", "x-unknown": 1}, {"comment": "c", "empty_layer": True}],
    "os.features": ["x"],
}


def test_every_field_survives_reading_and_writing() -> None:
    config = parse_config(json.dumps(DOCUMENT).encode())

    assert json.loads(config.to_bytes()) == DOCUMENT
    assert config.config.environment == {"PATH": "/bin", "A": "b=c"}
    assert config.created_ns == 1795493803972860518


def test_the_id_is_the_digest_of_the_canonical_bytes() -> None:
    """The order of the keys in the source does not matter to a config that is made here."""
    backwards = dict(reversed(DOCUMENT.items()))
    raw = parse_config(json.dumps(DOCUMENT).encode()).to_bytes()

    assert parse_config(json.dumps(backwards).encode()).to_bytes() == raw
    assert image_id(raw) == "sha256:" + hashlib.sha256(raw).hexdigest()


def test_null_is_the_same_as_absent() -> None:
    raw = json.dumps({"config": None, "rootfs": {"diff_ids": None}, "history": None}).encode()
    config = parse_config(raw)

    assert config.diff_ids == ()
    assert config.platform.os == "linux"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"config": []}, "config should be an object"),
        ({"config": {"Env": [1]}}, "Env should be a list of texts"),
        ({"config": {"Labels": {"a": 1}}}, "Labels should be an object of texts"),
        ({"rootfs": {"diff_ids": ["../../x"]}}, "is no sha256 digest"),
        ({"created": "yesterday"}, "not an RFC 3339 time"),
        ({"history": [1]}, "history should be a list of objects"),
        ({"architecture": 1}, "architecture should be a text"),
    ],
)
def test_a_wrong_type_is_named(change: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words.replace("(", r"\(")):
        parse_config(json.dumps({**DOCUMENT, **change}).encode())


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100000, b"1" * 5000])
def test_junk_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidArgument):
        parse_config(raw)


def test_bytes_that_are_no_utf8_become_replacement_characters() -> None:
    config = parse_config(json.dumps({"author": "a\udcff"}).encode())

    assert json.loads(config.to_bytes())["author"] == "a\N{REPLACEMENT CHARACTER}"


def test_a_platform_without_variant_fits_every_variant() -> None:
    here = Platform("linux", "arm", "v7")

    assert here.runs(Platform("linux", "arm"))
    assert here.runs(Platform("linux", "arm", "v7"))
    assert not here.runs(Platform("linux", "arm", "v6"))
    assert not here.runs(Platform("linux", "arm64"))


def test_each_layer_is_paired_with_its_step() -> None:
    one, empty = HistoryEntry(created_by="1"), HistoryEntry(empty_layer=True)

    assert layers_of_history([one, empty, one], 3) == [
        (one, 0), (empty, None), (one, 1), (HistoryEntry(), 2),
    ]  # fmt: skip
    assert layers_of_history([one, one], 1) == [(one, 0), (one, None)]


@given(st.integers(0, 253402300799 * 10**9))
def test_times_survive_writing_and_reading(time_ns: int) -> None:
    assert parse_time(format_time(time_ns)) == time_ns


def test_a_time_zone_is_taken_into_account() -> None:
    assert parse_time("1970-01-01T01:00:00+01:00") == 0
    assert parse_time("1969-12-31T23:30:00.5-00:30") == 500_000_000
