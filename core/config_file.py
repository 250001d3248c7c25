"""Reading ``daemon.json``: strict JSON, with errors that say where and what to write instead.

Python's own decoder does the values; the outermost object is walked here, so that each directive
has a position and a repeated one is noticed.
"""

from __future__ import annotations

import json
import re
from json import JSONDecodeError
from json.decoder import scanstring  # type: ignore[attr-defined]  # not in the stubs; documented
from pathlib import Path

from msgspec import Struct

from .errors import InvalidConfig, NotFound, PermissionDenied, StowageError, from_os_error

_BLANK = re.compile(r"[ \t\n\r]*")
_MAX_BYTES = 1 << 20


class Entry(Struct, frozen=True):
    """One directive of the file: its JSON value and where its name stands (from 1)."""

    value: object
    line: int
    column: int


class _SyntaxError(Exception):
    """What is wrong at *offset* of the text."""

    def __init__(self, offset: int, text: str) -> None:
        super().__init__(text)
        self.offset = offset


def read_file(path: Path) -> dict[str, Entry]:
    """Return the directives of the file at *path* in their order.

    Raises:
        NotFound: if there is no such file.
        PermissionDenied: if it cannot be read.
        InvalidConfig: if it is not UTF-8, not JSON, not an object, or names a directive twice.
    """
    try:
        with open(path, "rb") as stream:
            content = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(content) > _MAX_BYTES:
        raise _invalid(path, "the file is larger than 1 MiB, so it is hardly a configuration")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _invalid(path, f"line {line}: the file is not UTF-8 text") from error
    return parse(text, path)


def parse(text: str, path: Path) -> dict[str, Entry]:
    """Return the directives of *text*; *path* is named in errors."""
    if not text.strip():
        raise _invalid(
            path, "the file is empty (EOF): write {} into it, or remove it to use the defaults"
        )
    try:
        return _object(text)
    except _SyntaxError as problem:
        line, column = _position(text, problem.offset)
        raise _invalid(path, f"line {line}, column {column}: {problem}") from None


def _unreadable(path: Path, error: OSError) -> StowageError:
    if isinstance(error, FileNotFoundError):
        return NotFound("file", str(path), brief=f"configuration file {path} does not exist")
    failed = from_os_error(error, f"configuration file {path} cannot be read")
    if isinstance(failed, PermissionDenied):
        failed.resolution = "run as root, or name another file with --config"
    return failed


def _invalid(path: Path, problem: str) -> InvalidConfig:
    return InvalidConfig(f"unable to configure stowage with file {path}", [problem])


def _position(text: str, offset: int) -> tuple[int, int]:
    """Return line and column, from 1, of *offset*."""
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def _skip(text: str, offset: int) -> int:
    match = _BLANK.match(text, offset)
    assert match is not None  # it matches nothing, too
    return match.end()


def _object(text: str) -> dict[str, Entry]:
    decoder = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    entries: dict[str, Entry] = {}
    offset = _skip(text, 0)
    if text[offset] != "{":
        raise _SyntaxError(offset, _hint(text, offset) or "expected an object: { … }")
    offset = _skip(text, offset + 1)
    while text[offset : offset + 1] != "}":
        start = offset
        name, offset = _name(text, offset)
        line, column = _position(text, start)
        if name in entries:
            raise _SyntaxError(
                start, f"{name!r} is given twice, first in line {entries[name].line}"
            )
        value, offset = _value(decoder, text, offset)
        entries[name] = Entry(value, line, column)
        offset = _next(text, offset)
    offset = _skip(text, offset + 1)
    if offset != len(text):
        raise _SyntaxError(offset, "nothing may follow the closing brace")
    return entries


def _name(text: str, offset: int) -> tuple[str, int]:
    """Read ``"name":``; return the name and the offset of the value."""
    if text[offset : offset + 1] != '"':
        raise _SyntaxError(
            offset, _hint(text, offset) or 'expected a directive in double quotes: "'
        )
    try:
        name, offset = scanstring(text, offset + 1)
    except JSONDecodeError as error:
        raise _SyntaxError(error.pos, _described(text, error)) from None
    offset = _skip(text, offset)
    if text[offset : offset + 1] != ":":
        raise _SyntaxError(offset, f"expected a colon after {name!r}")
    return name, _skip(text, offset + 1)


def _value(decoder: json.JSONDecoder, text: str, offset: int) -> tuple[object, int]:
    try:
        return decoder.raw_decode(text, offset)
    except JSONDecodeError as error:
        raise _SyntaxError(error.pos, _described(text, error)) from None
    except RecursionError:
        raise _SyntaxError(offset, "values are nested too deeply") from None
    except ValueError as error:
        raise _SyntaxError(offset, str(error)) from None


def _next(text: str, offset: int) -> int:
    """Return the offset of the next directive, or of the closing brace."""
    offset = _skip(text, offset)
    if text[offset : offset + 1] == "}":
        return offset
    if text[offset : offset + 1] != ",":
        missing = "a comma is missing before this" if text[offset : offset + 1] == '"' else ""
        raise _SyntaxError(
            offset, missing or _hint(text, offset) or "expected a comma or a closing brace"
        )
    comma = offset
    offset = _skip(text, offset + 1)
    if text[offset : offset + 1] == "}":
        raise _SyntaxError(comma, "trailing comma: remove it, nothing follows")
    return offset


def _described(text: str, error: JSONDecodeError) -> str:
    """Say what is wrong inside a value in our words, or in the decoder's."""
    before = text[: error.pos].rstrip()
    if text[error.pos : error.pos + 1] in ("}", "]") and before.endswith(","):
        line, column = _position(text, len(before) - 1)
        return f"trailing comma in line {line}, column {column}: remove it, nothing follows"
    # 3.13 says so itself, with the position of the comma.
    if "trailing comma" in error.msg:
        return "trailing comma: remove it, nothing follows"
    return _hint(text, error.pos) or f"{error.msg[:1].lower()}{error.msg[1:]}"


def _hint(text: str, offset: int) -> str:
    """Name what people write by habit and JSON does not have, if it stands at *offset*."""
    rest = text[offset : offset + 10]
    if not rest:
        return "the file ends too early: a closing brace is missing"
    if rest.startswith("'"):
        return "single quotes: JSON has only double quotes"
    if rest.startswith(("#", "//", "/*")):
        return "a comment: JSON has none"
    for word, instead in (("True", "true"), ("False", "false"), ("None", "null")):
        if rest.startswith(word):
            return f"{word}: JSON writes {instead}"
    return ""


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result: dict[str, object] = {}
    for name, value in pairs:
        if name in result:
            raise ValueError(f"{name!r} is given twice in one object")
        result[name] = value
    return result


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")
