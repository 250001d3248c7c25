"""Driver handles: exactly one driver, plus the observers that were named.

A handle is a pluggy plugin manager of its own, so a call goes to that driver alone. Registering
checks the driver against the hook specs: a misspelt hook or an unknown argument is refused by
name. The typed façades give the engine static types, turn foreign exceptions into ours, and give
``None`` for a hook that the driver does not implement.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import pluggy

from .errors import DriverFailed, StowageError, from_os_error
from .hookspecs import PROJECT, FirewallSpec, NetworkSpec, ObserverSpec, StorageSpec
from .model import (
    Change,
    Endpoint,
    Finding,
    FirewallEndpoint,
    FirewallNetwork,
    JoinResult,
    Kind,
    LayerTree,
    Mount,
    Network,
    NetworkCapabilities,
    NetworkProbe,
    PortMapping,
    Sandbox,
    StorageCapabilities,
    StorageProbe,
    Usage,
)
from .options import Options
from .plugins import PREFIX_BY_FAMILY, Family

_SPEC_BY_FAMILY: Mapping[Family, type] = {
    "storage": StorageSpec,
    "network": NetworkSpec,
    "firewall": FirewallSpec,
    "observers": ObserverSpec,
}
_REQUIRED: Mapping[Family, tuple[tuple[str, ...], ...]] = {
    "storage": (
        ("storage_probe",),
        ("storage_prepare",),
        ("storage_mounts", "storage_attach"),
    ),
    "network": (("network_probe",), ("network_join",)),
    "firewall": (("firewall_probe",),),
    "observers": (("observer_call", "observer_effect"),),
}


def validate(family: Family, plugin: object, owner: str) -> None:
    """Check that *plugin* implements hooks of its family, and only such.

    Raises:
        DriverFailed: naming the misspelt hook, the unknown argument or what is missing.
    """
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(_SPEC_BY_FAMILY[family])
    _register(manager, family, plugin, owner)


def _register(manager: pluggy.PluginManager, family: Family, plugin: object, owner: str) -> None:
    name = str(getattr(plugin, "name", type(plugin).__name__))
    failed = f"{family} plugin {name!r} of {owner} does not fit the contract"
    try:
        manager.register(plugin, f"{family}:{name}")
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise DriverFailed(failed, details=str(error)) from error
    implemented = {caller.name for caller in manager.get_hookcallers(plugin) or ()}
    unmarked = _hooklike(plugin, family) - implemented
    if unmarked:
        raise DriverFailed(failed, details=f"not marked @hookimpl: {', '.join(sorted(unmarked))}")
    for alternatives in _REQUIRED[family]:
        if implemented.isdisjoint(alternatives):
            raise DriverFailed(failed, details=f"it lacks {' or '.join(alternatives)}")


def _hooklike(plugin: object, family: Family) -> set[str]:
    prefix = PREFIX_BY_FAMILY[family]
    return {name for name in dir(type(plugin)) if name.startswith(prefix)}


class Handle:
    """One driver of any family; the typed façades below are what the engine uses."""

    family: Family

    def __init__(self, driver: object, owner: str, observers: Sequence[object] = ()) -> None:
        self.driver = driver
        self.owner = owner
        self.name: str = driver.name  # type: ignore[attr-defined]  # Plugin.load checked it
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(_SPEC_BY_FAMILY[self.family])
        self._manager.add_hookspecs(ObserverSpec)
        _register(self._manager, self.family, driver, owner)
        for observer in observers:
            self._manager.register(observer)
        self._observed = bool(self._manager.hook.observer_call.get_hookimpls())

    def implements(self, hook: str) -> bool:
        """Whether the driver has that hook."""
        return bool(getattr(self._manager.hook, hook).get_hookimpls())

    def call(self, hook: str, **arguments: object) -> Any:  # typed by the façades
        """Call one hook of the driver, surrounded by the observers.

        Raises:
            StowageError: the driver's own, or what its OSError means.
            DriverFailed: for any other exception of the driver.
        """
        try:
            if not self._observed:
                return getattr(self._manager.hook, hook)(**arguments)
            with ExitStack() as stack:
                for around in self._manager.hook.observer_call(
                    driver=self.name, hook=hook, arguments=arguments
                ):
                    stack.enter_context(around)
                return getattr(self._manager.hook, hook)(**arguments)
        except StowageError:
            raise
        except OSError as error:
            raise from_os_error(error, f"{self.family} driver {self.name!r}: {hook}") from error
        except Exception as error:
            raise DriverFailed(
                f"{self.family} driver {self.name!r} of {self.owner} failed in {hook}",
                details=f"{type(error).__name__}: {error}",
            ) from error

    def close(self) -> None:
        """Let the driver give up what it holds open. Idempotent."""
        self.call(f"{PREFIX_BY_FAMILY[self.family]}close")

    def _probe_failed(self, error: StowageError) -> tuple[Finding, ...]:
        return (Finding(f"its probe failed: {error}", f"report it to {self.owner}"),)


class StorageHandle(Handle):
    """A storage driver for one root; methods are the hooks of StorageSpec."""

    family: Family = "storage"

    @cached_property
    def probe(self) -> StorageProbe:
        """The driver's probe, done once; one that raises counts as not working."""
        try:
            probe: StorageProbe = self.call("storage_probe")
        except StowageError as error:
            return StorageProbe(findings=self._probe_failed(error))
        return probe

    @property
    def capabilities(self) -> StorageCapabilities:
        return self.probe.capabilities

    def prepare(
        self, directory: Path, parents: Sequence[Path], kind: Kind, options: Options
    ) -> None:
        self.call(
            "storage_prepare", directory=directory, parents=parents, kind=kind, options=options
        )

    def mounts(
        self, directory: Path, parents: Sequence[Path], kind: Kind, options: Options
    ) -> Sequence[Mount]:
        """The mounts as data; empty for a driver that serves its snapshots itself."""
        mounts: Sequence[Mount] | None = self.call(
            "storage_mounts", directory=directory, parents=parents, kind=kind, options=options
        )
        return tuple(mounts or ())

    def attach(
        self,
        directory: Path,
        parents: Sequence[Path],
        kind: Kind,
        options: Options,
        *,
        read_only: bool = False,
    ) -> int:
        """Return a descriptor of the snapshot's detached root mount; the caller closes it.

        Read-only when asked, and always for a view or a committed snapshot (where the driver
        can enforce that: vfs without CAP_SYS_ADMIN serves plain directories).
        """
        from .linux import mount

        read_only = read_only or kind is not Kind.ACTIVE
        served: int | None = self.call(
            "storage_attach", directory=directory, parents=parents, kind=kind, options=options
        )
        failed = f"storage driver {self.name!r}: cannot mount {directory}"
        if served is not None:
            try:
                if read_only and self.capabilities.ro_enforced:
                    mount.make_read_only(served)
            except BaseException as error:
                os.close(served)
                if isinstance(error, OSError):
                    raise from_os_error(error, failed) from error
                raise
            return served
        mounts = self.mounts(directory, parents, kind, options)
        try:
            return mount.attach_all(mounts, read_only=read_only)
        except OSError as error:
            raise from_os_error(error, failed) from error

    def seal(self, directory: Path, parents: Sequence[Path]) -> None:
        self.call("storage_seal", directory=directory, parents=parents)

    def destroy(self, directory: Path) -> None:
        self.call("storage_destroy", directory=directory)

    def usage(self, directory: Path, parents: Sequence[Path]) -> Usage | None:
        usage: Usage | None = self.call("storage_usage", directory=directory, parents=parents)
        return usage

    def diff_tree(self, directory: Path, parents: Sequence[Path]) -> LayerTree | None:
        if not self.capabilities.native_diff:
            return None
        tree: LayerTree | None = self.call(
            "storage_diff_tree", directory=directory, parents=parents
        )
        return tree

    def apply_tree(self, directory: Path, parents: Sequence[Path]) -> LayerTree | None:
        if not self.capabilities.native_apply:
            return None
        tree: LayerTree | None = self.call(
            "storage_apply_tree", directory=directory, parents=parents
        )
        return tree

    def changes(self, directory: Path, parents: Sequence[Path]) -> Iterable[Change] | None:
        changes: Iterable[Change] | None = self.call(
            "storage_changes", directory=directory, parents=parents
        )
        return changes

    def clone(self, source: Path, directory: Path, parents: Sequence[Path]) -> None:
        self.call("storage_clone", source=source, directory=directory, parents=parents)

    def set_quota(self, directory: Path, size_bytes: int | None, inodes: int | None) -> None:
        self.call("storage_set_quota", directory=directory, size_bytes=size_bytes, inodes=inodes)

    def rebase(self, directory: Path, parents: Sequence[Path]) -> None:
        self.call("storage_rebase", directory=directory, parents=parents)

    def status(self) -> Mapping[str, str]:
        return self.call("storage_status") or {}

    def metadata(self, directory: Path, parents: Sequence[Path], kind: Kind) -> Mapping[str, str]:
        found = self.call("storage_metadata", directory=directory, parents=parents, kind=kind)
        return found or {}

    def recover(self, directories: Sequence[Path]) -> None:
        self.call("storage_recover", directories=directories)


