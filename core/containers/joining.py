"""The network side of a run: its sandbox, endpoint, ports and name files, and their end.

A container on ``container:<id>`` has no endpoint: it enters the namespace of the other one, which
lives as long as either of them. Links and addresses are the other one's, and go with it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING

from msgspec import Struct

from ..errors import FailedPrecondition, NotFound, StowageError
from ..linux.namespaces import network_cookie
from ..linux.process import ProcessIdentity
from ..model import Address, Endpoint, Network, PortMapping, Sandbox
from ..net.namefiles import NAMES, NameFiles
from ..net.sandbox import sandbox_for
from .context import Context
from .model import ContainerRecord, ContainerState
from .networking import HOST_GATEWAY, Networking, shared_with
from .processes import first_process

if TYPE_CHECKING:
    from ..net.networks import Networks
    from ..net.ports import Reservation


class Joined(Struct, frozen=True):
    """A container's network for one run; descriptors are lent.

    *private*: the sandbox is not the host's. *ports* are the sockets that hold what is published.
    *owner* is whose name files and host name it has, *target* whose first process holds the
    namespace that it shares.
    """

    sandbox: Sandbox
    private: bool
    owner: ContainerRecord
    network: Network | None = None
    endpoint: Endpoint | None = None
    ports: Sequence[int] = ()
    target: ProcessIdentity | None = None

    @property
    def inherited(self) -> Sequence[int]:
        """What the process that watches the container must inherit."""
        return (*((self.sandbox.descriptor,) if self.private else ()), *self.ports)

    def require_target(self) -> None:
        """Refuse a run whose namespace lost its owner meanwhile: nobody would end its links.

        When the row says that the container runs: from then on the owner's end looks for it.
        """
        if self.target is not None and not self.target.alive:
            raise _not_running(self.owner)


def join(context: Context, record: ContainerRecord, stack: ExitStack) -> Joined:
    """Bring a container's network up for the time of *stack*.

    Raises:
        Busy: if a port is taken, naming by whom.
        FailedPrecondition: for a shared network whose owner does not run.
        StowageError: whatever of it does not work.
    """
    reference = shared_with(record.spec.network)
    if reference is not None:
        return _share(context, record, reference, stack)
    networks = context.root.networks
    network = networks.by_id(record.runtime.network_id)
    if network is None:
        name = record.spec.network or "default"
        raise NotFound("network", name, brief=f"network {name} not found")
    mode = networks.sandbox_mode(network)
    sandbox = stack.enter_context(sandbox_for(record.id, mode))
    endpoint_id = secrets.token_hex(32)
    reservation = _reserve(context, record, network, endpoint_id, stack)
    if reservation is not None:
        networks.supersede(reservation.mappings)
    endpoint = _connect(networks, record, network, endpoint_id, reservation)
    networks.join(endpoint, sandbox)
    networks.publish(endpoint)
    return Joined(
        sandbox,
        mode == "private",
        record,
        network,
        endpoint,
        ports=reservation.descriptors if reservation else (),
    )


# --- ports --------------------------------------------------------------------------------------


def _reserve(
    context: Context,
    record: ContainerRecord,
    network: Network,
    endpoint_id: str,
    stack: ExitStack,
) -> Reservation | None:
    wanted = record.spec.networking.requests
    if not wanted or not context.root.networks.can_publish(network):
        return None
    from ..net.ports import reserve

    binding = network.options.get("com.docker.network.bridge.host_binding_ipv4")
    try:
        reservation = reserve(
            wanted,
            versions=[pool.subnet.version for pool in network.pools],
            default_addresses=_default_addresses(binding),
            owner=lambda mapping: _owner(context, mapping),
        )
    except StowageError as error:
        error.brief = (
            f"driver failed programming external connectivity on endpoint {record.name}"
            f" ({endpoint_id}): {error.brief}"
        )
        raise
    return stack.enter_context(reservation)


def _default_addresses(binding: str | None) -> Sequence[Address]:
    """The network's host address; every one is what the reservation takes by itself."""
    if binding is None or ip_address(binding).is_unspecified:
        return ()
    return (ip_address(binding),)


def _owner(context: Context, mapping: PortMapping) -> str | None:
    for endpoint in context.root.networks.published_on([mapping]):
        record = context.rows.find(endpoint.container_id)
        short = endpoint.container_id[:12]
        return f"{short} ({record.name})" if record else short
    return None


def _connect(
    networks: Networks,
    record: ContainerRecord,
    network: Network,
    endpoint_id: str,
    reservation: Reservation | None,
) -> Endpoint:
    from ..net.endpoints import EndpointRequest

    wanted = record.spec.networking
    asked = EndpointRequest(
        addresses=wanted.addresses,
        mac_address=wanted.mac_address or None,
        ports=reservation.mappings if reservation else (),
        id=endpoint_id,
    )
    return networks.connect(network, record.id, asked)


