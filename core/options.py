"""Typed options: a driver declares each once; parsing, validation and documentation follow.

A declaration is a list of :class:`Option`. Strings of the form ``key=value`` (from
``storage-opts``, ``--storage-opt`` or the environment) are parsed all at once: every problem is
reported together, and an unknown name is answered with the nearest valid one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Generic, Literal, Protocol, TypeVar

from msgspec import Struct

from .errors import InvalidConfig
from .numbers import INT64_MAX, parse_whole

T_co = TypeVar("T_co", covariant=True)

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(?:i?b)?", re.IGNORECASE | re.ASCII)
_LONGEST = 100  # digits of a number that anybody means
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}


class OptionType(Protocol[T_co]):
    """How one kind of value is read and described; ``parse`` raises ValueError saying what
    was expected."""

    @property
    def expects(self) -> str: ...

    def parse(self, text: str) -> T_co: ...


def parse_size(text: str) -> int:
    """Return the bytes that ``"10G"``, ``"64k"``, ``"1.5GiB"`` or ``"4096"`` mean (1k = 1024).

    Raises:
        ValueError: if it is not a size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError("expected a size such as 512M or 10G")
    whole, _, fraction = match[1].partition(".")
    if len(match[1]) > _LONGEST:
        raise ValueError("expected a size of less than 8 EiB")
    scaled = int(whole + fraction) * _UNITS[match[2].lower()]
    size_bytes = scaled // int(10 ** len(fraction))  # exact: a float loses bytes from 2**53 on
    if size_bytes > INT64_MAX:
        raise ValueError("expected a size of less than 8 EiB")
    return size_bytes


def format_size(size_bytes: int) -> str:
    """Return *size_bytes* as ``parse_size`` reads it, in the largest exact unit."""
    for unit, factor in reversed(_UNITS.items()):
        if size_bytes and size_bytes % factor == 0:
            return f"{size_bytes // factor}{unit.upper()}"
    return str(size_bytes)


class BooleanType:
    """``true``/``false``, ``on``/``off``, ``yes``/``no``, ``1``/``0``."""

    expects = "true or false"

    def parse(self, text: str) -> bool:
        word = text.strip().lower()
        if word in ("true", "on", "yes", "1"):
            return True
        if word in ("false", "off", "no", "0"):
            return False
        raise ValueError(f"expected {self.expects}")


class TextType:
    """Any text."""

    expects = "text"

    def parse(self, text: str) -> str:
        return text


class IntegerType(Struct, frozen=True):
    """A whole number within limits; *unit* is shown in the documentation."""

    minimum: int | None = None
    maximum: int | None = None
    unit: str = ""

    @property
    def expects(self) -> str:
        limits = " to ".join(str(n) for n in (self.minimum, self.maximum) if n is not None)
        return " ".join(part for part in ("a whole number", limits, self.unit) if part)

    def parse(self, text: str) -> int:
        try:
            value = parse_whole(text.strip())
        except ValueError:
            raise ValueError(f"expected {self.expects}") from None
        too_small = self.minimum is not None and value < self.minimum
        too_large = self.maximum is not None and value > self.maximum
        if too_small or too_large:
            raise ValueError(f"expected {self.expects}")
        return value


class SizeType(Struct, frozen=True):
    """A number of bytes, written ``512M`` or ``10G``."""

    minimum_bytes: int = 0

    @property
    def expects(self) -> str:
        least = f" of at least {format_size(self.minimum_bytes)}" if self.minimum_bytes else ""
        return f"a size{least}, such as 512M or 10G"

    def parse(self, text: str) -> int:
        value = parse_size(text)
        if value < self.minimum_bytes:
            raise ValueError(f"expected {self.expects}")
        return value


class ChoiceType(Struct, frozen=True):
    """One of a few words."""

    choices: tuple[str, ...]

    @property
    def expects(self) -> str:
        return "one of " + ", ".join(self.choices)

    def parse(self, text: str) -> str:
        if text not in self.choices:
            raise ValueError(f"expected {self.expects}")
        return text


class Option(Struct, Generic[T_co], frozen=True):
    """One option of a driver.

    *default* is used when it is not given; *default_text* is how the documentation shows it.
    *scope* says where it may stand: ``root`` (``storage-opts``), ``snapshot``
    (``--storage-opt`` of one container) or ``both``.
    """

    name: str
    type: OptionType[T_co]
    default: T_co
    meaning: str
    default_text: str = ""
    scope: Literal["root", "snapshot", "both"] = "root"

    @property
    def shown_default(self) -> str:
        if self.default_text:
            return self.default_text
        if self.default is None:
            return "unset"
        if isinstance(self.default, bool):
            return "true" if self.default else "false"
        if isinstance(self.default, int) and isinstance(self.type, SizeType):
            return format_size(self.default)
        return str(self.default)

    def allowed_in(self, scope: Literal["root", "snapshot"]) -> bool:
        return self.scope in (scope, "both")


class Options(Mapping[str, object]):
    """Parsed options of one driver: every declared name has a value."""

    def __init__(self, values: Mapping[str, object], given: frozenset[str] = frozenset()) -> None:
        self._values = dict(values)
        self.given = given

    def __getitem__(self, name: str) -> object:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Options({self._values!r})"

    def boolean(self, name: str) -> bool:
        return self._typed(name, bool)

    def integer(self, name: str) -> int:
        return self._typed(name, int)

    def text(self, name: str) -> str:
        return self._typed(name, str)

    def _typed(self, name: str, kind: type[T_value]) -> T_value:
        value = self._values[name]
        assert isinstance(value, kind), f"option {name} is a {type(value).__name__}"
        return value


T_value = TypeVar("T_value")


def parse_options(
    driver: str,
    declared: Sequence[Option[object]],
    given: Iterable[str],
    *,
    scope: Literal["root", "snapshot"] = "root",
) -> Options:
    """Parse ``key=value`` strings against what *driver* declared.

    A key may carry the driver's name as a prefix (``overlay.index=off``, as Docker writes
    them). Later strings win over earlier ones.

    Raises:
        InvalidConfig: naming every unknown key, wrong value and missing ``=``.
    """
    known = {option.name: option for option in declared if option.allowed_in(scope)}
    values: dict[str, object] = {name: option.default for name, option in known.items()}
    problems: list[str] = []
    seen: set[str] = set()
    for text in given:
        key, equals, value = text.partition("=")
        name = key.strip().removeprefix(f"{driver}.")
        if not equals:
            problems.append(f"{text!r} has no value; write {name}=VALUE")
        elif name not in known:
            problems.append(_unknown(driver, name, declared, scope))
        else:
            try:
                values[name] = known[name].type.parse(value)
                seen.add(name)
            except ValueError as error:
                problems.append(f"invalid value {value!r} for option {name!r}: {error}")
    if problems:
        raise InvalidConfig(
            f"invalid options for storage driver {driver!r}"
            if scope == "root"
            else f"invalid --storage-opt for driver {driver!r}",
            problems,
            resolution=f"'stowage driver options {driver}' lists what it takes",
        )
    return Options(values, frozenset(seen))


def _unknown(
    driver: str, name: str, declared: Sequence[Option[object]], scope: Literal["root", "snapshot"]
) -> str:
    if any(option.name == name for option in declared):
        where = "for the whole root" if scope == "snapshot" else "for one container"
        return f"option {name!r} of {driver} can only be given {where}"
    names = [option.name for option in declared if option.allowed_in(scope)]
    return f"unknown option {name!r}{nearest(name, names)}"


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest valid name, or an empty string."""
    close = get_close_matches(name, list(valid), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
