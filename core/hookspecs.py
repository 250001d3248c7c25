"""The hook specs: everything a driver may implement, and when the core calls it.

Glossary
========

storage
    *layer*: one set of changes to a tree, as an image has them. *snapshot*: a layer on a driver,
    in one of three kinds: **active** (writable, known by a *key*), **view** (read-only, known by
    a *key*) or **committed** (immutable, known by a *name*, may be a parent). *parents*: the
    chain below a snapshot, nearest first. *whiteout*: the mark that a lower layer's name is gone;
    *opaque*: the mark that a directory hides all of the lower ones.
network
    *sandbox*: the network context of a container (a network namespace). *endpoint*: one
    attachment of a sandbox to a *network*. *pool*: a subnet to take addresses from.

Life cycle of a snapshot
========================

::

    storage_prepare ──► storage_mounts / storage_attach ──► storage_seal ──► (a parent of others)
          │                         ▲                            │
          │                         └── any number of times ─────┤
          └──────────────────────► storage_destroy ◄─────────────┘

Life cycle of an endpoint
=========================

::

    network_create ► network_create_endpoint ► network_join ► network_program_external
                                                                        │
    network_delete ◄ network_delete_endpoint ◄ network_leave ◄ network_revoke_external

What the core does and a driver need not
========================================

Names, parents, kinds, states, labels, locks, leases, the trash, recovery after a kill, sync
before a layer is published, usage kept at commit, diff and apply through the driver's mounts,
IPAM, ports, sandboxes and name files. Before each call the core has recorded in its metastore
what it is about to do, so a driver holds no state of its own that a crash could tear: all that
it needs comes by argument, all that it makes lies in the directory that it was given (or is
found from there).

A driver is a class with the attributes ``name``, ``api_version`` and ``options``, readable
without an instance. The core makes one instance per root: a storage driver from ``(root,
options, logger)``, a network or firewall driver from ``(context, options, logger)``. The methods
are the hook implementations, each marked ``@hookimpl``; one may take fewer arguments than its
spec. A storage driver's ``priority`` (an integer, 1 if absent) ranks it when none is asked for; 0
or less is a last resort that is never chosen in silence. Every hook but ``storage_probe``,
``storage_prepare`` and ``storage_mounts`` (or ``storage_attach``) is optional.

Errors: a driver raises :class:`stowage.StowageError` or lets an ``OSError`` through; the core
turns the latter into one of ours by its errno, and anything else into ``DriverFailed``. Every
effect on the kernel or a file system runs inside :func:`stowage.effect`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pluggy

from .model import (
    Change,
    Endpoint,
    FirewallEndpoint,
    FirewallNetwork,
    JoinResult,
    Kind,
    LayerTree,
    Mount,
    Network,
    NetworkProbe,
    PortMapping,
    Sandbox,
    StorageProbe,
    Usage,
)
from .options import Options

PROJECT = "stowage"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class StorageSpec:
    """Hooks of storage drivers. All directories are absolute and exist unless said otherwise."""

    @hookspec(firstresult=True)
    def storage_probe(self) -> StorageProbe:  # type: ignore[empty-body]  # a spec has no body
        """Try whether the driver works for this root and these options, and what it can do.

        Do the real thing (make two layers, mount them, look) in a scratch directory below the
        root that the driver was constructed with, and leave nothing. Capabilities may depend
        on the file system and on options; what it takes in privileges or kernel features and
        does not find is a :class:`~stowage.Finding` with a remedy, never an exception.

        When it runs: once per opened handle, and for ``driver ls`` and ``driver explain``.
        """

    @hookspec(firstresult=True)
    def storage_prepare(
        self, directory: Path, parents: Sequence[Path], kind: Kind, options: Options
    ) -> None:
        """Make the storage of a new snapshot in *directory*, which exists and is empty.

        *parents* are the directories of its committed parents, nearest first (empty for a base).
        *kind* is ACTIVE or VIEW; a view may need nothing at all. *options* are this snapshot's
        (scope ``snapshot``). The snapshot must look exactly like its parent, the mode, owner
        and xattrs of its root included; a base is an empty directory 0755 owned by 0:0.

        When it runs: the row of the snapshot says *preparing*. On any error the core calls
        ``storage_destroy`` on what is there. Not idempotent: it is never called twice for a
        directory.
        """

    @hookspec(firstresult=True)
    def storage_mounts(  # type: ignore[empty-body]  # a spec has no body
        self, directory: Path, parents: Sequence[Path], kind: Kind, options: Options
    ) -> Sequence[Mount]:
        """Say the mounts that show the snapshot, as data; change nothing.

        *options* are this snapshot's as recorded (scope ``snapshot``); the core may have changed
        them since ``storage_prepare`` (overlay's ``index=off`` after the root was copied).
        It is one mount (in a sequence, as containerd has it); a driver that needs several puts
        them together in ``storage_attach``. ACTIVE is writable; VIEW and
        COMMITTED must be read-only (the core adds ``ro`` to what it mounts for them). Pure:
        the same arguments give the same value.

        When it runs: before each mount; the core holds the lease that makes it safe.
        """

    @hookspec(firstresult=True)
    def storage_attach(
        self, directory: Path, parents: Sequence[Path], kind: Kind, options: Options
    ) -> int | None:
        """Serve the snapshot and return a descriptor of its detached root mount.

        For drivers whose storage needs a server or a device (FUSE, thin pool), or something
        done first; it goes before ``storage_mounts``. None means: make the mounts that
        ``storage_mounts`` says. The mount must be gone once its last reference is closed.

        When it runs: as ``storage_mounts``. The caller owns the descriptor.
        """

    @hookspec(firstresult=True)
    def storage_seal(self, directory: Path, parents: Sequence[Path]) -> None:
        """Make an active snapshot immutable; it may be a parent from now on.

        Give up what only a writable snapshot needs. Nothing is mounted. Idempotent: after a
        crash it is called again. Where the commit fails afterwards the snapshot stays active:
        attaching it for writing must still work.

        When it runs: at commit, before the name is published.
        """

    @hookspec(firstresult=True)
    def storage_destroy(self, directory: Path) -> None:
        """Take down what lies outside *directory* or cannot be unlinked (subvolumes, devices).

        The core removes the directory itself afterwards. *directory* is in the trash, maybe
        half made, maybe half destroyed: take what is there. Idempotent.

        When it runs: in the reaper, or after a failed ``storage_prepare``.
        """

    @hookspec(firstresult=True)
    def storage_usage(  # type: ignore[empty-body]  # a spec has no body
        self, directory: Path, parents: Sequence[Path]
    ) -> Usage:
        """Return what the snapshot occupies without its parents.

        Without this hook the core walks ``storage_diff_tree``'s tree, or the difference to
        the parent.

        When it runs: at commit (the figure is kept) and for ``ps --size``.
        """

    @hookspec(firstresult=True)
    def storage_diff_tree(self, directory: Path, parents: Sequence[Path]) -> LayerTree | None:
        """Return the tree that holds only what the snapshot changed, or None for this one.

        The core walks it (never writes to it) for changes, diff and usage. None means that the
        tree would be wrong for this snapshot (overlay with ``metacopy`` or ``redirect_dir``);
        the core then compares the mounted snapshot with its parent.

        When it runs: only with the capability ``native_diff``.
        """

    @hookspec(firstresult=True)
    def storage_apply_tree(self, directory: Path, parents: Sequence[Path]) -> LayerTree | None:
        """Return the tree into which an archive may be unpacked, whiteouts in its form.

        None means: unpack through the mount.

        When it runs: only with the capability ``native_apply``, on an active snapshot that
        nothing has been written to and that is not mounted.
        """

    @hookspec(firstresult=True)
    def storage_changes(self, directory: Path, parents: Sequence[Path]) -> Iterable[Change] | None:
        """Return which paths differ from the parent, where the driver knows without a walk.

        Candidates are enough: the core looks at each and drops what is equal. What lies in a
        directory that was renamed is a candidate too, for its path leads elsewhere. None: walk.

        When it runs: for diff, commit and ``container diff`` on drivers without a diff tree.
        """

    @hookspec(firstresult=True)
    def storage_clone(self, source: Path, directory: Path, parents: Sequence[Path]) -> None:
        """Make *directory* (empty) a copy of the active snapshot *source* at this instant.

        When it runs: at ``container commit``, with the capability ``clone_active``; the
        container is frozen.
        """

    @hookspec(firstresult=True)
    def storage_set_quota(
        self, directory: Path, size_bytes: int | None, inodes: int | None
    ) -> None:
        """Limit an active snapshot; None lifts that limit.

        When it runs: after ``storage_prepare``, with the capabilities ``quota_*``.
        """

    @hookspec(firstresult=True)
    def storage_rebase(self, directory: Path, parents: Sequence[Path]) -> None:
        """Give an active snapshot that was made without parents these *parents*.

        When it runs: before ``storage_seal``, with the capability ``rebase``.
        """

    @hookspec(firstresult=True)
    def storage_status(self) -> Mapping[str, str]:  # type: ignore[empty-body]  # a spec
        """Return facts of the driver for ``info`` ("Backing Filesystem": "extfs")."""

    @hookspec(firstresult=True)
    def storage_metadata(  # type: ignore[empty-body]  # a spec has no body
        self, directory: Path, parents: Sequence[Path], kind: Kind
    ) -> Mapping[str, str]:
        """Return facts of one snapshot for ``inspect`` ("UpperDir": "/…"). Every path exists
        while the snapshot does."""

    @hookspec(firstresult=True)
    def storage_recover(self, directories: Sequence[Path]) -> None:
        """Put the driver's own things in order after a kill; *directories* are what lives.

        Snapshots that were half made or half removed are already in the trash.

        When it runs: when a root is opened after a kill, with no other user of the root.
        """

    @hookspec(firstresult=True)
    def storage_close(self) -> None:
        """Give up what the instance holds open. Idempotent."""


class NetworkSpec:
    """Hooks of network drivers. Each is called in the host's network namespace; effects in a
    sandbox go through its descriptor. All of them are told what the metastore already says."""

    @hookspec(firstresult=True)
    def network_probe(self) -> NetworkProbe:  # type: ignore[empty-body]  # a spec has no body
        """Try in a namespace made for it whether the driver works here; leave nothing.

        When it runs: as ``storage_probe``. The host's own namespace is not touched.
        """

    @hookspec(firstresult=True)
    def network_validate(self, network: Network) -> None:
        """Refuse a network that this driver could not make (options, pools); change nothing.

        Raises: InvalidArgument naming the option and what was expected.

        When it runs: at ``network create``, before anything is recorded.
        """

    @hookspec(firstresult=True)
    def network_create(self, network: Network) -> None:
        """Make the network's kernel objects (a bridge, …). Idempotent: it completes what is
        there and leaves foreign objects alone.

        When it runs: the network's row says *preparing*; also in reconcile, when the kernel
        has lost it.
        """

    @hookspec(firstresult=True)
    def network_delete(self, network: Network) -> None:
        """Remove what ``network_create`` made; what is gone already is no error. Idempotent.

        When it runs: the row says *removing* and no endpoint is left.
        """

    @hookspec(firstresult=True)
    def network_create_endpoint(self, network: Network, endpoint: Endpoint) -> None:
        """Reserve what an endpoint needs outside a sandbox; usually nothing.

        When it runs: its row with addresses and names says *preparing*.
        """

    @hookspec(firstresult=True)
    def network_delete_endpoint(self, network: Network, endpoint: Endpoint) -> None:
        """Undo ``network_create_endpoint``. Idempotent."""

    @hookspec(firstresult=True)
    def network_join(  # type: ignore[empty-body]  # a spec has no body
        self, network: Network, endpoint: Endpoint, sandbox: Sandbox
    ) -> JoinResult:
        """Put the endpoint's link, addresses and routes into the sandbox.

        When it runs: before the container's process starts, or at ``network connect``. On
        failure the core calls ``network_leave``. Links die with the sandbox by themselves.
        """

    @hookspec(firstresult=True)
    def network_leave(self, network: Network, endpoint: Endpoint, sandbox: Sandbox | None) -> None:
        """Take the endpoint out of its sandbox; *sandbox* is None when that is gone. Idempotent."""

    @hookspec(firstresult=True)
    def network_program_external(
        self, network: Network, endpoint: Endpoint, ports: Sequence[PortMapping]
    ) -> None:
        """Publish *ports* (already reserved on the host) and open the way out.

        When it runs: after join, on the endpoint that is the container's gateway. One call for
        all ports, so that a backend can use one transaction. Idempotent.
        """

    @hookspec(firstresult=True)
    def network_revoke_external(
        self, network: Network, endpoint: Endpoint, ports: Sequence[PortMapping]
    ) -> None:
        """Undo ``network_program_external``. Idempotent."""

    @hookspec(firstresult=True)
    def network_check(  # type: ignore[empty-body]  # a spec has no body
        self, network: Network, endpoint: Endpoint | None, sandbox: Sandbox | None
    ) -> Sequence[str]:
        """Return in words what of the desired state the kernel lacks; empty when all is there.

        When it runs: in reconcile and ``check``. Changes nothing.
        """

    @hookspec(firstresult=True)
    def network_restore(self, networks: Sequence[Network], endpoints: Sequence[Endpoint]) -> None:
        """Make the kernel equal to what is recorded, and remove what carries this root's name
        and is not recorded. Touches nothing foreign. Idempotent.

        An endpoint whose link is lost is left to ``network_join``, for it needs the sandbox.

        When it runs: when a root is opened after a kill or a reboot.
        """

    @hookspec(firstresult=True)
    def network_warnings(  # type: ignore[empty-body]  # a spec has no body
        self, network: Network, ports: Sequence[PortMapping]
    ) -> Sequence[str]:
        """Return in words, each with its remedy, what this host does to the network and to
        *ports* (a foreign filter that drops forwarding); changes nothing.

        When it runs: after a network was made and after ports were published, for the user.
        """

    @hookspec(firstresult=True)
    def network_status(self) -> Mapping[str, str]:  # type: ignore[empty-body]  # a spec
        """Return facts of the driver for ``info``."""

    @hookspec(firstresult=True)
    def network_metadata(  # type: ignore[empty-body]  # a spec has no body
        self, network: Network, endpoint: Endpoint | None
    ) -> Mapping[str, str]:
        """Return facts of a network or an endpoint for ``inspect``."""

    @hookspec(firstresult=True)
    def network_close(self) -> None:
        """Give up what the instance holds open. Idempotent."""


class FirewallSpec:
    """Hooks of firewall backends. One backend serves a root; every call is one transaction.

    Each is called in the host's network namespace, and touches only what carries the root's
    name. What is lost (a foreign ``nft flush ruleset``) is found by ``firewall_add_network`` and
    ``firewall_add_endpoint``, which then raise :class:`~stowage.errors.DataLoss`: the caller
    answers with ``firewall_restore`` of all that is recorded.
    """

    @hookspec(firstresult=True)
    def firewall_probe(self) -> NetworkProbe:  # type: ignore[empty-body]  # a spec has no body
        """Try in a namespace made for it whether the backend works here; leave nothing."""

    @hookspec(firstresult=True)
    def firewall_intact(self) -> bool:  # type: ignore[empty-body]  # a spec has no body
        """Whether what holds all rules is still there (a table, the chains): not each rule.

        When it runs: at every join, so it must take well under 0.1 ms. False is answered with
        ``firewall_restore``; it is False before the first network as well.
        """

    @hookspec(firstresult=True)
    def firewall_add_network(self, network: FirewallNetwork) -> None:
        """Add the rules of a network (masquerade, isolation, icc). Idempotent.

        Raises:
            DataLoss: if it finds the rules of other networks lost or altered.
        """

    @hookspec(firstresult=True)
    def firewall_remove_network(self, network: FirewallNetwork) -> None:
        """Remove them; the last network takes along all that is the root's. Idempotent."""

    @hookspec(firstresult=True)
    def firewall_add_endpoint(self, network: FirewallNetwork, endpoint: FirewallEndpoint) -> None:
        """Publish all ports of an endpoint in one transaction. Idempotent.

        Raises:
            NotSupported: if the backend cannot publish.
            DataLoss: if the network's rules are lost, or a port leads to another endpoint.
        """

    @hookspec(firstresult=True)
    def firewall_remove_endpoint(
        self, network: FirewallNetwork, endpoint: FirewallEndpoint
    ) -> None:
        """Withdraw them, and only them: a port that leads elsewhere by now stays. Idempotent."""

    @hookspec(firstresult=True)
    def firewall_add_link(
        self, network: FirewallNetwork, source: FirewallEndpoint, target: FirewallEndpoint
    ) -> None:
        """Let *source* reach the container ports in *target*'s ``ports`` although ``icc`` is
        off. Idempotent."""

    @hookspec(firstresult=True)
    def firewall_remove_link(
        self, network: FirewallNetwork, source: FirewallEndpoint, target: FirewallEndpoint
    ) -> None:
        """Undo ``firewall_add_link``. Idempotent."""

    @hookspec(firstresult=True)
    def firewall_check(  # type: ignore[empty-body]  # a spec has no body
        self, networks: Sequence[FirewallNetwork], endpoints: Sequence[FirewallEndpoint]
    ) -> Sequence[str]:
        """Return in words which rules are missing or left over; changes nothing."""

    @hookspec(firstresult=True)
    def firewall_restore(
        self, networks: Sequence[FirewallNetwork], endpoints: Sequence[FirewallEndpoint]
    ) -> None:
        """Make this root's rules equal to what is recorded, in one transaction. Idempotent.

        Connections that are established live on.
        """

    @hookspec(firstresult=True)
    def firewall_clear(self) -> None:
        """Remove every rule that carries this root's name. Idempotent."""

    @hookspec(firstresult=True)
    def firewall_warnings(  # type: ignore[empty-body]  # a spec has no body
        self, network: FirewallNetwork
    ) -> Sequence[str]:
        """Return in words, each with its remedy, what rules of others do to this network."""

    @hookspec(firstresult=True)
    def firewall_close(self) -> None:
        """Give up what the instance holds open. Idempotent."""


class ObserverSpec:
    """Hooks of observers: they see every driver call and every effect, and may interfere.

    Each hook returns a context manager that surrounds the call or effect: entering it is
    *before*, leaving it is *after*, an exception thrown into it is *failure*. What it raises on
    entering takes the place of the call.
    """

    @hookspec
    def observer_call(  # type: ignore[empty-body]  # a spec has no body
        self, driver: str, hook: str, arguments: Mapping[str, object]
    ) -> AbstractContextManager[object]:
        """Surround one call of a driver's hook.

        When it runs: in the thread of the caller. Must be quick and thread-safe.
        """

    @hookspec
    def observer_effect(  # type: ignore[empty-body]  # a spec has no body
        self, name: str, facts: Mapping[str, object]
    ) -> AbstractContextManager[object]:
        """Surround one effect on the kernel or a file system (see :func:`stowage.effect`)."""
