"""The values that pass between the core and its drivers: frozen, parsed once, then trusted.

Paths inside a layer are ``bytes`` (a file name is any byte but ``/`` and NUL); paths of the host
are :class:`pathlib.Path`. Times are integers of nanoseconds since 1970, sizes integers of bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum, IntEnum
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from pathlib import Path
from typing import Literal, Protocol

from msgspec import Struct, field

API_VERSION = 1
"""The version of the driver contract; a driver names the one it was written for."""


# --- storage -----------------------------------------------------------------------------------


class Kind(str, Enum):
    """What a snapshot is (containerd's kinds)."""

    ACTIVE = "active"
    """Writable; has a *key*."""
    VIEW = "view"
    """Read-only look at a committed snapshot; has a *key*."""
    COMMITTED = "committed"
    """Immutable; has a *name*; may be a parent."""


class WhiteoutForm(str, Enum):
    """How a layer's directory says that a name of a lower layer is gone."""

    OCI = "oci"
    """Empty files ``.wh.<name>`` and ``.wh..wh..opq`` (OCI image-spec, layer.md; aufs)."""
    OVERLAY = "overlay"
    """0:0 character devices and an opaque xattr (kernel overlayfs.rst)."""
    NONE = "none"
    """The directory holds the full tree; what is gone is simply not there."""


class DirectoryOption(Struct, frozen=True):
    """A mount option whose value is a directory, handed over by descriptor.

    Neither the length of the path nor a ``:`` or ``,`` in it matters then (kernel 6.13 and later
    for overlay's layers).
    """

    key: str
    path: Path


class Mount(Struct, frozen=True):
    """One mount as data; a driver says it, the core makes it.

    *type* is a file system type or ``"bind"``; *options* are ``key=value`` or bare flags
    (``"ro"``) or :class:`DirectoryOption`. Relative paths in options are resolved beneath
    *directory*. With *monolithic* the options go to mount(2) as one string of at most a page,
    for kernels whose file system does not know the new mount API.
    """

    type: str
    source: str
    options: tuple[str | DirectoryOption, ...] = ()
    directory: Path | None = None
    monolithic: bool = False

    @property
    def read_only(self) -> bool:
        return "ro" in self.options


class Usage(Struct, frozen=True):
    """What a snapshot occupies without its parents: bytes on disk and inodes."""

    size_bytes: int
    inodes: int


class ChangeKind(IntEnum):
    """Docker's numbers, as in the Engine API's ``/containers/{id}/changes``."""

    MODIFIED = 0
    ADDED = 1
    DELETED = 2

    @property
    def letter(self) -> str:
        return "CAD"[self]


class Change(Struct, frozen=True, order=True):
    """One path that differs from the parent; *path* is absolute within the layer (``b"/etc"``)."""

    path: bytes
    kind: ChangeKind


class LayerTree(Struct, frozen=True):
    """A directory that holds one layer's own content in a whiteout form.

    The core walks it for a native diff, or unpacks straight into it. *xattr_prefix* is where the
    file system keeps its own marks (``"trusted.overlay."`` or ``"user.overlay."``); attributes
    below it are never content. *whiteout_xattr* is true where whiteouts are zero-size files with
    the xattr ``whiteout`` because devices cannot be made.
    """

    path: Path
    form: WhiteoutForm
    xattr_prefix: str = ""
    whiteout_xattr: bool = False


class StorageCapabilities(Struct, frozen=True):
    """What a storage driver can do for this root and these options; the kit verifies it."""

    native_diff: bool = False
    """``storage_diff_tree`` gives a tree that holds only what changed."""
    native_apply: bool = False
    """``storage_apply_tree`` gives a tree to unpack into without a mount."""
    ro_enforced: bool = True
    """Writing through a view fails with EROFS."""
    exclusive_upper: bool = False
    """The kernel itself refuses to mount one active snapshot twice."""
    quota_size: bool = False
    quota_inodes: bool = False
    remap_ids: bool = False
    rebase: bool = False
    """A layer can be unpacked without its parents and be given them at commit."""
    reflink: bool = False
    stable_inodes: bool = False
    """(st_dev, st_ino) of an open file stays when it is first written to."""
    hardlinks_kept: bool = False
    """Writing through one name of a parent's hard-linked file shows under the others."""
    dir_rename: bool = True
    """rename(2) of a parent's directory works (else EXDEV)."""
    fresh_read_descriptor: bool = True
    """A descriptor opened for reading before the first write sees what is written later."""
    multi_process: bool = True
    clone_active: bool = False
    acl_enforced: bool = True
    host_root: bool = False
    """A directory of the host can be the parent of a snapshot (``run --rootfs``)."""
    max_depth: int = 0
    """Most parents that a snapshot may have; 0 means no limit of its own."""
    stale_options: tuple[str, ...] = ()
    """Snapshot options with which an active snapshot mounts again whose mount failed with ESTALE
    because its root was copied or restored; the core then sets them and records that."""


class Finding(Struct, frozen=True):
    """One reason why a driver cannot work here, and what would help."""

    reason: str
    remedy: str = ""


class StorageProbe(Struct, frozen=True):
    """The answer of ``storage_probe``: works when *findings* is empty."""

    capabilities: StorageCapabilities = field(default_factory=StorageCapabilities)
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    """How it works here, for ``driver explain`` ("layers by descriptor; up to 500")."""

    @property
    def ok(self) -> bool:
        return not self.findings


class SnapshotInfo(Struct, frozen=True):
    """A snapshot as the layer store records it. *name* is its key until it is committed."""

    id: int
    driver: str
    name: str
    parent: str | None
    kind: Kind
    created_ns: int
    updated_ns: int
    labels: Mapping[str, str]
    usage: Usage | None = None
    """Frozen at commit; None while active."""
    diff_id: str | None = None
    """``sha256:…`` of the layer's uncompressed archive; None until committed, as chain_id."""
    chain_id: str | None = None


# --- network -----------------------------------------------------------------------------------

SandboxMode = Literal["private", "host", "shared"]
Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface
Subnet = IPv4Network | IPv6Network


class NetworkCapabilities(Struct, frozen=True):
    """What a network driver can do here.

    *sandbox* says which network namespace its containers get: one of their own, the host's, or
    another container's.
    """

    sandbox: SandboxMode = "private"
    ipam: bool = False
    """The core gives endpoints addresses from the network's pools."""
    publish: bool = False
    user_defined: bool = False
    """``network create -d NAME`` is allowed."""
    multi_network: bool = False
    """A container may be on several such networks."""


class NetworkProbe(Struct, frozen=True):
    """The answer of ``network_probe`` or ``firewall_probe``; works when *findings* is empty."""

    capabilities: NetworkCapabilities = field(default_factory=NetworkCapabilities)
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.findings


class Pool(Struct, frozen=True):
    """One subnet of a network; *ip_range* is where addresses are taken from."""

    subnet: Subnet
    gateway: Address | None = None
    ip_range: Subnet | None = None
    auxiliary: Mapping[str, Address] = field(default_factory=dict)


class Network(Struct, frozen=True):
    """A network as recorded; *id* is 64 hex digits."""

    id: str
    name: str
    driver: str
    pools: tuple[Pool, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    internal: bool = False


class Sandbox(Struct, frozen=True):
    """A network namespace that the core holds open as *descriptor*.

    *cookie* is its SO_NETNS_COOKIE. The descriptor is lent for the call, never kept.
    """

    container_id: str
    descriptor: int
    cookie: int


class Endpoint(Struct, frozen=True):
    """One attachment of a container to a network; *id* is 64 hex digits."""

    id: str
    network_id: str
    container_id: str
    addresses: tuple[Interface, ...] = ()
    mac_address: str | None = None
    interface: str = "eth0"
    """Name of the link inside the sandbox."""
    host_interface: str = ""
    """Name that the driver must give the host's end (``stw…``), at most 15 bytes."""
    options: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[PortMapping, ...] = ()
    """What is published on it, once that is reserved."""


class Route(Struct, frozen=True):
    """A route inside a sandbox; without *gateway* it is on-link."""

    destination: Subnet
    gateway: Address | None = None


class JoinResult(Struct, frozen=True):
    """What a container has on an endpoint once it joined."""

    gateways: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    nameservers: tuple[Address, ...] = ()


Transport = Literal["tcp", "udp", "sctp"]


class PortMapping(Struct, frozen=True, order=True):
    """One published port: *host_port* on *host_address* leads to *container_port*.

    The unspecified address (``0.0.0.0``, ``::``) means every address of its family. The
    container is reached by its address of the same family.
    """

    protocol: Transport
    container_port: int
    host_port: int
    host_address: Address

    def __str__(self) -> str:
        """As ``docker ps`` writes it: ``0.0.0.0:8080->80/tcp``, ``[::]:8080->80/tcp``."""
        address = str(self.host_address)
        shown = f"[{address}]" if self.host_address.version == 6 else address
        return f"{shown}:{self.host_port}->{self.container_port}/{self.protocol}"


PublishPolicy = Literal["host", "docker"]


class FirewallNetwork(Struct, frozen=True):
    """What a firewall backend must know of a network.

    *icc*: its containers may talk to each other. *routed*: the address families (4, 6) that are
    neither masqueraded nor translated; published ports are then open on the container's own
    address. *source_addresses*: what its packets leave with instead of the way out's address, at
    most one of each family. *trusted_interfaces*: links of the host from which every port of its
    containers may be reached. *publish_policy* and *publish_allow*: who may reach published
    ports where the host's own filter drops what comes in ("host": those sources alone).
    """

    id: str
    bridge: str
    subnets: tuple[Subnet, ...]
    internal: bool = False
    masquerade: bool = True
    icc: bool = True
    routed: tuple[int, ...] = ()
    source_addresses: tuple[Address, ...] = ()
    trusted_interfaces: tuple[str, ...] = ()
    publish_policy: PublishPolicy = "host"
    publish_allow: tuple[Subnet, ...] = ()


class FirewallEndpoint(Struct, frozen=True):
    """What a firewall backend must know of an endpoint to open its ports."""

    id: str
    network_id: str
    addresses: tuple[Address, ...]
    ports: tuple[PortMapping, ...] = ()


class Firewall(Protocol):
    """A firewall backend as a network driver meets it; see ``FirewallSpec`` for the words."""

    @property
    def name(self) -> str: ...
    @property
    def intact(self) -> bool: ...
    def add_network(self, network: FirewallNetwork) -> None: ...
    def remove_network(self, network: FirewallNetwork) -> None: ...
    def add_endpoint(self, network: FirewallNetwork, endpoint: FirewallEndpoint) -> None: ...
    def remove_endpoint(self, network: FirewallNetwork, endpoint: FirewallEndpoint) -> None: ...
    def check(
        self, networks: Sequence[FirewallNetwork], endpoints: Sequence[FirewallEndpoint]
    ) -> Sequence[str]: ...
    def restore(
        self, networks: Sequence[FirewallNetwork], endpoints: Sequence[FirewallEndpoint]
    ) -> None: ...
    def warnings(self, network: FirewallNetwork) -> Sequence[str]: ...


class Recorded(Struct, frozen=True):
    """The networks of a root and their endpoints that live, as the metastore has them now."""

    networks: Sequence[Network] = ()
    endpoints: Sequence[Endpoint] = ()


def _no_firewall() -> Firewall:
    raise NotImplementedError("this context has no firewall backend")


class NetworkContext(Struct, frozen=True):
    """What a network or firewall driver is constructed with.

    *root_id* names the root in the kernel (8 hex digits; tables, chains, links); *exec_root* is
    a directory for locks and sockets. *settings* are those of ``daemon.json``, validated, by key
    (``"ip-forward"``, ``"publish-allow"``, …). *firewall* opens the root's firewall backend;
    *recorded* reads what is recorded at this moment, for a driver that finds more lost than it
    was asked about (a foreign ``nft flush ruleset``).
    """

    root_id: str
    exec_root: Path
    settings: Mapping[str, object] = field(default_factory=dict)
    firewall: Callable[[], Firewall] = _no_firewall
    recorded: Callable[[], Recorded] = Recorded
