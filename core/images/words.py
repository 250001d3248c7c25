"""The word syntax of Dockerfile instructions: quotes, escapes and variables.

Rules as in BuildKit's ``shell`` lexer and ``parser/line_parsers.go``: single quotes keep all,
double quotes keep all but ``\\`` and ``$``, a backslash escapes the next character. Variables are
``$name``, ``${name}``, ``${name:-word}`` and ``${name:+word}``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from ..errors import InvalidArgument

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9@*#?!$-]")


def json_words(text: str) -> list[str] | None:
    """Return the words of the JSON form (``["a", "b"]``), or None if it is the shell form."""
    if not text.lstrip().startswith("["):
        return None
    try:
        words = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(words, list) and all(isinstance(word, str) for word in words):
        return words
    return None


def split_words(text: str) -> list[str]:
    """Split at white space outside quotes; quotes and escapes stay in the words."""
    words: list[str] = []
    current = ""
    quote = ""
    characters = iter(text)
    for character in characters:
        if character == "\\" and quote != "'":
            current += character + next(characters, "")
        elif quote:
            current += character
            quote = "" if character == quote else quote
        elif character.isspace():
            if current:
                words.append(current)
            current = ""
        else:
            quote = character if character in "'\"" else ""
            current += character
    return [*words, current] if current else words


def name_values(text: str, instruction: str) -> list[tuple[str, str]]:
    """Split ``k=v "k 2"=v`` into raw pairs; the old form ``k the rest`` is one pair.

    Raises:
        InvalidArgument: in Docker's words, if a word has no ``=``.
    """
    words = split_words(text)
    if not words:
        return []
    if "=" not in words[0]:
        value = text.strip()[len(words[0]) :].strip()
        if not value:
            raise InvalidArgument(f"{instruction} must have two arguments")
        return [(words[0], value)]
    pairs = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise InvalidArgument(
                f"Syntax error - can't find = in {word!r}. Must be of the form: name=value"
            )
        pairs.append((name, value))
    return pairs


class _Lexer:
    """Reads one word from left to right, quotes removed and variables replaced."""

    def __init__(self, word: str, environment: Mapping[str, str]) -> None:
        self._word = word
        self._position = 0
        self._environment = environment

    def until(self, closing: str) -> str:
        """Read to *closing* (consumed) or, for ``""``, to the end."""
        pieces: list[str] = []
        while self._position < len(self._word):
            character = self._next()
            if character == closing:
                return "".join(pieces)
            pieces.append(self._piece(character))
        if closing:
            raise InvalidArgument(f"syntax error: missing {closing!r} in {self._word!r}")
        return "".join(pieces)

    def _piece(self, character: str) -> str:
        if character == "'":
            return self._raw_until("'")
        if character == '"':
            return self._double_quoted()
        if character == "$":
            return self._variable()
        if character == "\\" and self._position < len(self._word):
            return self._next()
        return character

    def _next(self) -> str:
        self._position += 1
        return self._word[self._position - 1]

    def _raw_until(self, closing: str) -> str:
        end = self._word.find(closing, self._position)
        if end < 0:
            raise InvalidArgument(
                f"unexpected end of statement while looking for matching {closing}"
            )
        start, self._position = self._position, end + 1
        return self._word[start:end]

    def _double_quoted(self) -> str:
        pieces: list[str] = []
        while self._position < len(self._word):
            character = self._next()
            if character == '"':
                return "".join(pieces)
            if character == "$":
                pieces.append(self._variable())
            elif character == "\\" and self._word[self._position : self._position + 1] in '"$\\':
                pieces.append(self._next() if self._position < len(self._word) else character)
            else:
                pieces.append(character)
        raise InvalidArgument("unexpected end of statement while looking for matching double-quote")

    def _variable(self) -> str:
        if self._word.startswith("{", self._position):
            self._position += 1
            return self._braced()
        match = _NAME.match(self._word, self._position)
        if match is None:
            return "$"
        self._position = match.end()
        return self._environment.get(match[0], "")

    def _braced(self) -> str:
        match = _NAME.match(self._word, self._position)
        if match is None:
            raise InvalidArgument(f"bad substitution in {self._word!r}")
        self._position = match.end()
        value = self._environment.get(match[0], "")
        operator = self._word[self._position : self._position + 2]
        if operator.startswith("}"):
            self._position += 1
            return value
        if operator not in (":-", ":+"):
            raise InvalidArgument(f"unsupported modifier ({operator}) in substitution")
        self._position += 2
        other = self.until("}")
        return (value or other) if operator == ":-" else (other if value else "")


def expand(word: str, environment: Mapping[str, str]) -> str:
    """Return *word* without quotes and escapes, its variables replaced.

    Raises:
        InvalidArgument: if a quote or brace is not closed.
    """
    return _Lexer(word, environment).until("")


def expand_words(text: str, environment: Mapping[str, str]) -> list[str]:
    """Split *text* into words and expand each; a word that becomes empty is dropped."""
    return [word for word in (expand(raw, environment) for raw in split_words(text)) if word]
