"""Text for a runtime: its configuration is JSON, which is UTF-8, so no other bytes reach it.

Python carries bytes of the command line that are not UTF-8 as lone surrogates, which runtimes
write into the container as other bytes than were meant.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence

from ..errors import InvalidArgument


def check_utf8(plain: Mapping[str, object]) -> None:
    """Refuse text that is not UTF-8, anywhere in *plain* JSON values.

    Raises:
        InvalidArgument: naming where it stands, and its bytes.
    """
    try:
        json.dumps(plain, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        where, text = next(_wrong("", plain))
        raise InvalidArgument(
            f"{where} is not UTF-8: {os.fsencode(text)!r}",
            details="a container is configured in JSON, which can carry UTF-8 only",
            resolution="pass the bytes in a file or on standard input",
        ) from None


def _wrong(where: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            yield where, value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            name = f"{where}.{key}" if where else str(key)
            yield from _wrong(f"a key of {where}", key)
            yield from _wrong(name, one)
    elif isinstance(value, Sequence):
        for number, one in enumerate(value):
            yield from _wrong(f"{where}[{number}]", one)
