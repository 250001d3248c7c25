"""Networks as recorded: which there are, and which one a container is on.

A few networks are *predefined*: ``none`` and ``host`` (and ``bridge``, once a driver of that
name is installed). Each belongs to the driver of its own name and is recorded at first use.
"""

from __future__ import annotations

import json
import logging
import secrets
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..errors import FailedPrecondition, InvalidArgument, NotFound, NotSupported
from ..model import Network
from ..store.metastore import Metastore
from .endpoints import Endpoints
from .rows import network_config, network_of

if TYPE_CHECKING:
    from ..config import Config
    from ..handle import NetworkHandle

logger = logging.getLogger("stowage.net")

#: Docker's predefined networks.
PREDEFINED = ("bridge", "host", "none")
#: What a container gets when nobody asked: the first that has a driver here.
DEFAULT = ("bridge", "none")
#: The setting that remembers which default network the user was told of.
_SAID = "default-network-said"


class Networks(Endpoints):
    """The networks of one root, and their endpoints.

    *open_driver* returns the handle of a network driver; it raises NotFound if there is none.
    Without *config* the default network is what Docker's defaults say.
    """

    def __init__(
        self,
        metastore: Metastore,
        open_driver: Callable[[str], NetworkHandle],
        config: Config | None = None,
    ) -> None:
        super().__init__(metastore, open_driver)
        self._config = config
        self._default_network: Network | None = None

    def resolve(self, mode: str | None) -> Network:
        """Return the network that ``--network MODE`` means; None is the default one.

        Raises:
            NotFound: in Docker's words ("network nosuch not found").
            NotSupported: for a predefined network without a driver.
            FailedPrecondition: if the default network is configured otherwise than recorded, and
                containers are connected to it.
        """
        if mode is None or mode == "default":
            return self._default()
        row = self._row(mode)
        if row is not None:
            return self._as_configured(row)
        if mode in PREDEFINED or (self._config is not None and mode == self._config.network_driver):
            return self._predefine(mode)
        raise NotFound("network", mode, brief=f"network {mode} not found")

    def _default(self) -> Network:
        """Looked for, and said, once: which drivers are installed does not change."""
        if self._default_network is None:
            self._default_network = self._find_default()
        return self._default_network

    def _find_default(self) -> Network:
        configured = None if self._config is None else self._config.network_driver
        if configured is not None:
            return self.resolve(configured)
        if self._bridgeless:
            return self.resolve("none")
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

    @property
    def _bridgeless(self) -> bool:
        """Whether the configuration wants no default bridge (``bridge: none``)."""
        return self._config is not None and self._config.bridge == "none"

    def _predefine(self, name: str) -> Network:
        try:
            handle = self._open_driver(name)
        except NotFound as error:
            raise NotSupported(
                f"the network {name!r} needs a driver that is not installed",
                details=f"no network driver is called {name!r}",
                resolution="use --network none or --network host",
            ) from error
        if name == DEFAULT[0] and self._bridgeless:
            raise NotFound("network", name, brief=f"network {name} not found")
        if handle.probe.findings:
            first = handle.probe.findings[0]
            raise NotSupported(
                f"the network {name!r} does not work here",
                details=first.reason,
                resolution=first.remedy or None,
            )
        if handle.capabilities.ipam:
            self._record_planned(name, handle)
        else:
            self._record(Network(secrets.token_hex(32), name, handle.name))
        row = self._row(name)
        assert row is not None  # ours, or that of who was quicker
        return network_of(row)

    def _record(self, network: Network) -> None:
        with self._metastore.transaction() as tx:
            _insert(tx, network, network_config(network, created_ns=time.time_ns()))

    def _record_planned(self, name: str, handle: NetworkHandle) -> None:
        from .predefined import plan

        planned = plan(self._configuration(), self._metastore.root_id)
        with self._metastore.transaction() as tx:
            network = planned.network(tx, name, handle.name)
            handle.validate(network)
            _insert(tx, network, planned.config(network, time.time_ns()), state="preparing")

    def _configuration(self) -> Config:
        from ..config import Config

        return self._config or Config.load({}, {}, None)

    def _as_configured(self, row: sqlite3.Row) -> Network:
        """Return the network of a row, made anew where the configuration says otherwise by now."""
        if row["name"] != DEFAULT[0] or self._config is None:
            return network_of(row)
        from .predefined import KEYS, differences, plan, refusal

        if not any(key in self._config.origins for key in KEYS):
            return network_of(row)
        if self._bridgeless:
            raise NotFound("network", row["name"], brief=f"network {row['name']} not found")
        found = differences(row, self._config, self._metastore.root_id)
        if not found:
            return network_of(row)
        before = network_of(row)
        if connected := self._connected(self._metastore.read(), before.id):
            raise refusal(before.name, found, connected)
        handle = self._open_driver(before.driver)
        handle.delete(before)
        planned = plan(self._config, self._metastore.root_id)
        with self._metastore.transaction() as tx:
            if connected := self._connected(tx, before.id):
                raise refusal(before.name, found, connected)
            network = replace(planned.network(tx, before.name, before.driver), id=before.id)
            handle.validate(network)
            tx.execute(
                "UPDATE networks SET config = ?, state = 'preparing' WHERE id = ?",
                (planned.config(network, time.time_ns()), network.id),
            )
        self._made.discard(network.id)
        return network

    def _connected(self, tx: sqlite3.Connection, network_id: str) -> Sequence[str]:
        """Return the names of the containers on a network."""
        rows = tx.execute(
            "SELECT coalesce(c.name, e.container_id) FROM endpoints e"
            " LEFT JOIN containers c ON c.id = e.container_id WHERE e.network_id = ?",
            (network_id,),
        )
        return [row[0] for row in rows]

    def with_predefined(self) -> Sequence[Network]:
        """Return every network by name, the predefined ones that work here among them."""
        for name in PREDEFINED:
            try:
                self.resolve(name)
            except (NotFound, NotSupported, FailedPrecondition):
                continue
        return self.list()

    def find(self, reference: str) -> Network:
        """Return the network that a user means: name, whole id, or an id's beginning.

        Raises:
            NotFound: "No such network: x".
            InvalidArgument: if several ids begin like that.
        """
        known = self.with_predefined()
        for network in known:
            if reference in (network.name, network.id):
                return network
        found = [network for network in known if reference and network.id.startswith(reference)]
        if len(found) > 1:
            raise InvalidArgument(f"network {reference} is ambiguous ({len(found)} matches found)")
        if not found:
            raise NotFound("network", reference)
        return found[0]

    def created_ns(self, network: Network) -> int:
        """Return when a network was recorded."""
        row = self._row(network.id)
        return int(json.loads(row["config"]).get("created_ns", 0)) if row is not None else 0


def _insert(tx: sqlite3.Connection, network: Network, config: str, *, state: str = "ready") -> None:
    """Record a predefined network, unless somebody was quicker."""
    tx.execute(
        "INSERT OR IGNORE INTO networks (id, name, driver, state, config) VALUES (?, ?, ?, ?, ?)",
        (network.id, network.name, network.driver, state, config),
    )
