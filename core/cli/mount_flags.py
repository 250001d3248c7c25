"""``-v``, ``--mount``, ``--tmpfs`` and ``--volumes-from``, and the mounts that they ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from ..containers.mounts import AskedMounts, mounts_of, parse_mount
from ..errors import InvalidArgument
from .flags import Flag, Parsed, many

T = TypeVar("T")


def in_flag(parse: Callable[[str], T]) -> Callable[[str], T]:
    """Let a parser of the core read a flag: its refusal is the flag's."""

    def read(text: str) -> T:
        try:
            return parse(text)
        except InvalidArgument as error:
            raise ValueError(error.brief) from error

    return read


FLAGS: Sequence[Flag] = (
    many("volume", "Bind mount a volume", "v"),
    many(
        "mount",
        "Attach a filesystem mount to the container",
        value="mount",
        parse=in_flag(parse_mount),
    ),
    many("tmpfs", "Mount a tmpfs directory"),
    many("volumes-from", "Mount volumes from the specified container(s)"),
)


def requested_mounts(parsed: Parsed) -> AskedMounts:
    """Return the mounts that the flags ask for.

    Raises:
        InvalidArgument: in Docker's words.
    """
    return mounts_of(
        parsed.texts("volume"),
        parsed.typed("mount", tuple),
        parsed.texts("tmpfs"),
        parsed.texts("volumes-from"),
    )