class NetworkHandle(Handle):
    """A network driver; methods are the hooks of NetworkSpec."""

    family: Family = "network"

    @cached_property
    def probe(self) -> NetworkProbe:
        """The driver's probe, done once; one that raises counts as not working."""
        try:
            probe: NetworkProbe = self.call("network_probe")
        except StowageError as error:
            return NetworkProbe(findings=self._probe_failed(error))
        return probe

    @property
    def capabilities(self) -> NetworkCapabilities:
        """What the driver says of itself as a class attribute, which costs nothing, else what
        its probe says."""
        said = getattr(self.driver, "capabilities", None)
        return said if isinstance(said, NetworkCapabilities) else self.probe.capabilities

    def validate(self, network: Network) -> None:
        self.call("network_validate", network=network)

    def create(self, network: Network) -> None:
        self.call("network_create", network=network)

    def delete(self, network: Network) -> None:
        self.call("network_delete", network=network)

    def create_endpoint(self, network: Network, endpoint: Endpoint) -> None:
        self.call("network_create_endpoint", network=network, endpoint=endpoint)

    def delete_endpoint(self, network: Network, endpoint: Endpoint) -> None:
        self.call("network_delete_endpoint", network=network, endpoint=endpoint)

    def join(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> JoinResult:
        result: JoinResult | None = self.call(
            "network_join", network=network, endpoint=endpoint, sandbox=sandbox
        )
        return result or JoinResult()

    def leave(self, network: Network, endpoint: Endpoint, sandbox: Sandbox | None) -> None:
        self.call("network_leave", network=network, endpoint=endpoint, sandbox=sandbox)

    def program_external(
        self, network: Network, endpoint: Endpoint, ports: Sequence[PortMapping]
    ) -> None:
        self.call("network_program_external", network=network, endpoint=endpoint, ports=ports)

    def revoke_external(
        self, network: Network, endpoint: Endpoint, ports: Sequence[PortMapping]
    ) -> None:
        self.call("network_revoke_external", network=network, endpoint=endpoint, ports=ports)

    def check(
        self, network: Network, endpoint: Endpoint | None, sandbox: Sandbox | None
    ) -> Sequence[str]:
        found = self.call("network_check", network=network, endpoint=endpoint, sandbox=sandbox)
        return found or ()

    def restore(self, networks: Sequence[Network], endpoints: Sequence[Endpoint]) -> None:
        self.call("network_restore", networks=networks, endpoints=endpoints)

    def warnings(self, network: Network, ports: Sequence[PortMapping] = ()) -> Sequence[str]:
        return self.call("network_warnings", network=network, ports=ports) or ()

    def status(self) -> Mapping[str, str]:
        return self.call("network_status") or {}

    def metadata(self, network: Network, endpoint: Endpoint | None) -> Mapping[str, str]:
        return self.call("network_metadata", network=network, endpoint=endpoint) or {}


class FirewallHandle(Handle):
    """A firewall backend; methods are the hooks of FirewallSpec. Satisfies ``model.Firewall``."""

    family: Family = "firewall"

    @cached_property
    def probe(self) -> NetworkProbe:
        """The backend's probe, done once; one that raises counts as not working."""
        try:
            probe: NetworkProbe = self.call("firewall_probe")
        except StowageError as error:
            return NetworkProbe(findings=self._probe_failed(error))
        return probe

    @property
    def intact(self) -> bool:
        return self.call("firewall_intact") is not False

    def add_network(self, network: FirewallNetwork) -> None:
        self.call("firewall_add_network", network=network)

    def remove_network(self, network: FirewallNetwork) -> None:
        self.call("firewall_remove_network", network=network)

    def add_endpoint(self, network: FirewallNetwork, endpoint: FirewallEndpoint) -> None:
        self.call("firewall_add_endpoint", network=network, endpoint=endpoint)

    def remove_endpoint(self, network: FirewallNetwork, endpoint: FirewallEndpoint) -> None:
        self.call("firewall_remove_endpoint", network=network, endpoint=endpoint)

    def add_link(
        self, network: FirewallNetwork, source: FirewallEndpoint, target: FirewallEndpoint
    ) -> None:
        self.call("firewall_add_link", network=network, source=source, target=target)

    def remove_link(
        self, network: FirewallNetwork, source: FirewallEndpoint, target: FirewallEndpoint
    ) -> None:
        self.call("firewall_remove_link", network=network, source=source, target=target)

    def check(
        self, networks: Sequence[FirewallNetwork], endpoints: Sequence[FirewallEndpoint]
    ) -> Sequence[str]:
        return self.call("firewall_check", networks=networks, endpoints=endpoints) or ()

    def restore(
        self, networks: Sequence[FirewallNetwork], endpoints: Sequence[FirewallEndpoint]
    ) -> None:
        self.call("firewall_restore", networks=networks, endpoints=endpoints)

    def clear(self) -> None:
        self.call("firewall_clear")

    def warnings(self, network: FirewallNetwork) -> Sequence[str]:
        return self.call("firewall_warnings", network=network) or ()
