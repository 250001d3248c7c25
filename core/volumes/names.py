"""Names of volumes: as users give them, or 64 hex digits."""

from __future__ import annotations

import re
import secrets

from ..errors import InvalidArgument

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_LONGEST = 255  # a directory's name (NAME_MAX)


def new_name() -> str:
    """Return the name of an anonymous volume."""
    return secrets.token_hex(32)


def check_name(name: str) -> str:
    """Return *name*.

    Raises:
        InvalidArgument: in Docker's words, if no volume can be called that.
    """
    if len(name) == 1:
        raise InvalidArgument(
            f"create {name}: volume name is too short, "
            "names should be at least two alphanumeric characters"
        )
    if not _NAME.fullmatch(name):
        raise InvalidArgument(
            f'create {name}: "{name}" includes invalid characters for a local volume name, '
            'only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host '
            "directory, use absolute path"
        )
    if len(name) > _LONGEST:
        raise InvalidArgument(
            f"create {name}: the name of a volume has at most {_LONGEST} characters"
        )
    return name
