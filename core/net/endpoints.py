"""Endpoints as recorded, and the calls of their networks' drivers.

A row precedes every effect, so what a kill leaves is named by one: its addresses are free when
it is deleted, and its ports are withdrawn before.
"""

from __future__ import annotations

import logging
import secrets
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from ..errors import FailedPrecondition, NotFound, StowageError
from ..linux.process import boot_id
from ..model import (
    Address,
    Endpoint,
    JoinResult,
    Network,
    PortMapping,
    Recorded,
    Sandbox,
    SandboxMode,
)
from ..store.metastore import Metastore, record_event
from . import ipam
from .port_specs import conflicts
from .rows import endpoint_config, endpoint_of, network_of

if TYPE_CHECKING:
    from ..handle import NetworkHandle

logger = logging.getLogger("stowage.net")

#: The setting that names the network namespace in which this root's endpoints live.
_HOST = "host-network"


class EndpointRequest(Struct, frozen=True):
    """What is asked of an endpoint; *ports* are reserved on the host already; *id* is
    what the user was told."""

    addresses: tuple[Address, ...] = ()
    mac_address: str | None = None
    ports: tuple[PortMapping, ...] = ()
    id: str | None = None


NO_WISHES = EndpointRequest()


class Endpoints:
    """The endpoints of one root."""

    def __init__(self, metastore: Metastore, open_driver: Callable[[str], NetworkHandle]) -> None:
        self._metastore = metastore
        self._open_driver = open_driver
        self._made: set[str] = set()  # networks that this process has seen to once
        self._said: set[str] = set()  # warnings, each once per process

    # --- their networks ----------------------------------------------------------------------

    def list(self) -> Sequence[Network]:
        """Return every recorded network, by name."""
        rows = self._metastore.read().execute(
            "SELECT * FROM networks WHERE state != 'removing' ORDER BY name"
        )
        return [network_of(row) for row in rows]

    def by_id(self, network_id: str) -> Network | None:
        """Return the network with that whole id, whatever its state, or None."""
        row = (
            self._metastore.read()
            .execute("SELECT * FROM networks WHERE id = ?", (network_id,))
            .fetchone()
        )
        return None if row is None else network_of(row)

    def _row(self, reference: str) -> sqlite3.Row | None:
        row: sqlite3.Row | None = (
            self._metastore.read()
            .execute(
                "SELECT * FROM networks WHERE state != 'removing' AND (name = ?1 OR id = ?1)",
                (reference,),
            )
            .fetchone()
        )
        return row

    def sandbox_mode(self, network: Network) -> SandboxMode:
        """Return which network namespace its containers get."""
        return self._open_driver(network.driver).capabilities.sandbox

    def can_publish(self, network: Network) -> bool:
        """Return whether ports of its containers can be published on the host."""
        return self._open_driver(network.driver).capabilities.publish

    # --- coming and going --------------------------------------------------------------------

    def connect(
        self, network: Network, container_id: str, asked: EndpointRequest = NO_WISHES
    ) -> Endpoint:
        """Record a new endpoint of a container, with its addresses where the driver leaves them
        to us, and let the driver reserve what it needs.

        Raises:
            NoSpace, InvalidArgument, FailedPrecondition: as :func:`.ipam.assign`; also if the
                endpoints of this root live in another network namespace than ours.
            StowageError: what the driver says; then nothing is recorded.
        """
        handle = self._open_driver(network.driver)
        managed = handle.capabilities.ipam
        # most drivers reserve nothing: then one transaction is enough
        reserves = handle.implements("network_create_endpoint")
        endpoint = Endpoint(
            asked.id or secrets.token_hex(32),
            network.id,
            container_id,
            mac_address=asked.mac_address,
            interface="eth0" if managed else "",
            ports=asked.ports,
        )
        here = _network_namespace() if managed else ""
        with self._metastore.transaction() as tx:
            tx.execute(
                "INSERT INTO endpoints (id, network_id, container_id, state, config)"
                " VALUES (?, ?, ?, ?, '{}')",
                (endpoint.id, network.id, container_id, "preparing" if reserves else "ready"),
            )
            if managed:
                self._settle_host(tx, here)
                endpoint = self._addressed(tx, endpoint, asked)
            tx.execute(
                "UPDATE endpoints SET config = ? WHERE id = ?",
                (endpoint_config(endpoint), endpoint.id),
            )
            record_event(
                tx, "network", "connect", network.id,
                {"container": container_id, "name": network.name, "type": network.driver},
            )  # fmt: skip
        if reserves:
            try:
                handle.create_endpoint(network, endpoint)
            except BaseException:
                self.disconnect(endpoint)
                raise
            self._set_state(endpoint, "ready")
        return endpoint

    def _addressed(
        self, tx: sqlite3.Connection, endpoint: Endpoint, asked: EndpointRequest
    ) -> Endpoint:
        """Give an endpoint its addresses, from the pools that the network has now."""
        row = tx.execute("SELECT * FROM networks WHERE id = ?", (endpoint.network_id,)).fetchone()
        if row is None:
            raise NotFound("network", endpoint.network_id)
        pools = network_of(row).pools
        addresses = ipam.assign(tx, endpoint.network_id, endpoint.id, pools, asked.addresses)
        mac_address = asked.mac_address or ipam.mac_address(addresses)
        return replace(endpoint, addresses=addresses, mac_address=mac_address)

    def _settle_host(self, tx: sqlite3.Connection, here: str) -> None:
        """Note where this root's links and rules are; two places would give addresses twice."""
        row = tx.execute("SELECT value FROM settings WHERE name = ?", (_HOST,)).fetchone()
        if row is not None and row["value"] == here:
            return
        others = self._addressed_containers(tx)
        if row is not None and others:
            raise FailedPrecondition(
                "this root's containers live in another network namespace",
                details=f"connected there: {', '.join(others)}",
                resolution="run the command there, stop them first, or use a root of its own",
            )
        tx.execute("INSERT OR REPLACE INTO settings (name, value) VALUES (?, ?)", (_HOST, here))

    def _addressed_containers(self, tx: sqlite3.Connection) -> Sequence[str]:
        rows = tx.execute(
            "SELECT DISTINCT coalesce(c.name, e.container_id) FROM addresses a"
            " JOIN endpoints e ON e.id = a.endpoint_id LEFT JOIN containers c"
            " ON c.id = e.container_id"
        )
        return [row[0] for row in rows]

    def join(self, endpoint: Endpoint, sandbox: Sandbox) -> JoinResult:
        """Put the endpoint into *sandbox*, the network made before; on failure it is out again."""
        network = self.network_of(endpoint)
        handle = self._open_driver(network.driver)
        if network.id not in self._made:
            self._make(handle, network)
        try:
            return handle.join(network, endpoint, sandbox)
        except BaseException:
            handle.leave(network, endpoint, sandbox)
            raise

    def _make(self, handle: NetworkHandle, network: Network) -> None:
        """Have the driver complete what is there; what the host does to a new network is said."""
        handle.create(network)
        self._made.add(network.id)
        row = self._row(network.id)
        if row is None or row["state"] == "ready":
            return
        with self._metastore.transaction() as tx:
            tx.execute("UPDATE networks SET state = 'ready' WHERE id = ?", (network.id,))
        self._warn(handle, network)

    def publish(self, endpoint: Endpoint) -> None:
        """Open the endpoint's reserved ports, and say what this host does to them. Idempotent."""
        if not endpoint.ports:
            return
        network = self.network_of(endpoint)
        handle = self._open_driver(network.driver)
        handle.program_external(network, endpoint, endpoint.ports)
        self._warn(handle, network, endpoint.ports)

    def published_on(self, ports: Sequence[PortMapping]) -> Sequence[Endpoint]:
        """Return the endpoints that are recorded with a port that conflicts with one of *ports*."""
        found = {}
        for port in ports:
            for endpoint in self._endpoints("WHERE config LIKE ?", f"%, {port.host_port}, %"):
                if any(conflicts(port, other) for other in endpoint.ports):
                    found[endpoint.id] = endpoint
        return list(found.values())

    def supersede(self, ports: Sequence[PortMapping]) -> None:
        """Withdraw *ports*, whose sockets the caller holds, from endpoints that ended just now.

        Their sockets go with the monitor, a moment before its exit command withdraws the rules.
        """
        for endpoint in self.published_on(ports):
            lost = [one for one in endpoint.ports if any(conflicts(one, port) for port in ports)]
            network = self.network_of(endpoint)
            self._open_driver(network.driver).revoke_external(network, endpoint, lost)
            kept = replace(endpoint, ports=tuple(p for p in endpoint.ports if p not in lost))
            with self._metastore.transaction() as tx:
                tx.execute(
                    "UPDATE endpoints SET config = ? WHERE id = ?",
                    (endpoint_config(kept), endpoint.id),
                )

    def leave(self, endpoint: Endpoint, sandbox: Sandbox | None) -> None:
        """Take the endpoint out of its sandbox (None: the kernel has reaped it). Idempotent."""
        network = self.network_of(endpoint)
        self._open_driver(network.driver).leave(network, endpoint, sandbox)

    def disconnect(self, endpoint: Endpoint, sandbox: Sandbox | None = None) -> None:
        """Close its ports, leave, give up what was reserved, and forget the endpoint. Idempotent.

        *sandbox* is given where it outlives the endpoint. A network or a driver that is gone does
        not keep the row.
        """
        network = self.by_id(endpoint.network_id)
        if network is not None:
            try:
                handle = self._open_driver(network.driver)
            except (NotFound, StowageError) as error:
                logger.warning("endpoint %s: %s", endpoint.id[:12], error.brief)
            else:
                if endpoint.ports:
                    handle.revoke_external(network, endpoint, endpoint.ports)
                handle.leave(network, endpoint, sandbox)
                handle.delete_endpoint(network, endpoint)
        with self._metastore.transaction() as tx:
            gone = tx.execute("DELETE FROM endpoints WHERE id = ?", (endpoint.id,)).rowcount
            if gone and network is not None:
                record_event(
                    tx, "network", "disconnect", network.id,
                    {"container": endpoint.container_id, "name": network.name,
                     "type": network.driver},
                )  # fmt: skip

    def endpoints(self, container_id: str) -> Sequence[Endpoint]:
        """Return the endpoints of a container."""
        return self._endpoints("WHERE container_id = ?", container_id)

    def endpoints_on(self, network_id: str) -> Sequence[Endpoint]:
        """Return the endpoints on a network."""
        return self._endpoints("WHERE network_id = ?", network_id)

    def orphaned_endpoints(self) -> Sequence[Endpoint]:
        """Return the endpoints whose container has no row; what a kill may leave."""
        return self._endpoints("WHERE container_id NOT IN (SELECT id FROM containers)")

    def ports_by_container(self) -> Mapping[str, Sequence[PortMapping]]:
        """Return what is published, by the container's id; those without a port are left out."""
        return {e.container_id: e.ports for e in self._endpoints() if e.ports}

    def recorded(self) -> Recorded:
        """Return all that drivers must bring about in the kernel."""
        return Recorded(self.list(), self._endpoints())

    def _endpoints(self, where: str = "", *values: str) -> Sequence[Endpoint]:
        rows = self._metastore.read().execute(f"SELECT * FROM endpoints {where}", values)
        return [endpoint_of(row) for row in rows]

    def network_of(self, endpoint: Endpoint) -> Network:
        """Return the network that an endpoint is on.

        Raises:
            NotFound: if it is gone.
        """
        network = self.by_id(endpoint.network_id)
        if network is None:
            raise NotFound(
                "network",
                endpoint.network_id,
                brief=f"network {endpoint.network_id} not found",
            )
        return network

    def _set_state(self, endpoint: Endpoint, state: str) -> None:
        with self._metastore.transaction() as tx:
            tx.execute("UPDATE endpoints SET state = ? WHERE id = ?", (state, endpoint.id))

    def _warn(
        self, handle: NetworkHandle, network: Network, ports: Sequence[PortMapping] = ()
    ) -> None:
        for text in handle.warnings(network, ports):
            if text not in self._said:
                self._said.add(text)
                logger.warning("%s", text)


def _network_namespace() -> str:
    """Name this process's network namespace, across boots."""
    from ..linux.namespaces import network_cookie

    return f"{boot_id()} {network_cookie()}"
