"""``--mount KEY=VALUE,…`` and ``--tmpfs PATH[:OPTIONS]``, parsed with Docker's refusals.

:func:`parse_mount` reads one ``--mount`` into a :class:`MountRequest`, whatever its type; what a
container then has of it is a :class:`~.volumes.Bind` (:func:`bind_of`), a :class:`Tmpfs`
(:func:`tmpfs_of`) or a :class:`~.volume_specs.VolumeMount`.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct, field

from ..errors import InvalidArgument
from ..records import as_dict
from .units import parse_memory
from .volume_specs import (
    VolumeMount,
    VolumeWishes,
    is_host_path,
    parse_volume,
    volume_of,
    wishes_of,
)
from .volumes import PROPAGATIONS, Bind, check_targets, parse_bind

#: What a tmpfs has unless its options say otherwise.
_TMPFS_DEFAULTS = ("noexec", "nosuid", "nodev", "rprivate")
#: Options that take each other's place.
_OPPOSITES = (
    {"ro", "rw"}, {"suid", "nosuid"}, {"dev", "nodev"}, {"exec", "noexec"}, {"sync", "async"},
    {"dirsync"}, {"mand", "nomand"}, {"atime", "noatime"}, {"diratime", "nodiratime"},
    {"relatime", "norelatime"}, {"strictatime", "nostrictatime"}, set(PROPAGATIONS),
)  # fmt: skip
_GROUP_BY_WORD = {word: number for number, words in enumerate(_OPPOSITES) for word in words}
_COUNT = re.compile(r"[0-9]{1,19}[kKmMgGtTpPeE]?")
#: Options with a value, and what tmpfs(5) takes for it.
_TMPFS_VALUES = {
    "size": re.compile(r"[0-9]{1,19}[kKmMgGtTpPeE%]?"),
    "mode": re.compile(r"[0-7]{1,5}"),
    "uid": re.compile(r"[0-9]{1,10}"),
    "gid": re.compile(r"[0-9]{1,10}"),
    "nr_inodes": _COUNT,
    "nr_blocks": _COUNT,
    "mpol": re.compile(r"[a-z=:,0-9-]+"),
}


class Tmpfs(Struct, frozen=True):
    """An empty file system in memory at *target*; *options* as asked for (``size=64m,exec``)."""

    target: str
    options: str = ""
    by_mount: bool = False
    """Asked for by ``--mount``, not by ``--tmpfs``: ``inspect`` shows it elsewhere."""

    @property
    def source(self) -> str:
        """Nothing of the host lies beneath it."""
        return ""

    @property
    def merged_options(self) -> list[str]:
        """The options of its mount: the defaults, and over them what was asked for.

        Raises:
            InvalidArgument: for an option that no tmpfs has.
        """
        return merge_options((*_TMPFS_DEFAULTS, *filter(None, self.options.split(","))))

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return as_dict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Tmpfs:
        """Read what :meth:`to_json` gave."""
        return cls(**plain)


def merge_options(options: Iterable[str]) -> list[str]:
    """Return *options* of a tmpfs without those that a later one takes the place of.

    Raises:
        InvalidArgument: "Invalid tmpfs option …".
    """
    kept: dict[object, str] = {}
    for option in options:
        if option == "defaults":
            continue
        name, equals, value = option.partition("=")
        key: object = _GROUP_BY_WORD.get(option)
        if key is None:
            if not equals or name not in _TMPFS_VALUES:
                raise InvalidArgument(f'Invalid tmpfs option ["{option}"]')
            if _TMPFS_VALUES[name].fullmatch(value) is None:
                raise InvalidArgument(
                    f'Invalid tmpfs option ["{option}"]',
                    details=f"the kernel takes no {name} of {value!r} (tmpfs(5))",
                )
            key = name
        kept.pop(key, None)
        kept[key] = option
    return list(kept.values())


def parse_tmpfs(text: str) -> Tmpfs:
    """Parse ``PATH[:OPTIONS]``.

    Raises:
        InvalidArgument: in Docker's words.
    """
    target, _, options = text.partition(":")
    tmpfs = Tmpfs(_target(target), options)
    _ = tmpfs.merged_options  # refused now, and not when it starts
    return tmpfs


# --- --mount ----------------------------------------------------------------------------------


class MountRequest(Struct, frozen=True):
    """One ``--mount``: *type* is ``volume`` unless it says otherwise.

    *options* holds ``bind-…``, ``volume-…`` and ``tmpfs-…`` keys with every value given.
    """

    type: str = "volume"
    source: str = ""
    target: str = ""
    read_only: bool = False
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def last(self, key: str) -> str:
        """Return the last value given for an option, or an empty string."""
        return self.options.get(key, ("",))[-1]


_NAMES = {
    "src": "source", "destination": "target", "dst": "target", "ro": "readonly",
}  # fmt: skip
_SWITCHES = frozenset({"readonly", "volume-nocopy", "bind-nonrecursive"})
_OPTIONS = frozenset(
    {
        "bind-propagation", "bind-nonrecursive", "volume-nocopy", "volume-label",
        "volume-driver", "volume-opt", "tmpfs-size", "tmpfs-mode",
    }
)  # fmt: skip


def parse_mount(text: str) -> MountRequest:
    """Parse comma-separated ``key=value`` pairs (a pair that holds a comma stands in quotes).

    Raises:
        InvalidArgument: in the words of Docker's client.
    """
    values = {"type": "volume", "source": "", "target": "", "readonly": "false"}
    options: dict[str, list[str]] = {}
    for pair in _pairs(text):
        given, equals, value = pair.partition("=")
        key = _NAMES.get(given, given)
        if not equals:
            if key not in _SWITCHES:
                raise InvalidArgument(f"invalid field '{pair}' must be a key=value pair")
            value = "true"
        _check_value(given, key, value, pair)
        if key in _OPTIONS:
            options.setdefault(key, []).append(value)
        else:
            values[key] = value
    request = MountRequest(
        values["type"].lower(),
        _absolute_source(values["source"]),
        values["target"],
        _boolean(values["readonly"]),
        {key: tuple(all_values) for key, all_values in options.items()},
    )
    if not request.target:
        raise InvalidArgument("target is required")
    for family in ("volume", "bind", "tmpfs"):
        if family != request.type and any(key.startswith(family + "-") for key in options):
            raise InvalidArgument(
                f"cannot mix '{family}-*' options with mount type '{request.type}'"
            )
    return request


def _pairs(text: str) -> list[str]:
    import csv

    try:
        return next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        raise InvalidArgument(f"parse error in {text!r}: {error}") from None


def _check_value(given: str, key: str, value: str, pair: str) -> None:
    wrong = InvalidArgument(f"invalid value for {given}: {value}")
    if key in _SWITCHES:
        if value.lower() not in ("1", "t", "true", "0", "f", "false"):
            raise wrong
    elif key == "tmpfs-size":
        try:
            parse_memory(value)
        except ValueError:
            raise wrong from None
    elif key == "tmpfs-mode":
        try:
            int(value, 8)
        except ValueError:
            raise wrong from None
    elif key not in _OPTIONS and key not in ("type", "source", "target", "consistency"):
        raise InvalidArgument(f"unexpected key '{given}' in '{pair}'")


def _boolean(text: str) -> bool:
    return text.lower() in ("1", "t", "true")


def _absolute_source(source: str) -> str:
    return os.path.abspath(source) if source == "." or source.startswith("./") else source


def bind_of(request: MountRequest) -> Bind:
    """Return the bind that ``type=bind`` asks for; its source must exist when it starts.

    Raises:
        InvalidArgument: in Docker's words.
    """
    propagation = request.last("bind-propagation").lower()
    with_words = 'invalid mount config for type "bind": '
    target = _target(request.target, with_words)
    if not request.source:
        raise InvalidArgument(with_words + "field Source must not be empty")
    if propagation and propagation not in PROPAGATIONS:
        raise InvalidArgument(f"{with_words}invalid propagation mode: {propagation}")
    if not request.source.startswith("/"):
        raise InvalidArgument(
            f"{with_words}invalid mount path: '{request.source}' mount path must be absolute"
        )
    return Bind(
        os.path.normpath(request.source),
        target,
        request.read_only,
        propagation or "rprivate",
        recursive=not _boolean(request.last("bind-nonrecursive")),
        by_mount=True,
    )


def tmpfs_of(request: MountRequest) -> Tmpfs:
    """Return what ``type=tmpfs`` asks for.

    Raises:
        InvalidArgument: in Docker's words.
    """
    with_words = 'invalid mount config for type "tmpfs": '
    target = _target(request.target, with_words)
    if request.source:
        raise InvalidArgument(with_words + "field Source must not be specified")
    options = ["ro"] if request.read_only else []
    if mode := int(request.last("tmpfs-mode") or "0", 8):
        options.append(f"mode={mode:o}")
    if size_bytes := parse_memory(request.last("tmpfs-size") or "0"):
        options.append(f"size={size_bytes}")
    return Tmpfs(target, ",".join(options), by_mount=True)


class AskedMounts(Struct, frozen=True):
    """All that a container asks to have mounted."""

    binds: tuple[Bind, ...] = ()
    tmpfs: tuple[Tmpfs, ...] = ()
    volumes: VolumeWishes = field(default_factory=VolumeWishes)


def mounts_of(
    volumes: Iterable[str],
    mounts: Iterable[MountRequest],
    tmpfs: Iterable[str],
    volumes_from: Iterable[str] = (),
) -> AskedMounts:
    """Return what ``-v``, ``--mount``, ``--tmpfs`` and ``--volumes-from`` ask for together.

    Raises:
        InvalidArgument: in Docker's words.
        NotSupported: if a volume driver other than ``local`` is asked for.
    """
    binds: list[Bind] = []
    named: list[VolumeMount] = []
    declared: list[str] = []
    for text in volumes:
        if is_host_path(text):
            binds.append(parse_bind(text))
        elif isinstance(volume := parse_volume(text), str):
            declared.append(volume)
        else:
            named.append(volume)
    in_memory = [parse_tmpfs(text) for text in tmpfs]
    for request in mounts:
        if request.type == "bind":
            binds.append(bind_of(request))
        elif request.type == "tmpfs":
            in_memory.append(tmpfs_of(request))
        elif request.type == "volume":
            target = _target(request.target, 'invalid mount config for type "volume": ')
            named.append(volume_of(request, target))
        else:
            raise InvalidArgument(
                f'invalid mount config for type "{request.type}": mount type unknown',
                resolution="give type=bind, type=volume or type=tmpfs",
            )
    check_targets([*binds, *named, *in_memory])
    return AskedMounts(tuple(binds), tuple(in_memory), wishes_of(named, declared, volumes_from))


def _target(target: str, with_words: str = "") -> str:
    if posixpath.normpath(target or "/").lstrip("/") in ("", "."):
        raise InvalidArgument(with_words + "invalid specification: destination can't be '/'")
    if not target.startswith("/"):
        raise InvalidArgument(
            f"{with_words}invalid mount path: '{target}' mount path must be absolute"
        )
    return "/" + posixpath.normpath(target).lstrip("/")
