"""``--pull`` of run and create, and the answer to an image that is not here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import InvalidArgument, NotFound, NotSupported
from ..images.reference import parse_reference
from .flags import Flag, Parsed

_POLICIES = ("always", "missing", "never")

PULL = Flag(
    "pull", 'Pull image before running ("always"|"missing"|"never")', default="missing"
)  # fmt: skip

_ORIGINS = "'stowage images' lists what is here; bootstrap, import and load add"


def check_pull(parsed: Parsed) -> None:
    """Refuse what cannot be done without a registry.

    Raises:
        InvalidArgument: if ``--pull`` names no policy.
        NotSupported: for ``always``.
    """
    policy = parsed.text("pull")
    if policy not in _POLICIES:
        raise InvalidArgument(
            f'invalid pull option: \'{policy}\': must be one of "always", "missing" or "never"'
        )
    if policy == "always":
        raise NotSupported(
            "--pull always: this version pulls from no registry",
            resolution=f"leave it out to use what is here. {_ORIGINS}",
        )


@contextmanager
def images_named_in_full() -> Iterator[None]:
    """Let a missing image be told as Docker does, with its tag, and with where images come from."""
    try:
        yield
    except NotFound as error:
        if error.kind != "image":
            raise
        raise no_such_image(error.name) from None


def no_such_image(text: str) -> NotFound:
    """Return the error for the image *text*, under the name that it was looked for."""
    try:
        name = str(parse_reference(text).recorded)
    except InvalidArgument:
        name = text
    return NotFound("image", name, resolution=_ORIGINS)
