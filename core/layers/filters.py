"""containerd's filter expressions for snapshots (containerd, ``pkg/filters``).

``kind==active,labels."a.b"!=c`` is one filter whose selectors all must hold; of several filters
one is enough. A selector is a field path alone (it is set), or with ``==``, ``!=`` or ``~=`` (a
regular expression that is searched for) and a value: bare, or quoted with ``"``, or with ``/`` or
``|`` for expressions. Fields: ``name``, ``parent``, ``kind``, ``labels.<key>``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from ..errors import InvalidArgument
from ..model import SnapshotInfo

Predicate = Callable[[SnapshotInfo], bool]

_FIELD = re.compile(r"[A-Za-z0-9_/-]+")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_OPERATOR = re.compile(r"==|!=|~=")
_BARE = re.compile(r"[^,\s]+")
_PATTERN = re.compile(r"/((?:[^/\\]|\\.)*)/|\|((?:[^|\\]|\\.)*)\|")
_ESCAPE = re.compile(r"\\(.)")


def parse_filters(filters: Sequence[str]) -> Predicate:
    """Return a predicate that holds where any of *filters* does; without one it always holds.

    Raises:
        InvalidArgument: naming the filter and where it went wrong.
    """
    parsed = [_Parser(text).filter() for text in filters]
    if not parsed:
        return lambda info: True
    return lambda info: any(predicate(info) for predicate in parsed)


def _every(predicates: Iterable[Predicate]) -> Predicate:
    kept = tuple(predicates)
    return lambda info: all(predicate(info) for predicate in kept)


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def filter(self) -> Predicate:
        selectors = [self._selector()]
        while self._at < len(self._text):
            if self._take(re.compile(",")) is None:
                raise self._wrong("expected , or the end")
            selectors.append(self._selector())
        return _every(selectors)

    def _selector(self) -> Predicate:
        path = self._path()
        operator = self._take(_OPERATOR)
        if operator is None:
            return lambda info: _field(info, path) is not None
        if operator[0] == "~=":
            pattern = self._expression()
            return lambda info: pattern.search(_field(info, path) or "") is not None
        value = self._value()
        if operator[0] == "==":
            return lambda info: _field(info, path) == value
        return lambda info: _field(info, path) != value

    def _path(self) -> tuple[str, ...]:
        start = self._at
        parts = [self._part()]
        while self._take(re.compile(r"\.")):
            parts.append(self._part())
        if parts[0] == "labels" and len(parts) > 1:
            return ("labels", ".".join(parts[1:]))
        if len(parts) == 1 and parts[0] in ("name", "parent", "kind"):
            return (parts[0],)
        self._at = start
        raise self._wrong("expected name, parent, kind or labels.KEY")

    def _part(self) -> str:
        quoted = self._take(_QUOTED)
        if quoted is not None:
            return _ESCAPE.sub(r"\1", quoted[1])
        bare = self._take(_FIELD)
        if bare is None:
            raise self._wrong("expected a field")
        return bare[0]

    def _value(self) -> str:
        quoted = self._take(_QUOTED)
        if quoted is not None:
            return _ESCAPE.sub(r"\1", quoted[1])
        bare = self._take(_BARE)
        if bare is None:
            raise self._wrong("expected a value")
        return bare[0]

    def _expression(self) -> re.Pattern[str]:
        start = self._at
        quoted = self._take(_PATTERN)
        text = quoted[1] if quoted and quoted[1] is not None else quoted[2] if quoted else None
        try:
            return re.compile(self._value() if text is None else text)
        except re.error as error:
            self._at = start
            raise self._wrong(f"not a regular expression: {error}") from error

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        match = pattern.match(self._text, self._at)
        if match is not None:
            self._at = match.end()
        return match

    def _wrong(self, what: str) -> InvalidArgument:
        return InvalidArgument(
            f"invalid filter {self._text!r}", details=f"at character {self._at + 1}: {what}"
        )


def _field(info: SnapshotInfo, path: tuple[str, ...]) -> str | None:
    match path:
        case ("name",):
            return info.name
        case ("parent",):
            return info.parent
        case ("kind",):
            return info.kind.value
        case (_, key):
            return info.labels.get(key)
    raise AssertionError(path)
