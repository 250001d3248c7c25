"""Every key of the configuration, once: what it takes, what it means, what becomes of it.

All keys of dockerd 20.10's ``daemon.json`` are here, and ours. A key is

- *honoured*: it has a field of :class:`~stowage.config.Config`;
- *kept*: checked and held in a field for a part of Stowage that is to come; where its absence
  could surprise, a warning says so;
- *ignored*: accepted with one warning that says why it means nothing here;
- *refused*: ignoring it would be unsafe, so any value that asks for something is an error.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path

from msgspec import Struct

from .config_types import (
    Anything,
    Boolean,
    BridgeAddress,
    Choice,
    Directory,
    Integer,
    IpAddress,
    KeyType,
    ListOf,
    MapOf,
    Network,
    Pools,
    RuntimeType,
    Size,
    Text,
    UlimitType,
)


class Disposition(str, Enum):
    """What becomes of a key that is set."""

    HONOURED = "honoured"
    KEPT = "kept"
    IGNORED = "ignored"
    REFUSED = "refused"


class Key(Struct, frozen=True):
    """One directive.

    *flag* is its name on the command line (``--storage-opt`` for ``storage-opts``). *reason* says
    why it is ignored, refused or without effect yet. *ours* tells a key that Docker does not
    have. *alias_of* names the key that this is an old name of.
    """

    name: str
    type: KeyType[object]
    default: object = None
    meaning: str = ""
    disposition: Disposition = Disposition.HONOURED
    reason: str = ""
    flag: str = ""
    ours: bool = False
    alias_of: str = ""

    @property
    def field(self) -> str:
        """The attribute of Config that holds it."""
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return "STOWAGE_" + self.name.replace("-", "_").upper()

    @property
    def flag_name(self) -> str:
        return self.flag or self.name


DEFAULT_DATA_ROOT = Path("/var/lib/stowage")
DEFAULT_EXEC_ROOT = Path("/run/stowage")
LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")

_TEXTS = ListOf(Text())
_COUNT = Integer(1, 1000)
_NO_API = "no API is served in this version"
_NO_PULL = "no registry is asked in this version"


def _kept(
    name: str,
    type: KeyType[object],
    default: object,
    meaning: str,
    *,
    flag: str = "",
    reason: str = "",
) -> Key:
    return Key(name, type, default, meaning, Disposition.KEPT, reason, flag)


def _ours(name: str, type: KeyType[object], default: object, meaning: str) -> Key:
    return Key(name, type, default, meaning, ours=True)


def _ignored(reason: str, *names: str) -> tuple[Key, ...]:
    return tuple(
        Key(name, Anything(), disposition=Disposition.IGNORED, reason=reason) for name in names
    )


def _refused(reason: str, *names: str) -> tuple[Key, ...]:
    return tuple(
        Key(name, Anything(), disposition=Disposition.REFUSED, reason=reason) for name in names
    )


_HONOURED = (
    Key("data-root", Directory(), DEFAULT_DATA_ROOT, "where images, layers and containers live"),
    Key("graph", Directory(), None, "old name of data-root", alias_of="data-root"),
    Key("exec-root", Directory(), DEFAULT_EXEC_ROOT, "where sockets and mount points live"),
    Key("storage-driver", Text(), None, "storage driver; unset: as recorded, else by probe"),
    Key("storage-opts", _TEXTS, (), "options of the storage driver", flag="storage-opt"),
    Key("debug", Boolean(), False, "log everything and show tracebacks"),
    Key("log-level", Choice(LOG_LEVELS), "info", "least severe messages that are shown"),
    Key("default-runtime", Text(), None, "OCI runtime; unset: crun, else runc"),
    Key("runtimes", MapOf(RuntimeType()), {}, "more OCI runtimes, by name", flag="add-runtime"),
    Key("log-driver", Text(), "json-file", "default log driver: json-file, local or none"),
    Key("log-opts", MapOf(Text()), {}, "options of the default log driver", flag="log-opt"),
    Key("labels", _TEXTS, (), "labels that 'info' shows", flag="label"),
    Key("dns", ListOf(IpAddress()), (), "name servers of containers"),
    Key("dns-opts", _TEXTS, (), "options line of their resolv.conf", flag="dns-opt"),
    Key("dns-search", _TEXTS, (), "search domains of containers"),
    Key("bridge", Text(), None, "existing bridge for the default network; none: no such network"),
    Key("bip", BridgeAddress(), None, "address and subnet of the default bridge"),
    Key("fixed-cidr", Network(4), None, "part of the subnet that containers get addresses from"),
    Key("fixed-cidr-v6", Network(6), None, "IPv6 subnet of the default bridge"),
    Key("default-gateway", IpAddress(4), None, "gateway of the default bridge network"),
    Key("default-gateway-v6", IpAddress(6), None, "IPv6 gateway of the default bridge network"),
    Key("mtu", Integer(68, 65535, "bytes"), 1500, "MTU of the default network"),
    Key("icc", Boolean(), True, "containers of the default network may talk to each other"),
    Key("ip", IpAddress(), None, "address that ports are published on; unset: all"),
    Key("ip-forward", Boolean(), True, "turn net.ipv4.ip_forward on"),
    Key("ip-masq", Boolean(), True, "masquerade what leaves the default network"),
    Key("iptables", Boolean(), True, "write firewall rules (whatever the backend)"),
    Key("ip6tables", Boolean(), False, "write IPv6 firewall rules (whatever the backend)"),
    Key("ipv6", Boolean(), False, "IPv6 on the default network"),
    Key(
        "default-address-pools",
        Pools(),
        (),
        "where networks without a subnet get one; unset: Docker's",
        flag="default-address-pool",
    ),
    Key(
        "cgroup-parent", Text(), None, "parent of containers' cgroups; unset: one of the root's own"
    ),
    Key(
        "default-cgroupns-mode",
        Choice(("host", "private")),
        None,
        "cgroup namespace of containers; unset: host on cgroup v1, private on v2",
    ),
    Key(
        "default-ipc-mode",
        Choice(("private", "shareable")),
        "private",
        "whether other containers may join the IPC namespace of one",
    ),
    Key("no-new-privileges", Boolean(), False, "no program in a container gains privileges"),
    Key("seccomp-profile", Text(), None, "seccomp profile of containers; unset: Docker's default"),
    Key("default-shm-size", Size(), 64 << 20, "bytes of /dev/shm in containers"),
    Key(
        "default-ulimits",
        MapOf(UlimitType()),
        {},
        "resource limits of containers",
        flag="default-ulimit",
    ),
    _ours("network-driver", Text(), None, "driver of the default network; unset: bridge"),
    _ours("bridge-name", Text(), None, "device name of the default bridge; unset: stowage0"),
    _ours("firewall-backend", Text(), None, "firewall driver; unset: by probe"),
    _ours("allow-forward", Boolean(), False, "add one rule where the host drops forwarding"),
    _ours("publish-allow", ListOf(Network()), (), "sources that may reach published ports"),
    _ours(
        "publish-policy",
        Choice(("host", "docker")),
        "host",
        "host: respect a host firewall that drops; docker: publish to all, as Docker does",
    ),
    _ours(
        "sync",
        Choice(("filesystem", "none")),
        "filesystem",
        "what is flushed before a layer is published",
    ),
)

_KEPT = (
    _kept("hosts", _TEXTS, (), "where the API listens", flag="host"),
    _kept("registry-mirrors", _TEXTS, (), "mirrors asked first", flag="registry-mirror"),
    _kept("insecure-registries", _TEXTS, (), "registries without TLS", flag="insecure-registry"),
    _kept("tls", Boolean(), False, "TLS on TCP hosts of the API", reason=_NO_API),
    _kept("tlsverify", Boolean(), False, "TLS, and clients need a certificate", reason=_NO_API),
    _kept("tlscacert", Directory(), None, "who signs certificates of clients", reason=_NO_API),
    _kept("tlscert", Directory(), None, "certificate of the API", reason=_NO_API),
    _kept("tlskey", Directory(), None, "key of the API", reason=_NO_API),
    _kept("group", Text(), None, "group that owns the API's unix sockets", reason=_NO_API),
    _kept("pidfile", Directory(), None, "where the API server writes its pid", reason=_NO_API),
    _kept("max-concurrent-downloads", _COUNT, 3, "layers pulled at a time", reason=_NO_PULL),
    _kept("max-concurrent-uploads", _COUNT, 5, "layers pushed at a time", reason=_NO_PULL),
    _kept("max-download-attempts", _COUNT, 5, "tries for each layer", reason=_NO_PULL),
    _kept(
        "shutdown-timeout",
        Integer(-1, 86400, "seconds"),
        15,
        "grace when all is stopped",
        reason=_NO_API,
    ),
)

_IGNORED = (
    *_ignored("layers are always pushed whole or not at all", "allow-nondistributable-artifacts"),
    *_ignored("no browser is served", "api-cors-header"),
    *_ignored("there is no build cache to collect here", "builder"),
    *_ignored("there is no swarm and no cluster store", "cluster-advertise", "cluster-store"),
    *_ignored("there is no swarm and no cluster store", "cluster-store-opts"),
    *_ignored("there is no swarm", "swarm-default-advertise-addr", "node-generic-resources"),
    *_ignored("there is no swarm", "swarm-raft-election-tick", "swarm-raft-heartbeat-tick"),
    *_ignored("there is no swarm", "network-control-plane-mtu", "network-diagnostic-port"),
    *_ignored("containerd is not used", "containerd", "containerd-namespace", "cri-containerd"),
    *_ignored("containerd is not used", "containerd-plugin-namespace"),
    *_ignored("no real-time budget is handed out", "cpu-rt-period", "cpu-rt-runtime"),
    *_ignored("cgroups are managed by the runtime directly (cgroupfs)", "exec-opts"),
    *_ignored("nothing is experimental", "experimental"),
    *_ignored("it names features of Docker's own", "features"),
    *_ignored("no name for the host is handed to containers", "host-gateway-ip"),
    *_ignored("containers get an init only when asked", "default-init", "init", "init-path"),
    *_ignored("containers always outlive the process that started them", "live-restore"),
    *_ignored("no metrics are served", "metrics-addr"),
    *_ignored("there is no daemon to adjust", "oom-score-adjust"),
    *_ignored("messages carry no colours", "raw-logs"),
    *_ignored("it is found out, not told", "rootless"),
    *_ignored("/etc/resolv.conf of the host is read", "resolv-conf"),
    *_ignored("images are not signed here", "deprecated-key-path"),
    *_ignored("ports are published without a proxy", "userland-proxy", "userland-proxy-path"),
)

_REFUSED = (
    *_refused(
        "requests would not be authorised by anybody while you believe that they are",
        "authorization-plugins",
    ),
    *_refused(
        "root in a container would be root on the host while you believe that it is not",
        "userns-remap",
    ),
    *_refused("containers would not be labelled and confined as you expect", "selinux-enabled"),
)

KEYS = {key.name: key for key in (*_HONOURED, *_KEPT, *_IGNORED, *_REFUSED)}
"""Every known key by its name in the file."""

KEY_BY_FLAG = {key.flag_name: key for key in KEYS.values()}
KEY_BY_VARIABLE = {key.variable: key for key in KEYS.values()}
