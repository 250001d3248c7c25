"""Names of images: Docker's reference grammar, and what a user may type for an image.

::

    reference   name [":" tag] ["@" digest]
    name        [host [":" port] "/"] component ("/" component)*
    component   lower-case letters and digits, joined by ".", "_", "__" or hyphens
    tag         [A-Za-z0-9_][A-Za-z0-9_.-]{0,127}
    digest      algorithm ":" hex

The grammar is that of distribution's ``reference`` package, which Docker uses. Names are kept as
they are typed: there is no default registry here, so ``busybox`` is ``busybox``.
"""

from __future__ import annotations

import re

from msgspec import Struct

from ..errors import InvalidArgument

DEFAULT_TAG = "latest"
SHORT_ID_LENGTH = 12
_NAME_LIMIT = 255  # characters, host included

_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = rf"{_LABEL}(?:\.{_LABEL})*(?::[0-9]+)?|\[[0-9a-fA-F:]+\](?::[0-9]+)?"
_NAME = rf"(?:(?:{_HOST})/)?{_COMPONENT}(?:/{_COMPONENT})*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_REFERENCE = re.compile(
    rf"(?P<name>{_NAME})(?::(?P<tag>{_TAG}))?(?:@(?P<digest>{_DIGEST}))?", re.ASCII
)
_FULL_ID = re.compile(r"[0-9a-f]{64}")
_ID_PREFIX = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})")
_HEX_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}


class Reference(Struct, frozen=True):
    """A parsed name; *tag* and *digest* are None where they were not given."""

    name: str
    tag: str | None = None
    digest: str | None = None

    def __str__(self) -> str:
        """Return the reference as it is recorded and shown (``busybox:latest``)."""
        text = self.name
        if self.tag is not None:
            text += f":{self.tag}"
        if self.digest is not None:
            text += f"@{self.digest}"
        return text

    @property
    def recorded(self) -> Reference:
        """The form under which it is looked up: a digest wins over a tag, and a name with
        neither means the tag ``latest``."""
        if self.digest is not None:
            return Reference(self.name, None, self.digest)
        return Reference(self.name, self.tag or DEFAULT_TAG)


def parse_reference(text: str) -> Reference:
    """Parse what a user typed as the name of an image.

    Raises:
        InvalidArgument: in Docker's words, if it is not a reference.
    """
    if _FULL_ID.fullmatch(text):
        raise InvalidArgument(
            f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
        )
    match = _REFERENCE.fullmatch(text)
    if match is None:
        raise InvalidArgument(_why_invalid(text))
    reference = Reference(match["name"], match["tag"], match["digest"])
    if len(reference.name) > _NAME_LIMIT:
        raise InvalidArgument(f"repository name must not be more than {_NAME_LIMIT} characters")
    if reference.digest is not None:
        _check_digest(reference.digest)
    return reference


def _why_invalid(text: str) -> str:
    if _lower_name(text) != text:
        return "invalid reference format: repository name must be lowercase"
    return "invalid reference format"


def _lower_name(text: str) -> str:
    """Lower the letters of the name alone, to learn whether only they were wrong."""
    name, at, digest = text.partition("@")
    head, slash, last = name.rpartition("/")
    component, colon, tag = last.partition(":")
    return (head + slash + component).lower() + colon + tag + at + digest


def _check_digest(digest: str) -> None:
    algorithm, _, value = digest.partition(":")
    expected = _HEX_LENGTHS.get(algorithm)
    if expected is None:
        raise InvalidArgument("unsupported digest algorithm", details=digest)
    if len(value) != expected or value != value.lower():
        raise InvalidArgument("invalid checksum digest format", details=digest)


def parse_tag_target(text: str) -> Reference:
    """Parse the new name of an image (``tag``, ``import``, ``commit``); it has a tag afterwards.

    Raises:
        InvalidArgument: if it is not a reference, has a digest, or reads like one.
    """
    reference = parse_reference(text)
    if reference.digest is not None:
        raise InvalidArgument("refusing to create a tag with a digest reference")
    if reference.name in _HEX_LENGTHS:
        raise InvalidArgument(
            "refusing to create an ambiguous tag using digest algorithm as name",
            details=str(reference),
        )
    return reference.recorded


def id_prefix(text: str) -> str | None:
    """Return the hex digits if *text* can be an image id or the beginning of one, else None."""
    match = _ID_PREFIX.fullmatch(text)
    return None if match is None else match[1]


def is_id_of(image_id: str, text: str) -> bool:
    """Tell whether *text* is *image_id* (``sha256:…``) or a prefix of it, so not a name."""
    prefix = id_prefix(text)
    return prefix is not None and image_id.removeprefix("sha256:").startswith(prefix)


def short_id(identifier: str) -> str:
    """Return the twelve hex digits that are shown for an image or container id."""
    return identifier.removeprefix("sha256:")[:SHORT_ID_LENGTH]


def matches_pattern(reference: Reference, pattern: str) -> bool:
    """Tell whether a reference matches a glob of ``images --filter reference=``.

    The pattern is held against ``name:tag`` and against the name alone; as in Go's
    ``path.Match``, ``*`` and ``?`` do not match a ``/``.

    Raises:
        InvalidArgument: if the pattern is malformed.
    """
    compiled = _compile_pattern(pattern)
    return any(compiled.fullmatch(form) for form in (str(reference), reference.name))


def _compile_pattern(pattern: str) -> re.Pattern[str]:
    pieces: list[str] = []
    position = 0
    while position < len(pattern):
        character = pattern[position]
        if character == "[":
            end = pattern.find("]", position + 2)
            if end < 0:
                raise InvalidArgument(f"invalid reference pattern {pattern!r}: [ is not closed")
            pieces.append("[" + pattern[position + 1 : end].replace("\\", r"\\") + "]")
            position = end
        elif character == "\\" and position + 1 < len(pattern):
            position += 1
            pieces.append(re.escape(pattern[position]))
        else:
            pieces.append({"*": "[^/]*", "?": "[^/]"}.get(character, re.escape(character)))
        position += 1
    try:
        return re.compile("".join(pieces))
    except re.error as error:
        raise InvalidArgument(f"invalid reference pattern {pattern!r}: {error}") from None
