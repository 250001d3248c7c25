"""The config of an image: what OCI's ``image-spec/config.md`` and Docker put into it, typed.

The id of an image is the sha256 of its config's bytes, so bytes that came from elsewhere are
kept as they are, and bytes made here are canonical (sorted keys, no spaces). Fields that this
module does not know are carried along in *extra*, so nothing of a foreign image is lost when
another is derived from it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from ..errors import InvalidArchive
from .documents import Json, Reader, load_json_object
from .times import parse_time

CONFIG_LIMIT_BYTES = 8 << 20
"""A config longer than this is refused; real ones are a few KiB."""

_DIFF_ID = re.compile(r"sha256:[0-9a-f]{64}")
_SURROGATE = re.compile("[\ud800-\udfff]")  # bytes that were no UTF-8; Go writes U+FFFD as well
_MACHINES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", ""),
    "i386": ("386", ""),
    "loongarch64": ("loong64", ""),
    "mips64": ("mips64le", ""),
}


class Platform(Struct, frozen=True):
    """What an image runs on, in Go's words (``linux``, ``amd64``)."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def runs(self, other: Platform) -> bool:
        """Tell whether an image for *other* runs here; an unsaid variant fits every one."""
        same = (self.os, self.architecture) == (other.os, other.architecture)
        return same and (not other.variant or not self.variant or self.variant == other.variant)


def this_platform() -> Platform:
    """Return the platform of this machine (uname(2))."""
    machine = os.uname().machine
    architecture, variant = _MACHINES.get(machine, (machine, ""))
    return Platform("linux", architecture, variant)


class Healthcheck(Struct, frozen=True):
    """How to learn whether a container is healthy; times in nanoseconds, 0 means the default.

    *test* is empty (inherit), ``("NONE",)``, ``("CMD", …)`` or ``("CMD-SHELL", line)``.
    """

    test: tuple[str, ...] = ()
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    retries: int = 0
    extra: Json = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        known: dict[str, object] = {"Test": list(self.test)} if self.test else {}
        numbers = {
            "Interval": self.interval_ns,
            "Timeout": self.timeout_ns,
            "StartPeriod": self.start_period_ns,
            "Retries": self.retries,
        }
        return {**self.extra, **known, **{key: value for key, value in numbers.items() if value}}


class RunConfig(Struct, frozen=True):
    """The ``config`` object: how a container of the image runs unless it is told otherwise."""

    user: str = ""
    exposed_ports: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    working_dir: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = ""
    healthcheck: Healthcheck | None = None
    on_build: tuple[str, ...] = ()
    shell: tuple[str, ...] = ()
    extra: Json = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """``env`` as a mapping; an entry without ``=`` has an empty value."""
        return {key: value for key, _, value in (entry.partition("=") for entry in self.env)}

    def with_env(self, name: str, value: str) -> RunConfig:
        """Return a copy in which *name* is set, in its old place if it had one."""
        entry = f"{name}={value}"
        if any(other.partition("=")[0] == name for other in self.env):
            env = tuple(entry if old.partition("=")[0] == name else old for old in self.env)
        else:
            env = (*self.env, entry)
        return replace(self, env=env)

    def to_json(self) -> dict[str, object]:
        texts = {
            "User": self.user, "WorkingDir": self.working_dir, "StopSignal": self.stop_signal,
        }  # fmt: skip
        lists = {
            "Env": self.env, "Entrypoint": self.entrypoint, "Cmd": self.cmd,
            "OnBuild": self.on_build, "Shell": self.shell,
        }  # fmt: skip
        sets = {"ExposedPorts": self.exposed_ports, "Volumes": self.volumes}
        known: dict[str, object] = {key: text for key, text in texts.items() if text}
        known |= {key: list(items) for key, items in lists.items() if items}
        known |= {key: {item: {} for item in items} for key, items in sets.items() if items}
        if self.labels:
            known["Labels"] = dict(self.labels)
        if self.healthcheck is not None:
            known["Healthcheck"] = self.healthcheck.to_json()
        return {**self.extra, **known}


class HistoryEntry(Struct, frozen=True):
    """One step of how the image came to be; *empty_layer* steps have no layer of their own."""

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False
    extra: Json = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        texts = {
            "created": self.created, "created_by": self.created_by,
            "author": self.author, "comment": self.comment,
        }  # fmt: skip
        known: dict[str, object] = {key: text for key, text in texts.items() if text}
        if self.empty_layer:
            known["empty_layer"] = True
        return {**self.extra, **known}


