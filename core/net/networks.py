"""Networks and endpoints as recorded, and the calls of their drivers.

A few networks are *predefined*: ``none`` and ``host`` (and ``bridge``, once a driver of that
name is installed). Each belongs to the driver of its own name and is recorded at first use.
"""

from __future__ import annotations

import json
import logging
import secrets
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..errors import InvalidArgument, NotFound, NotSupported, StowageError
from ..handle import NetworkHandle
from ..model import Endpoint, JoinResult, Network, Sandbox, SandboxMode
from ..store.metastore import Metastore, record_event

logger = logging.getLogger("stowage.net")

#: Docker's predefined networks.
PREDEFINED = ("bridge", "host", "none")
#: What a container gets when nobody asked: the first that has a driver here.
DEFAULT = ("bridge", "none")
#: The setting that remembers which default network the user was told of.
_SAID = "default-network-said"
_SHARED_PREFIX = "container:"


class Networks:
    """The networks of one root.

    *open_driver* returns the handle of a network driver; it raises NotFound if there is none.
    """

    def __init__(self, metastore: Metastore, open_driver: Callable[[str], NetworkHandle]) -> None:
        self._metastore = metastore
        self._open_driver = open_driver
        self._default_network: Network | None = None

    # --- networks ----------------------------------------------------------------------------

    def resolve(self, mode: str | None) -> Network:
        """Return the network that ``--network MODE`` means; None is the default one.

        Raises:
            NotFound: in Docker's words ("network nosuch not found").
            NotSupported: for a predefined network without a driver, and for ``container:ID``.
        """
        if mode is None or mode == "default":
            return self._default()
        if mode.startswith(_SHARED_PREFIX):
            raise self._shared_refusal(mode)
        row = self._row(mode)
        if row is not None:
            return _network(row)
        if mode in PREDEFINED:
            return self._predefine(mode)
        raise NotFound("network", mode, brief=f"network {mode} not found")

    def _shared_refusal(self, mode: str) -> StowageError:
        if not mode.removeprefix(_SHARED_PREFIX):
            return InvalidArgument(
                "invalid network mode: invalid container format container:<name|id>"
            )
        return NotSupported(
            f"--network {mode}: another container's network cannot be shared yet",
            details="no network driver for shared sandboxes is installed",
            resolution="use --network none or --network host",
        )

    def _default(self) -> Network:
        """Looked for, and said, once: which drivers are installed does not change."""
        if self._default_network is None:
            self._default_network = self._find_default()
        return self._default_network

    def _find_default(self) -> Network:
        for name in DEFAULT:
            try:
                network = self.resolve(name)
            except NotSupported:
                continue
            if name != DEFAULT[0]:
                self._say_fallback(name)
            return network
        raise NotSupported(
            "no network driver is installed", resolution="stowage driver ls shows why"
        )

    def _say_fallback(self, name: str) -> None:
        """Said once per root, not at each run of a container."""
        if self._metastore.setting(_SAID) == name:
            return
        self._metastore.change(_SAID, name)
        logger.warning(
            "no driver for the network %r is installed; containers get %r unless --network says"
            " otherwise", DEFAULT[0], name,
        )  # fmt: skip

    def _row(self, reference: str) -> sqlite3.Row | None:
        row: sqlite3.Row | None = (
            self._metastore.read()
            .execute(
                "SELECT * FROM networks WHERE state = 'ready' AND (name = ?1 OR id = ?1)",
                (reference,),
            )
            .fetchone()
        )
        return row

    def _predefine(self, name: str) -> Network:
        try:
            handle = self._open_driver(name)
        except NotFound as error:
            raise NotSupported(
                f"the network {name!r} needs a driver that is not installed",
                details=f"no network driver is called {name!r}",
                resolution="use --network none or --network host",
            ) from error
        if handle.probe.findings:
            first = handle.probe.findings[0]
            raise NotSupported(
                f"the network {name!r} does not work here",
                details=first.reason,
                resolution=first.remedy or None,
            )
        network = Network(secrets.token_hex(32), name, handle.name)
        with self._metastore.transaction() as tx:
            tx.execute(
                "INSERT OR IGNORE INTO networks (id, name, driver, state, config)"
                " VALUES (?, ?, ?, 'ready', ?)",
                (network.id, network.name, network.driver, json.dumps({})),
            )
        row = self._row(name)
        assert row is not None  # ours, or that of who was quicker
        return _network(row)

    def list(self) -> Sequence[Network]:
        """Return every recorded network, by name."""
        rows = self._metastore.read().execute(
            "SELECT * FROM networks WHERE state = 'ready' ORDER BY name"
        )
        return [_network(row) for row in rows]

    def by_id(self, network_id: str) -> Network | None:
        """Return the network with that whole id, whatever its state, or None."""
        row = (
            self._metastore.read()
            .execute("SELECT * FROM networks WHERE id = ?", (network_id,))
            .fetchone()
        )
        return None if row is None else _network(row)

    def sandbox_mode(self, network: Network) -> SandboxMode:
        """Return which network namespace its containers get."""
        return self._open_driver(network.driver).capabilities.sandbox

    # --- endpoints ---------------------------------------------------------------------------

    def connect(self, network: Network, container_id: str, **asked: str) -> Endpoint:
        """Record a new endpoint of a container and let the driver reserve what it needs.

        Raises:
            StowageError: what the driver says; then nothing is recorded.
        """
        endpoint = Endpoint(
            secrets.token_hex(32), network.id, container_id, interface="", options=dict(asked)
        )
        handle = self._open_driver(network.driver)
        # most drivers reserve nothing: then one transaction is enough
        reserves = handle.implements("network_create_endpoint")
        with self._metastore.transaction() as tx:
            tx.execute(
                "INSERT INTO endpoints (id, network_id, container_id, state, config)"
                " VALUES (?, ?, ?, ?, ?)",
                (
                    endpoint.id,
                    network.id,
                    container_id,
                    "preparing" if reserves else "ready",
                    json.dumps({"options": dict(endpoint.options)}),
                ),
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

    def join(self, endpoint: Endpoint, sandbox: Sandbox) -> JoinResult:
        """Put the endpoint into *sandbox*; on failure it is out again."""
        network = self._network_of(endpoint)
        handle = self._open_driver(network.driver)
        try:
            return handle.join(network, endpoint, sandbox)
        except BaseException:
            handle.leave(network, endpoint, sandbox)
            raise

    def leave(self, endpoint: Endpoint, sandbox: Sandbox | None) -> None:
        """Take the endpoint out of its sandbox (None: the kernel has reaped it). Idempotent."""
        network = self._network_of(endpoint)
        self._open_driver(network.driver).leave(network, endpoint, sandbox)

    def disconnect(self, endpoint: Endpoint) -> None:
        """Leave, give up what was reserved, and forget the endpoint. Idempotent.

        A network or a driver that is gone does not keep the row.
        """
        network = self.by_id(endpoint.network_id)
        if network is not None:
            try:
                handle = self._open_driver(network.driver)
            except (NotFound, StowageError) as error:
                logger.warning("endpoint %s: %s", endpoint.id[:12], error.brief)
            else:
                handle.leave(network, endpoint, None)
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
        rows = self._metastore.read().execute(
            "SELECT * FROM endpoints WHERE container_id = ?", (container_id,)
        )
        return [_endpoint(row) for row in rows]

    def orphaned_endpoints(self) -> Sequence[Endpoint]:
        """Return the endpoints whose container has no row; what a kill may leave."""
        rows = self._metastore.read().execute(
            "SELECT * FROM endpoints WHERE container_id NOT IN (SELECT id FROM containers)"
        )
        return [_endpoint(row) for row in rows]

    def _network_of(self, endpoint: Endpoint) -> Network:
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


def _network(row: sqlite3.Row) -> Network:
    config: Mapping[str, Any] = json.loads(row["config"])
    network = Network(row["id"], row["name"], row["driver"])
    return replace(
        network,
        options=dict(config.get("options", {})),
        labels=dict(config.get("labels", {})),
        internal=bool(config.get("internal", False)),
    )


def _endpoint(row: sqlite3.Row) -> Endpoint:
    config: Mapping[str, Any] = json.loads(row["config"])
    return Endpoint(
        row["id"],
        row["network_id"],
        row["container_id"],
        interface="",
        options=dict(config.get("options", {})),
    )
