"""Log drivers and their options: Docker's merging, parsing and refusals."""

from __future__ import annotations

import pytest

from stowage.containers.log_config import LogConfig, log_details, parse_log_size, verified
from stowage.errors import InvalidArgument, NotSupported, StowageError


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("10k", 10_000), ("10KB", 10_000), ("1.5m", 1_500_000), ("2 g", 2_000_000_000),
     ("3MiB", 3_000_000)],
)  # fmt: skip
def test_sizes_are_decimal_as_dockers(text: str, size: int) -> None:
    assert parse_log_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "-1", "1.2.x", "1kk", "1 zb"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="invalid size"):
        parse_log_size(text)


def test_the_defaults_options_are_for_the_default_driver_alone() -> None:
    options = {"max-size": "1m", "max-file": "2"}
    same = verified(LogConfig(options={"max-file": "4"}), "json-file", options)
    other = verified(LogConfig("local"), "json-file", options)

    assert (same.max_size_bytes, same.max_files) == (1_000_000, 4)
    assert (other.max_size_bytes, other.max_files) == (20_000_000, 5)
    assert verified(LogConfig("none"), "json-file", options).options == {}
    assert LogConfig.from_json(same.to_json()) == same


def test_a_plain_log_grows_without_bound() -> None:
    plain = verified(LogConfig(), "json-file", {})
    assert (plain.driver, plain.kept, plain.max_size_bytes, plain.max_files) == (
        "json-file", True, None, 1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("driver", "options", "kind", "said"),
    [
        ("nosuch", {}, InvalidArgument, "logger: no log driver named 'nosuch' is registered"),
        ("journald", {}, NotSupported, "the log driver 'journald' is not supported here"),
        ("json-file", {"foo": "1"}, InvalidArgument,
         "unknown log opt 'foo' for json-file log driver"),
        ("local", {"foo": "1"}, InvalidArgument, "unknown log opt 'foo' for log driver local"),
        ("json-file", {"max-size": "x"}, InvalidArgument,
         "failed to initialize logging driver: invalid size: 'x'"),
        ("json-file", {"max-size": "0"}, InvalidArgument,
         "failed to initialize logging driver: max-size must be a positive number"),
        ("json-file", {"max-file": "0"}, InvalidArgument,
         "failed to initialize logging driver: max-file cannot be less than 1"),
        ("json-file", {"max-file": "two"}, InvalidArgument,
         'failed to initialize logging driver: strconv.Atoi: parsing "two": invalid syntax'),
        ("json-file", {"mode": "fast"}, InvalidArgument,
         "logger: logging mode not supported: fast"),
        ("json-file", {"max-buffer-size": "1m"}, InvalidArgument,
         "logger: max-buffer-size option is only supported with 'mode=non-blocking'"),
        ("json-file", {"mode": "non-blocking"}, NotSupported,
         "the log option mode=non-blocking is not supported"),
        ("json-file", {"compress": "true"}, NotSupported,
         "the log option compress is not supported: logs are kept as text"),
        ("json-file", {"env-regex": "("}, InvalidArgument,
         "failed to initialize logging driver: env-regex: missing ), unterminated subpattern"
         " at position 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(
    driver: str, options: dict[str, str], kind: type[StowageError], said: str
) -> None:
    with pytest.raises(kind) as error:
        verified(LogConfig(driver, options), "json-file", {})
    assert error.value.brief == said


def test_details_are_what_the_options_name() -> None:
    options = {"labels": "b,a", "env-regex": "^O", "tag": "my tag"}
    labels, env = {"a": "1 &", "b": "2", "c": "3"}, {"OS": "x", "HOME": "/"}

    assert log_details(LogConfig("json-file", options), labels, env) == (
        "OS=x,a=1+%26,b=2,tag=my+tag"
    )
    assert log_details(LogConfig("json-file"), labels, env) == ""