class ImageConfig(Struct, frozen=True):
    """A whole config; *created* is an RFC 3339 time or empty, *diff_ids* go from base to top."""

    platform: Platform
    created: str = ""
    author: str = ""
    config: RunConfig = field(default_factory=RunConfig)
    diff_ids: tuple[str, ...] = ()
    history: tuple[HistoryEntry, ...] = ()
    extra: Json = field(default_factory=dict)

    @property
    def created_ns(self) -> int:
        return parse_time(self.created) if self.created else 0

    @property
    def comment(self) -> str:
        """Docker's top-level comment, else that of the last step."""
        own = self.extra.get("comment")
        if isinstance(own, str) and own:
            return own
        return self.history[-1].comment if self.history else ""

    def to_json(self) -> dict[str, object]:
        known: dict[str, object] = {
            "architecture": self.platform.architecture,
            "os": self.platform.os,
            "config": self.config.to_json(),
            "rootfs": {"type": "layers", "diff_ids": list(self.diff_ids)},
            "history": [entry.to_json() for entry in self.history],
        }
        optional = {
            "variant": self.platform.variant, "created": self.created, "author": self.author,
        }  # fmt: skip
        return {**self.extra, **known, **{key: text for key, text in optional.items() if text}}

    def to_bytes(self) -> bytes:
        """Return the canonical JSON whose digest is the image's id."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text).encode()


def image_id(config: bytes) -> str:
    """Return the id of the image that has these bytes as its config."""
    return "sha256:" + hashlib.sha256(config).hexdigest()


def parse_config(raw: bytes) -> ImageConfig:
    """Read a config of OCI's or Docker's making.

    Raises:
        InvalidArchive: if it is not JSON, not a config, or a known field has a wrong type.
    """
    document = load_json_object(raw, "image config", CONFIG_LIMIT_BYTES)
    reader = Reader(document, "image config")
    rootfs = reader.section("rootfs")
    diff_ids = rootfs.texts("diff_ids")
    for diff_id in diff_ids:
        if not _DIFF_ID.fullmatch(diff_id):
            raise InvalidArchive(f"invalid image config: diff_id {diff_id!r} is no sha256 digest")
    rootfs.take("type")
    created = reader.text("created")
    try:
        if created:
            parse_time(created)
    except ValueError as error:
        raise InvalidArchive(f"invalid image config: created: {error}") from None
    return ImageConfig(
        platform=Platform(
            reader.text("os") or "linux", reader.text("architecture"), reader.text("variant")
        ),
        created=created,
        author=reader.text("author"),
        config=parse_run_config(reader.mapping("config")),
        diff_ids=diff_ids,
        history=tuple(_history_entry(entry) for entry in reader.objects("history")),
        extra=reader.rest(),
    )


def parse_run_config(document: Json) -> RunConfig:
    """Read the ``config`` object of a config, or Docker's container config of the same shape."""
    reader = Reader(document, "config of the image")
    health = reader.mapping("Healthcheck")
    return RunConfig(
        user=reader.text("User"),
        exposed_ports=tuple(reader.mapping("ExposedPorts")),
        env=reader.texts("Env"),
        entrypoint=reader.texts("Entrypoint"),
        cmd=reader.texts("Cmd"),
        volumes=tuple(reader.mapping("Volumes")),
        working_dir=reader.text("WorkingDir"),
        labels=reader.text_mapping("Labels"),
        stop_signal=reader.text("StopSignal"),
        healthcheck=_healthcheck(health) if health else None,
        on_build=reader.texts("OnBuild"),
        shell=reader.texts("Shell"),
        extra=reader.rest(),
    )


def _healthcheck(document: Json) -> Healthcheck:
    reader = Reader(document, "Healthcheck")
    return Healthcheck(
        test=reader.texts("Test"),
        interval_ns=reader.integer("Interval"),
        timeout_ns=reader.integer("Timeout"),
        start_period_ns=reader.integer("StartPeriod"),
        retries=reader.integer("Retries"),
        extra=reader.rest(),
    )


def _history_entry(document: Json) -> HistoryEntry:
    reader = Reader(document, "history")
    return HistoryEntry(
        created=reader.text("created"),
        created_by=reader.text("created_by"),
        author=reader.text("author"),
        comment=reader.text("comment"),
        empty_layer=reader.boolean("empty_layer"),
        extra=reader.rest(),
    )


def layers_of_history(
    history: Sequence[HistoryEntry], count: int
) -> list[tuple[HistoryEntry, int | None]]:
    """Pair each step with the index of its layer (None for empty ones), base first.

    A history that says fewer layers than there are is completed with unknown steps, so that
    every layer shows.
    """
    paired: list[tuple[HistoryEntry, int | None]] = []
    index = 0
    for entry in history:
        if entry.empty_layer or index >= count:
            paired.append((entry, None))
        else:
            paired.append((entry, index))
            index += 1
    paired.extend((HistoryEntry(), left) for left in range(index, count))
    return paired
