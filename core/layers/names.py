"""Names of an archive's members as paths of a tree."""

from __future__ import annotations

from ..errors import InvalidArchive

WHITEOUT_PREFIX = b".wh."
OPAQUE_NAME = b".wh..wh..opq"
RESERVED_PREFIX = b".wh..wh."
"""Names of aufs itself; old images have them, and only the opaque marker means something."""


def cleaned(name: bytes) -> bytes:
    """Return a path of an archive relative to its root, without ``.``, ``..`` and empty names.

    Raises:
        InvalidArchive: if it climbs above the root.
    """
    names: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not names:
                raise InvalidArchive(
                    f"The archive leads out of itself: {name.decode(errors='backslashreplace')}"
                )
            names.pop()
        elif part not in (b"", b"."):
            names.append(part)
    return b"/".join(names)


def normal(name: bytes) -> bytes:
    """Return what :func:`cleaned` does, quickly for the names that nearly all members have."""
    if name[:2] == b"./":
        name = name[2:]
    if not name or name[0] in b"./" or b"/." in name or b"//" in name:
        return cleaned(name)
    return name.rstrip(b"/")


def is_mark(path: bytes) -> bool:
    """Tell whether a clean path is one of a whiteout, of an opaque marker or of aufs itself."""
    return path.startswith(WHITEOUT_PREFIX) or b"/" + WHITEOUT_PREFIX in path