# --- another container's network ----------------------------------------------------------------


def _share(context: Context, record: ContainerRecord, reference: str, stack: ExitStack) -> Joined:
    target = context.rows.find(reference)
    if target is None:
        raise NotFound(
            "container",
            reference,
            brief=f"joining network namespace of container: No such container: {reference}",
        )
    if target.id == record.id:
        raise FailedPrecondition("cannot join own network namespace")
    if target.state is ContainerState.RESTARTING:
        raise FailedPrecondition(
            f"Container {target.id} is restarting, wait until the container is running"
        )
    process = first_process(context, target) if target.state.lives else None
    if process is None:
        raise _not_running(target)
    sandbox = stack.enter_context(_sandbox_of(record.id, process, target))
    private = sandbox.cookie != network_cookie()  # else the runtime would set sysctls of the host
    return Joined(sandbox, private, _owner_of_names(context, target), target=process)


def _not_running(target: ContainerRecord) -> FailedPrecondition:
    state = "exited" if target.state.lives else target.state.value
    return FailedPrecondition(
        "cannot join network namespace of a non running container:"
        f" container {target.name} is {state}",
        resolution=f"start it first: stowage start {target.name}",
    )


def _owner_of_names(context: Context, target: ContainerRecord) -> ContainerRecord:
    """The one at the end of the chain of those that share; ids were known when each was made."""
    reference = shared_with(target.spec.network)
    following = context.rows.find(reference) if reference is not None else None
    return target if following is None else _owner_of_names(context, following)


@contextmanager
def _sandbox_of(
    container_id: str, process: ProcessIdentity, target: ContainerRecord
) -> Iterator[Sandbox]:
    try:
        descriptor = os.open(f"/proc/{process.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:  # ended meanwhile
        raise _not_running(target) from error
    try:
        if not process.alive:  # the pid may be another's by now
            raise _not_running(target)
        yield Sandbox(container_id, descriptor, network_cookie(descriptor))
    finally:
        os.close(descriptor)


# --- names --------------------------------------------------------------------------------------


def host_name(joined: Joined) -> str:
    """Return what ``hostname`` prints inside."""
    owner = joined.owner
    return owner.spec.hostname or (owner.short_id if joined.private else os.uname().nodename)


def write_names(context: Context, record: ContainerRecord, joined: Joined) -> dict[str, str]:
    """Write the name files; returns container path → host path. Shared ones are the owner's."""
    owner = context.files(joined.owner.id)
    if joined.owner.id != record.id:
        return {f"/etc/{name}": str(owner.kept / name) for name in NAMES}
    wanted, settings = record.spec.networking, context.root.config
    endpoint = joined.endpoint
    files = NameFiles(
        host_name(joined),
        record.spec.domainname,
        addresses=[str(interface.ip) for interface in endpoint.addresses] if endpoint else (),
        nameservers=[str(address) for address in wanted.dns or settings.dns],
        search=wanted.dns_search or settings.dns_search,
        options=wanted.dns_options or settings.dns_opts,
        extra_hosts=list(_extra_hosts(wanted, joined.network)),
        host_network=not joined.private,
    )
    return files.write(owner.kept)


def _extra_hosts(wanted: Networking, network: Network | None) -> Iterator[tuple[str, str]]:
    """Yield (name, address); the host's own address on the network where that was asked for."""
    for text in wanted.extra_hosts:
        name, _, address = text.partition(":")
        if address == HOST_GATEWAY:
            gateways = [pool.gateway for pool in network.pools] if network else []
            if not gateways or gateways[0] is None:
                raise FailedPrecondition(
                    f"cannot resolve {HOST_GATEWAY} for {name!r}",
                    details="the host has no address on this network",
                    resolution="use the network bridge, or give an address",
                )
            address = str(gateways[0])
        yield name, address


# --- afterwards -----------------------------------------------------------------------------------


def disconnect(context: Context, record: ContainerRecord) -> None:
    """Give up a container's endpoints; links that others keep alive are deleted. Idempotent."""
    networks = context.root.networks
    endpoints = networks.endpoints(record.id)
    if not endpoints:
        return
    with _kept_alive(context, record) as sandbox:
        for endpoint in endpoints:
            networks.disconnect(endpoint, sandbox)


@contextmanager
def _kept_alive(context: Context, record: ContainerRecord) -> Iterator[Sandbox | None]:
    """Give the sandbox if a container that shares it lives; else the kernel reaps it, and None."""
    for sharer in context.rows.sharing_network_of(record.id):
        process = first_process(context, sharer)
        if process is None:
            continue
        try:
            descriptor = os.open(f"/proc/{process.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # ended meanwhile
            continue
        try:
            yield Sandbox(record.id, descriptor, network_cookie(descriptor))
        finally:
            os.close(descriptor)
        return
    yield None
