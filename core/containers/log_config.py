"""Which log a container keeps, and how large: ``--log-driver`` and ``--log-opt``.

``json-file`` and ``local`` are one thing here, a file that ``logs`` reads (conmon writes it in
the form of :mod:`.logs`), with each one's options and defaults; ``none`` keeps nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote_plus

from msgspec import Struct, field
from msgspec.structs import replace

from ..errors import InvalidArgument, NotSupported
from ..numbers import INT64_MAX, parse_whole
from ..records import as_dict, field_names

_KEPT = ("json-file", "local")
#: What else dockerd 20.10 knows.
_ELSEWHERE = ("syslog", "journald", "gelf", "fluentd", "awslogs", "splunk", "gcplogs",
              "logentries", "etwlogs")  # fmt: skip
_EVERYWHERE = ("mode", "max-buffer-size")
_OPTIONS = ("max-file", "max-size", "compress", "labels", "labels-regex", "env", "env-regex", "tag")
#: Docker's defaults of the driver ``local``.
_LOCAL_SIZE, _LOCAL_FILES = 20_000_000, 5
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)*) ?([kKmMgGtTpP])?[iI]?[bB]?")
_FAILED = "failed to initialize logging driver: "


class LogConfig(Struct, frozen=True):
    """A log as asked for; an empty *driver* is the root's default."""

    driver: str = ""
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def kept(self) -> bool:
        """Whether there is a log that can be read."""
        return self.driver != "none"

    @property
    def max_size_bytes(self) -> int | None:
        """At what size a new file is begun; None for never."""
        text = self.options.get("max-size")
        if text is None:
            return _LOCAL_SIZE if self.driver == "local" else None
        return parse_log_size(text)

    @property
    def max_files(self) -> int:
        """How many files there are at most, the current one included."""
        default = _LOCAL_FILES if self.driver == "local" else 1
        return int(self.options.get("max-file", default))

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return as_dict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> LogConfig:
        """Read what :meth:`to_json` gave; unknown keys are ignored."""
        return cls(**{name: plain[name] for name in field_names(cls) if name in plain})


def parse_log_size(text: str) -> int:
    """Return the bytes that ``10m`` means: decimal, as Docker reads it here (1k = 1000).

    Raises:
        ValueError: "invalid size: 'x'".
    """
    match = _SIZE.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        power = "kmgtp".index(match[2].lower()) + 1 if match[2] else 0
        size_bytes = int(float(match[1]) * 1000**power)
        if size_bytes > INT64_MAX:
            raise ValueError
        return size_bytes
    except (ValueError, OverflowError):
        raise ValueError(f"invalid size: '{text}'") from None


def verified(asked: LogConfig, driver: str, options: Mapping[str, str]) -> LogConfig:
    """Return *asked* with the root's defaults filled in, as Docker merges them.

    Raises:
        InvalidArgument: in Docker's words, for a driver, an option or a value that cannot be.
        NotSupported: for a driver or an option that only Docker has.
    """
    chosen = asked.driver or driver
    if chosen == driver:
        asked = replace(asked, options={**options, **asked.options})
    config = replace(asked, driver=chosen)
    if chosen == "none":
        return config
    if chosen in _ELSEWHERE:
        raise NotSupported(
            f"the log driver '{chosen}' is not supported here",
            resolution=f"use {', '.join(_KEPT)} or none",
        )
    if chosen not in _KEPT:
        raise InvalidArgument(f"logger: no log driver named '{chosen}' is registered")
    _check_options(config)
    return config


def _check_options(config: LogConfig) -> None:
    options = config.options
    for name in options:
        if name not in (*_OPTIONS, *_EVERYWHERE):
            raise InvalidArgument(
                f"unknown log opt '{name}' for json-file log driver"
                if config.driver == "json-file"
                else f"unknown log opt '{name}' for log driver {config.driver}"
            )
    mode = options.get("mode", "")
    if mode not in ("", "blocking", "non-blocking"):
        raise InvalidArgument(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" in options and mode != "non-blocking":
        raise InvalidArgument(
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'"
        )
    if mode == "non-blocking":
        raise NotSupported(
            "the log option mode=non-blocking is not supported",
            details="a container waits until its output is in the log",
        )
    if options.get("compress", "false") not in ("false", "0"):
        raise NotSupported("the log option compress is not supported: logs are kept as text")
    _checked(parse_log_size, options.get("max-size", "1"), lambda size: size > 0,
             "max-size must be a positive number")  # fmt: skip
    _checked(_whole, options.get("max-file", "1"), lambda count: count >= 1,
             "max-file cannot be less than 1")  # fmt: skip
    for name in ("labels-regex", "env-regex"):
        try:
            re.compile(options.get(name, ""))
        except re.error as error:
            raise InvalidArgument(f"{_FAILED}{name}: {error}") from None


def _whole(text: str) -> int:
    try:
        return parse_whole(text)
    except ValueError as error:
        why = "invalid syntax" if str(error).startswith("expected") else error
        raise ValueError(f'strconv.Atoi: parsing "{text}": {why}') from None


def _checked(
    parse: Callable[[str], int], text: str, good: Callable[[int], bool], refusal: str
) -> None:
    try:
        value = parse(text)
    except ValueError as error:
        raise InvalidArgument(f"{_FAILED}{error}") from None
    if not good(value):
        raise InvalidArgument(f"{_FAILED}{refusal}")


def log_details(config: LogConfig, labels: Mapping[str, str], env: Mapping[str, str]) -> str:
    """Return what ``logs --details`` shows of a container before each line: the labels and
    variables that the options ``labels``, ``env`` and their regular expressions name, and the
    tag."""
    found: dict[str, str] = {}
    for kind, values in (("labels", labels), ("env", env)):
        named = config.options.get(kind, "").split(",")
        pattern = config.options.get(f"{kind}-regex")
        for name, value in values.items():
            if name in named or (pattern and re.search(pattern, name)):
                found[name] = value
    if config.options.get("tag"):
        found["tag"] = config.options["tag"]
    return ",".join(f"{quote_plus(name)}={quote_plus(found[name])}" for name in sorted(found))
