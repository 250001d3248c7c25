"""Flags as Docker's users write them (the rules of Go's pflag), declared once per command.

``-it`` is ``-i -t``; ``-eA=b``, ``-e A=b``, ``--env A=b`` and ``--env=A=b`` are one; ``--rm=false``
takes a switch back; ``--`` ends the flags; where a command is not *interspersed*, so does its
first argument (``run IMAGE ls -l``). argparse knows neither the third nor the last, and words its
errors otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeVar

from msgspec import Struct

from ..numbers import parse_whole
from ..options import nearest

T = TypeVar("T")


class UsageError(Exception):
    """The command line is wrong; the text is pflag's, the exit code Docker's."""

    def __init__(self, message: str, *, exit_code: int = 125) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def _text(text: str) -> object:
    return text


def boolean(text: str) -> bool:
    """Read a switch's value as Go's ParseBool does.

    Raises:
        ValueError: if it is neither.
    """
    if text in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if text in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    raise ValueError("expected true or false")


def integer(text: str) -> int:
    """Read a whole number of at most 64 bits.

    Raises:
        ValueError: if it is none.
    """
    return parse_whole(text)


class Flag(Struct, frozen=True):
    """One flag: ``--name`` and perhaps ``-short``.

    A *switch* takes no value of its own; a *list* may be repeated. *value* names the value in
    help; *parse* reads it and raises ValueError with what is wrong.
    """

    name: str
    meaning: str
    short: str = ""
    kind: Literal["switch", "one", "list"] = "one"
    value: str = "string"
    default: object = None
    parse: Callable[[str], object] = _text

    @property
    def shown(self) -> str:
        """``-n, --name`` as errors say it."""
        return f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"


def switch(name: str, meaning: str, short: str = "", *, default: bool = False) -> Flag:
    """Return a flag that is on or off."""
    return Flag(name, meaning, short, "switch", "", default, boolean)


def many(
    name: str,
    meaning: str,
    short: str = "",
    *,
    value: str = "list",
    parse: Callable[[str], object] = _text,
) -> Flag:
    """Return a flag that may be given several times; its value is a tuple."""
    return Flag(name, meaning, short, "list", value, (), parse)


class Parsed:
    """The values of a command line: flags by name, and the arguments."""

    def __init__(
        self, flags: Sequence[Flag], values: Mapping[str, object], arguments: Sequence[str]
    ) -> None:
        self._values = {flag.name: flag.default for flag in flags} | dict(values)
        self.given = frozenset(values)
        self.arguments = tuple(arguments)

    def on(self, name: str) -> bool:
        """Return whether the switch *name* is on."""
        return self.typed(name, bool)

    def text(self, name: str) -> str | None:
        """Return the text given for *name*, or its default."""
        value = self._values[name]
        assert value is None or isinstance(value, str)
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Return all that was given for the list *name*."""
        return self.typed(name, tuple)

    def number(self, name: str) -> int | None:
        """Return the number given for *name*, or its default."""
        value = self._values[name]
        assert value is None or isinstance(value, int)
        return value

    def typed(self, name: str, kind: type[T]) -> T:
        """Return the value of *name*, which must be a *kind*."""
        value = self._values[name]
        assert isinstance(value, kind), f"--{name} is a {type(value).__name__}"
        return value


def parse(flags: Sequence[Flag], words: Sequence[str], *, interspersed: bool = True) -> Parsed:
    """Read *words* against *flags*.

    Raises:
        UsageError: in pflag's words, naming the flag.
    """
    reader = _Reader(flags, words)
    arguments: list[str] = []
    while (word := reader.take()) is not None:
        if word == "--":
            break
        if word.startswith("--"):
            reader.long(word[2:])
        elif word.startswith("-") and len(word) > 1:
            reader.shorts(word)
        else:
            arguments.append(word)
            if not interspersed:
                break
    return Parsed(flags, reader.values, [*arguments, *reader.rest()])


class _Reader:
    def __init__(self, flags: Sequence[Flag], words: Sequence[str]) -> None:
        self._long = {flag.name: flag for flag in flags}
        self._short = {flag.short: flag for flag in flags if flag.short}
        self._words = list(words)
        self._next = 0
        self.values: dict[str, object] = {}

    def take(self) -> str | None:
        if self._next >= len(self._words):
            return None
        self._next += 1
        return self._words[self._next - 1]

    def rest(self) -> list[str]:
        return self._words[self._next :]

    def long(self, word: str) -> None:
        name, equals, value = word.partition("=")
        flag = self._long.get(name)
        if flag is None:
            raise UsageError(f"unknown flag: --{name}{nearest(name, self._long)}")
        if equals:
            self._store(flag, value)
        elif flag.kind == "switch":
            self.values[flag.name] = True
        else:
            self._store(flag, self._needed(f"--{name}"))

    def shorts(self, word: str) -> None:
        letters = word[1:]
        while letters:
            flag = self._short.get(letters[0])
            if flag is None:
                raise UsageError(f"unknown shorthand flag: {letters[0]!r} in {word}")
            rest = letters[1:]
            if rest.startswith("="):
                return self._store(flag, rest[1:])
            if flag.kind != "switch":
                return self._store(flag, rest or self._needed(f"{letters[0]!r} in {word}"))
            self.values[flag.name] = True
            letters = rest
        return None

    def _needed(self, shown: str) -> str:
        value = self.take()
        if value is None:
            raise UsageError(f"flag needs an argument: {shown}")
        return value

    def _store(self, flag: Flag, text: str) -> None:
        try:
            value = flag.parse(text)
        except ValueError as error:
            raise UsageError(
                f'invalid argument "{text}" for "{flag.shown}" flag: {error}'
            ) from None
        if flag.kind == "list":
            before = self.values.get(flag.name, ())
            assert isinstance(before, tuple)
            value = (*before, value)
        self.values[flag.name] = value
