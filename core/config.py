"""Configuration: flags over environment over a file with the keys of Docker's ``daemon.json``.

The keys are declared in :mod:`stowage.config_keys`. Every problem of every source is found
before anything is reported, in one :class:`InvalidConfig`.

A directive is named ``storage-driver`` in the file, ``STOWAGE_STORAGE_DRIVER`` in the environment
and ``--storage-driver`` on the command line; lists are separated by commas in the environment and
given by repeating the flag. ``--config`` and ``STOWAGE_CONFIG`` name the file; ``--root DIR`` and
``STOWAGE_ROOT`` put data-root at ``DIR/data`` and exec-root at ``DIR/exec``, whatever the file
says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Literal

from msgspec import Struct, field

from .config_checks import cross_checks
from .config_file import Entry, read_file
from .config_keys import (
    DEFAULT_DATA_ROOT,
    DEFAULT_EXEC_ROOT,
    KEY_BY_FLAG,
    KEY_BY_VARIABLE,
    KEYS,
    Disposition,
    Key,
)
from .config_types import AddressPool, ListOf, MapOf, Runtime, Ulimit
from .errors import InvalidConfig, NotFound
from .model import Address, Subnet
from .options import nearest
from .records import field_names

DEFAULT_CONFIG_FILE = Path("/etc/stowage/daemon.json")

FlagValue = str | bool | Sequence[str]

_OTHER_VARIABLES = frozenset(
    f"STOWAGE_{name}"
    for name in ("ROOT", "CONFIG", "OBSERVERS", "TRACE", "PLUGINS_BLOCK", "PLUGINS_ALLOW")
) | {"STOWAGE_PLUGINS_TRACE", "STOWAGE_FAULTS"}


class Origin(Struct, frozen=True):
    """Where a value came from; *where* is the flag, the variable, or file and line."""

    source: Literal["flag", "environment", "file", "default"]
    where: str = ""

    def __str__(self) -> str:
        return f"{self.source} {self.where}".rstrip()


class Config(Struct, frozen=True, kw_only=True):
    """What was configured, checked and typed. Unset is None or empty; units as in the table.

    Build it with :meth:`load` or :meth:`for_root`. ``bool`` fields and sizes have Docker's
    defaults.
    """

    data_root: Path = DEFAULT_DATA_ROOT
    exec_root: Path = DEFAULT_EXEC_ROOT
    storage_driver: str | None = None
    storage_opts: tuple[str, ...] = ()
    debug: bool = False
    log_level: str = "info"
    default_runtime: str | None = None
    runtimes: Mapping[str, Runtime] = field(default_factory=dict)
    dns: tuple[Address, ...] = ()
    dns_opts: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    bridge: str | None = None
    bip: IPv4Interface | None = None
    fixed_cidr: Subnet | None = None
    fixed_cidr_v6: Subnet | None = None
    default_gateway: Address | None = None
    default_gateway_v6: Address | None = None
    mtu: int = 1500
    icc: bool = True
    ip: Address | None = None
    ip_forward: bool = True
    ip_masq: bool = True
    iptables: bool = True
    ip6tables: bool = False
    ipv6: bool = False
    default_address_pools: tuple[AddressPool, ...] = ()
    network_driver: str | None = None
    bridge_name: str | None = None
    firewall_backend: str | None = None
    allow_forward: bool = False
    publish_allow: tuple[Subnet, ...] = ()
    publish_policy: str = "host"
    sync: str = "filesystem"
    hosts: tuple[str, ...] = ()
    registry_mirrors: tuple[str, ...] = ()
    insecure_registries: tuple[str, ...] = ()
    tls: bool = False
    tlsverify: bool = False
    tlscacert: Path | None = None
    tlscert: Path | None = None
    tlskey: Path | None = None
    group: str | None = None
    pidfile: Path | None = None
    max_concurrent_downloads: int = 3
    max_concurrent_uploads: int = 5
    max_download_attempts: int = 5
    labels: tuple[str, ...] = ()
    cgroup_parent: str | None = None
    default_cgroupns_mode: str | None = None
    default_ipc_mode: str = "private"
    no_new_privileges: bool = False
    seccomp_profile: str | None = None
    default_shm_size: int = 64 << 20
    default_ulimits: Mapping[str, Ulimit] = field(default_factory=dict)
    log_driver: str = "json-file"
    log_opts: Mapping[str, str] = field(default_factory=dict)
    shutdown_timeout: int = 15
    warnings: tuple[str, ...] = ()
    """One for each directive that means nothing here, to be shown once."""
    origins: Mapping[str, Origin] = field(default_factory=dict)

    @classmethod
    def load(
        cls,
        flags: Mapping[str, FlagValue] | None = None,
        environ: Mapping[str, str] | None = None,
        default_path: Path | None = DEFAULT_CONFIG_FILE,
    ) -> Config:
        """Return the configuration of *flags* over *environ* over the file.

        *flags* are named as on the command line, without dashes (``{"storage-opt": […]}``)
        or in the file, ``root`` and ``config`` among them. The file is the one that ``config`` or
        ``STOWAGE_CONFIG`` names, else *default_path*, which may be absent (None: no file).

        Raises:
            InvalidConfig: with every problem of every source.
            NotFound: if a file was named and is not there.
            PermissionDenied: if the file cannot be read.
        """
        return _Loader(flags or {}, environ or {}, default_path).load()

    @classmethod
    def for_root(cls, root: Path, flags: Mapping[str, FlagValue] | None = None) -> Config:
        """Return the configuration of a root at *root* that no file and no environment touches."""
        return cls.load({**(flags or {}), "root": str(root)}, {}, None)

    def origin(self, key: str) -> Origin:
        """Return where the value of *key* (as in the file, ``storage-driver``) came from."""
        if key not in KEYS:
            raise NotFound("configuration key", key)
        return self.origins.get(key, Origin("default"))


class _Given(Struct):
    """A directive as one source has it, unread."""

    raw: object
    origin: Origin


class _Loader:
    """Collects the sources, then problems, then values."""

    def __init__(
        self,
        flags: Mapping[str, FlagValue],
        environ: Mapping[str, str],
        default_path: Path | None,
    ) -> None:
        self.flags = flags
        self.environ = environ
        self.default_path = default_path
        self.problems: list[str] = []
        self.warnings: list[str] = []

    def load(self) -> Config:
        path, entries = self._file()
        from_file = self._from_file(path, entries)
        from_environment = self._from_environment()
        from_flags = self._from_flags()
        self._conflicts(from_flags, from_file)
        places = self._places()
        given = {**from_file, **places[0], **from_environment, **places[1], **from_flags}
        values = {name: value for name, one in given.items() for value in self._read(name, one)}
        self.problems += cross_checks(values)
        if self.problems:
            raise InvalidConfig(self._brief(path), self.problems)
        known = set(field_names(Config))
        typed = {KEYS[n].field: v for n, v in values.items() if KEYS[n].field in known}
        if values.get("iptables") is False:
            typed["ip_masq"] = False  # as Docker: there is nobody to write the rule
        return Config(  # types: every value was read by its key's own type
            **typed,  # type: ignore[arg-type]
            warnings=tuple(self.warnings),
            origins={name: one.origin for name, one in given.items() if name in values},
        )

    def _brief(self, path: Path | None) -> str:
        if path is None or all(p.startswith(("--", "STOWAGE_")) for p in self.problems):
            return "unable to configure stowage"
        return f"unable to configure stowage with file {path}"

    # --- sources -----------------------------------------------------------------------------

    def _file(self) -> tuple[Path | None, dict[str, Entry]]:
        named = self.flags.get("config") or self.environ.get("STOWAGE_CONFIG")
        if named:
            assert isinstance(named, str)
            path = Path(named)
            return path, read_file(path)
        if self.default_path is None:
            return None, {}
        try:
            return self.default_path, read_file(self.default_path)
        except NotFound:
            return None, {}

    def _from_file(self, path: Path | None, entries: Mapping[str, Entry]) -> dict[str, _Given]:
        given: dict[str, _Given] = {}
        for name, entry in entries.items():
            where = f"{path}:{entry.line}:{entry.column}"
            if name not in KEYS:
                hint = nearest(name, KEYS)
                self.problems.append(f"{where}: unknown directive {name!r}{hint}")
                continue
            target = KEYS[name].alias_of or name
            if target != name and target in entries:
                self.problems.append(f'{where}: cannot specify both "{name}" and "{target}"')
            given[target] = _Given(entry.value, Origin("file", where))
        return given

    def _from_environment(self) -> dict[str, _Given]:
        given: dict[str, _Given] = {}
        for variable, text in self.environ.items():
            key = KEY_BY_VARIABLE.get(variable)
            if key is not None and text:
                given[key.name] = _Given(_Text(text), Origin("environment", variable))
            elif key is None and variable.startswith("STOWAGE_"):
                self._perhaps_misspelt(variable)
        return given

    def _perhaps_misspelt(self, variable: str) -> None:
        """A foreign variable is no error, for others may use the prefix; a near miss is named."""
        if variable in _OTHER_VARIABLES:
            return
        name = variable.removeprefix("STOWAGE_").replace("_", "-").lower()
        if near := get_close_matches(name, KEYS, n=1, cutoff=0.8):
            self.warnings.append(
                f"environment variable {variable} is not known; "
                f"did you mean {KEYS[near[0]].variable!r}?"
            )

    def _from_flags(self) -> dict[str, _Given]:
        given: dict[str, _Given] = {}
        for flag, value in self.flags.items():
            if flag in ("root", "config"):
                continue
            key = KEY_BY_FLAG.get(flag) or KEYS.get(flag)
            if key is None:
                self.problems.append(f"--{flag}: unknown flag{nearest(flag, KEY_BY_FLAG)}")
                continue
            raw = value if isinstance(value, bool) else _Text.of(value)
            given[key.name] = _Given(raw, Origin("flag", f"--{flag}"))
        return given

    def _places(self) -> tuple[dict[str, _Given], dict[str, _Given]]:
        """``STOWAGE_ROOT`` and ``--root`` as the data-root and exec-root that they mean."""
        sources = (
            (self.environ.get("STOWAGE_ROOT"), Origin("environment", "STOWAGE_ROOT")),
            (self.flags.get("root"), Origin("flag", "--root")),
        )
        result = []
        for root, origin in sources:
            places = {}
            if isinstance(root, str) and root:
                places["data-root"] = _Given(_Text(f"{root}/data"), origin)
                places["exec-root"] = _Given(_Text(f"{root}/exec"), origin)
            result.append(places)
        return result[0], result[1]

    # --- judgement ---------------------------------------------------------------------------

    def _conflicts(self, from_flags: Mapping[str, _Given], from_file: Mapping[str, _Given]) -> None:
        both = [
            f"{name}: (from flag: {_go_value(from_flags[name].raw)},"
            f" from file: {_go_value(from_file[name].raw)})"
            for name in from_flags
            if name in from_file
        ]
        if both:
            self.problems.append(
                "the following directives are specified both as a flag and in the configuration"
                f" file: {', '.join(both)}"
            )

    def _read(self, name: str, given: _Given) -> Iterable[object]:
        """Yield the typed value, or nothing after noting what is wrong."""
        key = KEYS[name]
        try:
            value = _parse(key, given.raw)
        except ValueError as error:
            self.problems.append(f"{given.origin.where}: {name}: {error}")
            return
        if key.disposition is Disposition.REFUSED and value not in (False, "", [], {}, "false"):
            self.problems.append(
                f"{given.origin.where}: {name} is refused: {key.reason}; remove it to go on"
            )
        elif key.reason and key.disposition in (Disposition.IGNORED, Disposition.KEPT):
            self.warnings.append(f"{name} ({given.origin}) has no effect: {key.reason}")
        yield value


class _Text(tuple[str, ...]):
    """Text of a flag or a variable: one string, or as many as the flag was given."""

    __slots__ = ()

    def __new__(cls, *texts: str) -> _Text:
        return super().__new__(cls, texts)

    @classmethod
    def of(cls, value: str | Sequence[str]) -> _Text:
        return _Many(*value) if not isinstance(value, str) else cls(value)


class _Many(_Text):
    """A flag that was repeated: no item of it is split at commas."""

    __slots__ = ()


def _parse(key: Key, raw: object) -> object:
    if isinstance(raw, _Many) and isinstance(key.type, ListOf | MapOf):
        return key.type.from_texts(raw)
    if isinstance(raw, _Text):
        return key.type.from_text(raw[-1])
    return key.type.from_json(raw)


def _go_value(raw: object) -> str:
    """Show a value as Go's %v does, which is how Docker words the conflict."""
    if isinstance(raw, bool):
        return "true" if raw else "false"
    if isinstance(raw, _Text) and not isinstance(raw, _Many):
        return raw[0]
    if isinstance(raw, list | tuple):
        return f"[{' '.join(_go_value(item) for item in raw)}]"
    if isinstance(raw, dict):
        return f"map[{' '.join(f'{k}:{_go_value(v)}' for k, v in sorted(raw.items()))}]"
    return str(raw)
