"""Reading JSON that came from elsewhere: bounded, and every field of the type that it should be."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TypeVar

from ..errors import InvalidArchive

T = TypeVar("T")
Json = Mapping[str, object]


def load_json_object(raw: bytes, what: str, limit_bytes: int) -> dict[str, object]:
    """Parse *raw* as one JSON object of at most *limit_bytes*; *what* names it in errors.

    Raises:
        InvalidArchive: if it is too long, not JSON, nested beyond reason or not an object.
    """
    document = load_json(raw, what, limit_bytes)
    if not isinstance(document, dict):
        raise InvalidArchive(f"invalid {what}: expected a JSON object")
    return document


def load_json(raw: bytes, what: str, limit_bytes: int) -> object:
    """Parse *raw* as JSON of at most *limit_bytes*; errors as :func:`load_json_object`."""
    if len(raw) > limit_bytes:
        raise InvalidArchive(f"invalid {what}: longer than {limit_bytes} bytes")
    try:
        document: object = json.loads(raw)
    except RecursionError:
        raise InvalidArchive(f"invalid {what}: nested too deeply") from None
    except ValueError as error:
        raise InvalidArchive(f"invalid {what}: {error}") from None
    return document


class Reader:
    """Takes typed fields out of a JSON object; null is the same as absent.

    Every method raises InvalidArchive if the field is there with another type.
    """

    def __init__(self, document: Json, what: str) -> None:
        self._left = dict(document)
        self._what = what

    def take(self, key: str) -> object:
        return self._left.pop(key, None)

    def rest(self) -> dict[str, object]:
        """The fields nobody asked for, nulls left out."""
        return {key: value for key, value in self._left.items() if value is not None}

    def text(self, key: str) -> str:
        return self._typed(key, "a text", lambda value: isinstance(value, str), "")

    def boolean(self, key: str) -> bool:
        return self._typed(key, "true or false", lambda value: isinstance(value, bool), False)

    def integer(self, key: str) -> int:
        return self._typed(key, "a whole number", _is_integer, 0)

    def mapping(self, key: str) -> dict[str, object]:
        return self._typed(key, "an object", lambda value: isinstance(value, dict), {})

    def text_mapping(self, key: str) -> dict[str, str]:
        return self._typed(key, "an object of texts", _is_text_mapping, {})

    def objects(self, key: str) -> list[dict[str, object]]:
        return self._typed(key, "a list of objects", _is_list_of(dict), [])

    def texts(self, key: str) -> tuple[str, ...]:
        value = self._left.get(key)
        if isinstance(value, str):  # Docker reads one word as a list of it
            del self._left[key]
            return (value,)
        return tuple(self._typed(key, "a list of texts", _is_list_of(str), []))

    def section(self, key: str) -> Reader:
        return Reader(self.mapping(key), key)

    def _typed(self, key: str, expected: str, fits: Callable[[object], bool], absent: T) -> T:
        value = self.take(key)
        if value is None:
            return absent
        if not fits(value):
            raise InvalidArchive(f"invalid {self._what}: {key} should be {expected}")
        return value  # type: ignore[return-value]  # fits() has just checked it


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text_mapping(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def _is_list_of(kind: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and all(isinstance(item, kind) for item in value)
