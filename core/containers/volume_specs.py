"""What a container asks of volumes, parsed with Docker's refusals.

``-v NAME:/path[:ro,nocopy]``, ``-v /path``, ``--mount type=volume,…``, ``--volumes-from``, and the
``VOLUME``s of its image, which are filled in when it is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from ..errors import InvalidArgument, NotSupported
from ..records import as_dict
from ..volumes.names import check_name
from .volumes import PROPAGATIONS, split_volume, target_of

if TYPE_CHECKING:
    from .mounts import MountRequest

_IGNORED = frozenset({"z", "Z"})


class VolumeMount(Struct, frozen=True):
    """The volume *name* at *target*; without a name a new one, which goes with ``rm -v``."""

    target: str
    name: str = ""
    read_only: bool = False
    copy: bool = True
    """Fill it, if it is empty, with what the image has at the target."""
    mode: str = ""
    """The options as given to ``-v``."""
    labels: Mapping[str, str] = field(default_factory=dict)
    anonymous: bool = False
    by_mount: bool = False
    """Asked for by ``--mount``."""
    inherited: bool = False
    """Another container's, by ``--volumes-from``."""
    declared: bool = False
    """Asked for by ``-v /path``, or by the image."""

    @property
    def source(self) -> str:
        """Where it lies on the host is the root's matter, not the container's."""
        return ""

    def __str__(self) -> str:
        return ":".join(part for part in (self.name, self.target, self.mode) if part)


class VolumeWishes(Struct, frozen=True):
    """All that a container asks of volumes.

    *declared* are the paths of ``-v /path``, joined by the image's when the container is made;
    *taken_from* is what ``--volumes-from`` was given.
    """

    mounts: tuple[VolumeMount, ...] = ()
    declared: tuple[str, ...] = ()
    taken_from: tuple[str, ...] = ()

    @property
    def names(self) -> Sequence[str]:
        """The volumes that a container which is made uses, each once."""
        return list(dict.fromkeys(mount.name for mount in self.mounts))

    @property
    def anonymous(self) -> Sequence[str]:
        """Those that go with ``rm -v`` and ``--rm``."""
        return list(dict.fromkeys(mount.name for mount in self.mounts if mount.anonymous))

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return as_dict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> VolumeWishes:
        """Read what :meth:`to_json` gave."""
        return cls(
            tuple(VolumeMount(**mount) for mount in plain.get("mounts", ())),
            tuple(plain.get("declared", ())),
            tuple(plain.get("taken_from", ())),
        )


def wishes_of(
    mounts: Iterable[VolumeMount], declared: Iterable[str], taken_from: Iterable[str]
) -> VolumeWishes:
    """Return what was asked for together; each ``--volumes-from`` is looked at here.

    Raises:
        InvalidArgument: in Docker's words.
    """
    given = tuple(taken_from)
    for text in given:
        parse_volumes_from(text)
    return VolumeWishes(tuple(mounts), tuple(dict.fromkeys(declared)), given)


def is_host_path(text: str) -> bool:
    """Whether a ``-v`` asks for a directory of the host, and not for a volume."""
    return ":" in text and text.startswith("/")


def parse_volume(text: str) -> VolumeMount | str:
    """Parse ``NAME:/path[:OPTIONS]``; of ``/path`` alone the path comes back.

    Raises:
        InvalidArgument: in Docker's words.
    """
    name, target, words = split_volume(text)
    target = target_of(target, text, "volume" if not name else "bind")
    if not name:
        return target
    check_name(name)
    read_only, copy = _parse_mode(words, text)
    return VolumeMount(target, name, read_only, copy, words)


def _parse_mode(words: str, whole: str) -> tuple[bool, bool]:
    access: set[str] = set()
    copy = True
    for word in filter(None, words.split(",")):
        if word in ("ro", "rw"):
            access.add(word)
        elif word == "nocopy":
            copy = False
        elif word in PROPAGATIONS:
            raise InvalidArgument(
                f"invalid volume specification: '{whole}': invalid mount config for type "
                '"volume": field BindOptions must not be specified'
            )
        elif word not in _IGNORED:
            raise InvalidArgument(f"invalid mode: {words}")
    if len(access) > 1:
        raise InvalidArgument(f"invalid mode: {words}")
    return "ro" in access, copy


def volume_of(request: MountRequest, target: str) -> VolumeMount:
    """Return what ``--mount type=volume`` asks for; *target* is its target, checked.

    Raises:
        InvalidArgument: in Docker's words.
        NotSupported: for another driver than ``local``, or with options for it.
    """
    name = check_name(request.source) if request.source else ""
    if (driver := request.last("volume-driver")) not in ("", "local"):
        raise NotSupported(
            f'error looking up volume plugin {driver}: plugin "{driver}" not found',
            resolution="this version has the volume driver 'local'",
        )
    if request.options.get("volume-opt"):
        raise NotSupported(
            "volume-opt is not supported: the volume driver 'local' has no options here",
            resolution="mount the file system on the host and bind it: --mount type=bind,…",
        )
    given = (text.partition("=") for text in request.options.get("volume-label", ()))
    labels = {key: value for key, _, value in given}
    copy = request.last("volume-nocopy").lower() not in ("1", "t", "true")
    return VolumeMount(
        target, name, request.read_only, copy, labels=labels, anonymous=not name, by_mount=True
    )


def parse_volumes_from(text: str) -> tuple[str, bool]:
    """Return the container that ``--volumes-from CONTAINER[:ro|rw]`` names, and whether its
    mounts are to be read-only.

    Raises:
        InvalidArgument: in Docker's words.
    """
    container, colon, mode = text.partition(":")
    if not container:
        raise InvalidArgument(f"malformed volumes-from specification: {text}")
    if colon and mode not in ("ro", "rw", "z", "Z", "ro,z", "rw,z", "ro,Z", "rw,Z"):
        raise InvalidArgument(f"invalid mode: {mode}")
    return container, mode.startswith("ro")
