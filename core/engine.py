"""The engine: one root, its drivers, images, networks and containers, behind one façade.

The command line and Python users call the same object. It opens the configuration and the
metastore at once, and everything else when it is first used, so ``Engine()`` costs little::

    from stowage import Engine

    with Engine("/srv/stowage") as engine:
        print(engine.run("busybox", ["echo", "hi"]).stdout)

Safe to use from many threads, and many engines in many processes may serve one root.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Unpack

from msgspec.structs import replace

from .closing import Closing
from .config import Config
from .containers.asked import Asked, specification, words
from .errors import CommandFailed, FailedPrecondition, NotFound, NotSupported, StowageError
from .model import Change, NetworkContext, NetworkProbe, SnapshotInfo, StorageProbe
from .store.layout import RootLayout
from .store.metastore import Metastore

if TYPE_CHECKING:
    from .containers.model import ContainerRecord
    from .containers.running import RunResult
    from .containers.service import Containers
    from .containers.streams import Collected
    from .explain import DriverReport
    from .handle import FirewallHandle, NetworkHandle, StorageHandle
    from .images.migrating import Migration, Moved
    from .images.rows import Image
    from .images.service import Images
    from .layers.store import LayerStore
    from .net.networks import Networks
    from .registry import Registry
    from .select import Request, Selection
    from .store.events import Event
    from .volumes.service import Volumes

logger = logging.getLogger("stowage")

_DEFAULT_DRIVER = "default-storage-driver"
_FIREWALL = "firewall-backend"
#: The keys of the configuration that network drivers and firewall backends see.
_NETWORK_SETTINGS = ("allow-forward", "ip-forward", "publish-allow", "publish-policy")


class Engine(Closing):
    """Everything that one root holds.

    Args:
        root: directory that holds data-root and exec-root; without it they are what *config*
            says (``/var/lib/stowage`` and ``/run/stowage``).
        config: a loaded configuration; without it ``daemon.json`` and the environment are read,
            or, when *root* is given, nothing is.
        storage_driver: the root's default storage driver, when it is not the recorded one.
        observers: names of observers (``"trace"``); added to those in ``STOWAGE_OBSERVERS``.

    Raises:
        InvalidConfig: with every problem of the configuration.
        FailedPrecondition: if the root was written by a newer Stowage.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        *,
        config: Config | None = None,
        storage_driver: str | None = None,
        observers: Iterable[str] = (),
    ) -> None:
        flags = {"storage-driver": storage_driver} if storage_driver else {}
        if config is None and root is not None:
            config = Config.for_root(Path(root).absolute(), flags)
        elif config is None:
            config = Config.load(flags, os.environ)
        self.config = config
        self.layout = RootLayout(config.data_root, config.exec_root)
        self._observers = [*_named_observers(), *observers]
        self._registry: Registry | None = None
        if self._observers:  # they watch what is to come
            _ = self.registry
        self.layout.create()
        self.metastore = Metastore(self.layout.metadata)
        self._lock = RLock()  # one at a time makes the parts below
        # Apart from it: a thread of the layer store opens drivers while we make the layer store.
        self._handles_lock = RLock()
        self._selection: Selection | None = None
        self._layers: LayerStore | None = None
        self._images: Images | None = None
        self._networks: Networks | None = None
        self._volumes: Volumes | None = None
        self._containers: Containers | None = None
        self._firewall: FirewallHandle | None = None
        self._storage: dict[str, StorageHandle] = {}
        self._network: dict[str, NetworkHandle] = {}

    # --- drivers -----------------------------------------------------------------------------

    @property
    def registry(self) -> Registry:
        """The drivers that are installed; what a command does not need is not imported."""
        from .registry import Registry

        if self._registry is None:
            self._registry = Registry(self._observers)
        return self._registry

    @property
    def selection(self) -> Selection:
        """The root's default storage driver and why; decided and recorded at first use.

        Raises: as :func:`stowage.select.select_storage`.
        """
        with self._lock:
            if self._selection is None:
                self._selection = self._select()
            return self._selection

    def decide(self) -> Selection:
        """Return what :attr:`selection` is or would be; records nothing."""
        from .select import select_storage

        if self._selection is not None:
            return self._selection
        try:
            return select_storage(self._request(), self.registry, self.storage_probe)
        except NotSupported:
            if (recorded := self._untried()) is None:
                raise
            return recorded

    def _untried(self) -> Selection | None:
        """Return the recorded driver where a full disk leaves no room to try it: what lives on it
        can still be looked at and removed."""
        from .select import Selection

        recorded = self.metastore.setting(_DEFAULT_DRIVER)
        asked = self.config.storage_driver
        if recorded is None or not self.metastore.ballast.wanted:
            return None
        if asked is not None and self.registry.canonical_name("storage", asked) != recorded:
            return None
        return Selection(recorded, "recorded as this root's default; no space to try it in")

    def _select(self) -> Selection:
        chosen = self.decide()
        if self.metastore.setting(_DEFAULT_DRIVER) != chosen.name:
            self.metastore.change(_DEFAULT_DRIVER, chosen.name)
        if chosen.warning:
            logger.warning("%s", chosen.warning)
        return chosen

    def _request(self) -> Request:
        from .select import Request

        explicit = self.config.storage_driver
        origin = self.config.origin("storage-driver") if explicit else ""
        return Request(
            explicit=explicit,
            origin=str(origin),
            recorded=self.metastore.setting(_DEFAULT_DRIVER),
            with_state=self._drivers_with_state(),
        )

    def _drivers_with_state(self) -> list[str]:
        rows = self.metastore.read().execute("SELECT DISTINCT driver FROM snapshots")
        return sorted(row[0] for row in rows)

    def set_default_driver(self, name: str) -> Selection:
        """Make *name* the root's default storage driver, whatever lives in the root.

        Raises:
            NotFound, NotSupported: if there is no such driver, or it does not work here.
        """
        from .select import Request, select_storage

        request = Request(explicit=name, origin="set as this root's default")
        chosen = select_storage(request, self.registry, self.storage_probe)
        self.metastore.change(_DEFAULT_DRIVER, chosen.name)
        with self._lock:
            self._selection = chosen
        return chosen

    def migration(
        self, to: str, references: Iterable[str] = (), *, everything: bool = False
    ) -> Migration:
        """Plan to move images and layers, or *everything*, to the storage driver *to*.

        Raises:
            NotFound, NotSupported: if there is no such driver, or it does not work here.
            NotFound, InvalidArgument: for a reference that means nothing, or several images.
        """
        from .select import Request, select_storage

        request = Request(explicit=to, origin="to migrate to")
        target = select_storage(request, self.registry, self.storage_probe).name
        return self.images.migration(target, references, everything=everything)

    def migrate(
        self, to: str, *references: str, everything: bool = False, keep: bool = False
    ) -> Sequence[Moved]:
        """Move images and layers, or *everything*, to the storage driver *to*; with *keep* they
        stay where they are as well. Containers keep the layers that they run on.

        Ask again after a kill: what has come already is verified and not copied again.

        Raises: as :meth:`migration` and :meth:`stowage.images.migrating.Migration.move`.
        """
        plan = self.migration(to, references, everything=everything)
        return [moved for chain in plan.chains for moved in plan.move(chain, keep=keep)]

    def storage(self, name: str | None = None) -> StorageHandle:
        """Return the open handle of a storage driver (default: the root's), one per name.

        Raises:
            NotFound, DriverFailed, InvalidConfig: as :meth:`stowage.registry.Registry.storage`.
        """
        name = name or self.selection.name
        with self._handles_lock:
            canonical = self.registry.canonical_name("storage", name)
            if canonical not in self._storage:
                self._storage[canonical] = self.registry.storage(
                    canonical, self.layout.driver_root(canonical), self._storage_options(canonical)
                )
            return self._storage[canonical]

    def _storage_options(self, canonical: str) -> list[str]:
        """Return the ``storage-opts`` that concern a driver: those without a driver's prefix are
        for the default one, as long as it is known."""
        default = self.config.storage_driver or self.metastore.setting(_DEFAULT_DRIVER)
        if default is None or default in self.registry.storage_names(canonical):
            return list(self.config.storage_opts)
        return [option for option in self.config.storage_opts if "." in option.partition("=")[0]]

    def storage_probe(self, name: str) -> StorageProbe:
        """Return what a storage driver's probe says for this root."""
        return self.storage(name).probe

    def network(self, name: str) -> NetworkHandle:
        """Return the open handle of a network driver, one per name."""
        with self._handles_lock:
            if name not in self._network:
                self._network[name] = self.registry.network(name, self._network_context())
            return self._network[name]

    def _network_context(self) -> NetworkContext:
        return NetworkContext(
            self.metastore.root_id,
            self.layout.exec_root / self.metastore.root_id,
            {key: getattr(self.config, key.replace("-", "_")) for key in _NETWORK_SETTINGS},
            firewall=lambda: self.firewall,
            recorded=lambda: self.networks.recorded(),
        )

    @property
    def firewall(self) -> FirewallHandle:
        """The root's firewall backend: as configured, else as recorded, else by probe.

        Raises:
            FailedPrecondition: if another one is configured than containers rely on.
            NotSupported: if none works here.
        """
        with self._lock:
            if self._firewall is None:
                name = self._firewall_name()
                if self.metastore.setting(_FIREWALL) != name:
                    self.metastore.change(_FIREWALL, name)
                self._firewall = self.registry.firewall(name, self._network_context())
            return self._firewall

    def _firewall_name(self) -> str:
        recorded = self.metastore.setting(_FIREWALL)
        wanted = self.config.firewall_backend or ("none" if not self.config.iptables else None)
        if wanted is None:
            return recorded or self._probed_firewall()
        if recorded not in (None, wanted) and self._has_endpoints():
            raise FailedPrecondition(
                f"the firewall backend of this root is {recorded!r}, not {wanted!r}",
                details="containers are connected to its networks",
                resolution=f"remove them first, or set firewall-backend to {recorded}",
            )
        return wanted

    def _probed_firewall(self) -> str:
        """Return the backend with the highest priority that works; one of 0 is a last resort."""
        from .explain import report

        candidates = report(self.registry, "firewall", self.firewall_probe)
        for candidate in candidates:
            if candidate.works:
                if candidate.priority <= 0:
                    logger.warning("no firewall backend works here; ports cannot be published")
                return candidate.name
        raise NotSupported(
            "no firewall backend works here",
            details="\n".join(f"{entry.name}: {entry.verdict}" for entry in candidates) or None,
        )

    def _has_endpoints(self) -> bool:
        row = self.metastore.read().execute("SELECT 1 FROM endpoints LIMIT 1").fetchone()
        return row is not None

    def firewall_probe(self, name: str) -> NetworkProbe:
        """Return what a firewall backend's probe says here."""
        handle = self.registry.firewall(name, self._network_context())
        try:
            return handle.probe
        finally:
            handle.close()

    def network_probe(self, name: str) -> NetworkProbe:
        """Return what a network driver's probe says here."""
        return self.network(name).probe

    def storage_drivers(self) -> Sequence[DriverReport]:
        """Return what each storage driver can do for this root, and why not; see ``driver ls``."""
        from .explain import report

        chosen = self.metastore.setting(_DEFAULT_DRIVER)
        with suppress(StowageError):  # the recorded one stays it when what is asked for is refused
            chosen = self.decide().name
        return report(self.registry, "storage", self.storage_probe, chosen)

    def network_drivers(self) -> Sequence[DriverReport]:
        """Return what each network driver can do here, and why not."""
        from .explain import report

        return report(self.registry, "network", self.network_probe)

    # --- what a root holds -------------------------------------------------------------------

    @property
    def layers(self) -> LayerStore:
        """The layer store, on all drivers of the root; opening it recovers what a kill left."""
        from .layers.store import LayerStore

        with self._lock:
            if self._layers is None:
                self._layers = LayerStore(
                    self.layout,
                    self.metastore,
                    self.storage,
                    self.selection.name,
                    sync="none" if self.config.sync == "none" else "filesystem",
                    in_use=self._user_of,
                )
            return self._layers

    def _user_of(self, snapshot: SnapshotInfo) -> str | None:
        """Say which container runs on a snapshot, whether or not anybody asked for containers."""
        from .containers.contents import in_use
        from .containers.context import Context

        return in_use(Context(self), snapshot)

    @property
    def images(self) -> Images:
        """The images."""
        from .images.service import Images

        with self._lock:
            if self._images is None:
                self._images = Images(self.metastore, self.layers, self.layout)
            return self._images

    @property
    def networks(self) -> Networks:
        """The networks."""
        from .net.networks import Networks

        with self._lock:
            if self._networks is None:
                self._networks = Networks(self.metastore, self.network, self.config)
            return self._networks

    @property
    def volumes(self) -> Volumes:
        """The volumes; opening them finishes what a kill has left half done."""
        from .volumes.service import Volumes

        with self._lock:
            if self._volumes is None:
                self._volumes = Volumes(self.layout, self.metastore)
            return self._volumes

    @property
    def containers(self) -> Containers:
        """The containers; opening them settles those whose monitor or caller was killed."""
        from .containers.service import Containers

        with self._lock:
            if self._containers is None:
                self._containers = Containers(self)
            return self._containers

    def events(
        self, *, since_ns: int | None = None, until_ns: int | None = None
    ) -> Iterator[Event]:
        """Yield what happens in this root, by whatever process; see :func:`.read_events`."""
        from .store.events import read_events

        return read_events(self.metastore, since_ns=since_ns, until_ns=until_ns)

    # --- containers from Python --------------------------------------------------------------

    def create(
        self, image: str, command: Sequence[str] = (), **asked: Unpack[Asked]
    ) -> ContainerRecord:
        """Make a container that does not run yet; see :class:`Asked` for what can be asked.

        Raises:
            NotFound: if the image or the network does not exist.
            AlreadyExists: if the name is taken.
        """
        return self.containers.create(specification(image, command, asked))

    def start(self, container: str) -> ContainerRecord:
        """Start a container under a monitor: it outlives this process, and has a log.

        Raises:
            NotFound: if there is no such container.
            CommandFailed: if its command cannot be started.
        """
        return self.containers.start(container)

    def stop(self, container: str, timeout_seconds: float | None = None) -> None:
        """Ask a container to end, and kill it after the time-out (default: its own, or 10 s)."""
        self.containers.stop(container, timeout_seconds)

    def wait(self, container: str, timeout_seconds: float | None = None) -> int:
        """Wait until a container has ended; returns its exit code."""
        return self.containers.wait(container, timeout_seconds)

    def remove(self, container: str, *, force: bool = False, volumes: bool = False) -> None:
        """Remove a container, with *force* a running one as well, with *volumes* also the
        anonymous volumes that nobody else uses."""
        self.containers.remove(container, force=force, volumes=volumes)

    def run(
        self,
        image: str,
        command: Sequence[str] = (),
        *,
        input: bytes = b"",
        timeout_seconds: float | None = None,
        remove: bool = True,
        check: bool = False,
        **asked: Unpack[Asked],
    ) -> RunResult:
        """Run a command in a new container, wait for its end and return what it wrote.

        The runtime is started by this very process, with no monitor between: the container dies
        with it. *input* is its standard input; after *timeout_seconds* it is killed (exit code
        137). The container is removed afterwards unless *remove* is false; with *check* a
        non-zero exit code raises. See :class:`Asked` for what else can be asked.

        Raises:
            NotFound: if the image or the network does not exist.
            CommandFailed: if the command cannot be started (126, 127), or with *check*.
        """
        from .containers.streams import Streams

        spec = replace(specification(image, command, asked), auto_remove=remove)
        result = self.containers.run(spec, Streams(stdin=input), timeout_seconds=timeout_seconds)
        if check and result.exit_code:
            raise CommandFailed(
                f"{' '.join(command) or image} ended with exit code {result.exit_code}",
                result.exit_code,
                details=result.stderr.decode(errors="replace").strip() or None,
            )
        return result

    def exec(
        self,
        container: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        working_dir: str = "",
        user: str = "",
        input: bytes = b"",
        timeout_seconds: float | None = None,
    ) -> Collected:
        """Run a further command in a running container and return what it wrote.

        Raises:
            NotFound: if there is no such container.
            FailedPrecondition: if it does not run.
            CommandFailed: if the command cannot be started.
        """
        from .containers.exec import ExecSpec
        from .containers.streams import Streams

        spec = ExecSpec(
            command=words(command),
            env=tuple(f"{key}={value}" for key, value in (env or {}).items()),
            working_dir=working_dir,
            user=user,
        )
        streams = Streams(stdin=input)
        return self.containers.exec(container, spec, streams, timeout_seconds=timeout_seconds)

    def diff(self, container: str) -> Sequence[Change]:
        """Return what a container changed in its root, sorted by path; it may run meanwhile."""
        return self.containers.diff(container)

    def commit(
        self, container: str, reference: str | None = None, *, changes: Sequence[str] = ()
    ) -> Image:
        """Make an image of a container's changes; *changes* are Dockerfile instructions."""
        return self.containers.commit(container, reference, changes=changes)

    @contextmanager
    def mounted(self, key: str, *, storage_driver: str | None = None) -> Iterator[Path]:
        """Give a real mount point of a snapshot (or of a container's root, by name or id).

        A container may run meanwhile; what is mounted on its root is not seen.
        """
        driver = storage_driver and self.registry.canonical_name("storage", storage_driver)
        try:
            record = self.containers.get(key)
        except NotFound:
            pass
        else:
            key, driver = record.snapshot, record.driver
        with ExitStack() as stack:
            with self._live_mount(driver, key) as clone:  # an open clone would keep it mounted
                mounted = self.layers.mounted(key, driver=driver, clone=clone)
                path = stack.enter_context(mounted)
            yield path

    def _live_mount(self, driver: str | None, key: str) -> AbstractContextManager[int | None]:
        return nullcontext() if driver is None else self.containers.live_mount(driver, key)

    # --- life cycle --------------------------------------------------------------------------

    def close(self) -> None:
        """Give up handles, leases and connections; what runs goes on running. Idempotent."""
        layers = self._layers
        if layers is not None:
            layers.close()  # not under our lock: its reaper may be asking for a handle
        with self._handles_lock:
            for handle in (*self._storage.values(), *self._network.values()):
                handle.close()
            if self._firewall is not None:
                self._firewall.close()
                self._firewall = None
            self._storage.clear()
            self._network.clear()
            self.metastore.close()


def _named_observers() -> list[str]:
    names = os.environ.get("STOWAGE_OBSERVERS", "")
    return [name.strip() for name in names.split(",") if name.strip()]
