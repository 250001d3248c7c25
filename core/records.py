"""Plain values out of records: our values are msgspec Structs, which cost a fiftieth of a
dataclass to declare; with two hundred of them that is what a short command takes."""

from __future__ import annotations

from typing import Any

from msgspec import Struct


def field_names(record: Struct | type[Struct]) -> tuple[str, ...]:
    """Return the names of a record's fields, in order."""
    return record.__struct_fields__


def as_dict(record: Struct) -> dict[str, Any]:
    """Return a record as a dict, and the records in it likewise."""
    return {name: _plain(getattr(record, name)) for name in record.__struct_fields__}


def _plain(value: Any) -> Any:
    if isinstance(value, Struct):
        return as_dict(value)
    if isinstance(value, (list, tuple)):
        return type(value)(map(_plain, value))
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return value
