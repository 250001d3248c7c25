"""Making a container: its row, its snapshot with the mount targets below it, its directory."""

from __future__ import annotations

import logging
import os
import signal
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..errors import InvalidArgument, NotFound
from . import hostroot, volume_use
from .context import Context
from .defaults import configured
from .devices import device_nodes
from .init_process import find_init
from .log_config import verified as verified_log
from .model import ContainerRecord, ContainerSpec, RuntimeFacts, with_image_defaults
from .names import new_id
from .namespaces import check_namespaces, resolved
from .networking import SHARED_PREFIX, check_networking, shared_with
from .own_limits import check_own_limits
from .resource_checks import verified
from .rows import new_record
from .security import check_capabilities
from .security_options import check_sysctls
from .targets import mount_targets
from .utf8 import check_utf8
from .volumes import check_sources, check_targets
from .workdir import check_absolute

if TYPE_CHECKING:
    from ..images.rows import Image
    from ..model import Network

logger = logging.getLogger("stowage.containers")

_ATTEMPTS = 4


def create(
    context: Context, spec: ContainerSpec, facts: RuntimeFacts, *, settled: bool = True
) -> ContainerRecord:
    """Make a container and return its record; on any failure nothing is left.

    *facts* are recorded from the start. Without *settled* the caller, who goes on at once,
    records that it is whole.

    Raises:
        NotFound: unknown image, network or driver.
        AlreadyExists: if the name is taken.
        InvalidArgument: in Docker's words.
        NotSupported: if a program that would run it is missing.
    """
    check_utf8(spec.to_json())
    context.require_programs(direct=facts.monitor == "direct")
    check_networking(spec.networking, spec.network, spec.hostname)
    check_namespaces(spec.namespaces, spec.hostname)
    image, spec = _merged(context, spec)
    _check(spec)
    config = context.root.config
    spec = configured(spec, config)
    spec = replace(spec, resources=verified(spec.resources))
    check_own_limits(spec.resources)
    spec = replace(spec, log=verified_log(spec.log, config.log_driver, config.log_opts))
    spec = volume_use.settled(context, spec, image)
    spec, network = _network(context, spec)
    spec = _namespaces(context, spec)
    host_network = network is not None and context.root.networks.sandbox_mode(network) == "host"
    check_sysctls(spec.security, host_network=host_network, host_ipc=spec.namespaces.ipc == "host")
    handle = context.root.storage(spec.storage_driver)
    container_id = new_id()
    record = new_record(
        container_id, spec, image_id=image.id if image else "", driver=handle.name,
        runtime=replace(facts, network_id=network.id if network else ""),
    )  # fmt: skip
    if facts.monitor:
        cgroup = context.cgroup(record).path
        record = replace(record, runtime=replace(record.runtime, cgroup=cgroup))
    with context.locked(container_id, "is making it"):
        try:
            also = volume_use.claims(context, record)
            record = context.rows.insert(record, name=spec.name, also=also)
            context.files(container_id).make_kept()
            _prepare_snapshot(context, record, image)
            volume_use.prepare(context, record, image)
        except BaseException:
            discard(context, record)
            raise
        if settled:
            record = context.rows.update(record, events=("create",), prepared=True)
    return record


def _merged(context: Context, spec: ContainerSpec) -> tuple[Image | None, ContainerSpec]:
    if spec.rootfs is not None:
        if spec.image:
            raise InvalidArgument("--rootfs takes the place of an image; give only one of them")
        if not any(spec.arguments):
            raise InvalidArgument("No command specified")
        return None, replace(spec, image=f"rootfs:{spec.rootfs}")
    image = context.root.images.resolve(spec.image)
    return image, with_image_defaults(spec, image.config.config)


def _network(context: Context, spec: ContainerSpec) -> tuple[ContainerSpec, Network | None]:
    """Return the network, and *spec* with the whole id of the container whose network it shares."""
    reference = shared_with(spec.network)
    if reference is not None:
        target = context.rows.get(reference)
        return replace(spec, network=f"{SHARED_PREFIX}{target.id}"), None
    networks = context.root.networks
    network = networks.resolve(spec.network)
    if spec.networking.requests and not networks.can_publish(network):
        logger.warning("Published ports are discarded when using %s network mode", network.name)
    return spec, network


def _namespaces(context: Context, spec: ContainerSpec) -> ContainerSpec:
    hostname = os.uname().nodename if spec.namespaces.uts == "host" else spec.hostname
    namespaces = resolved(context, spec.namespaces)
    return replace(spec, hostname=hostname, namespaces=namespaces)


def _check(spec: ContainerSpec) -> None:
    check_targets(spec.mounted)
    check_capabilities(spec.security)
    device_nodes(spec.security.devices)
    if spec.has_init:
        find_init()
    check_sources(spec.binds)
    if spec.working_dir:
        check_absolute(spec.working_dir)
    if spec.stop_signal:
        parse_signal(spec.stop_signal)
    if spec.hostname and len(spec.hostname) > 64:
        raise InvalidArgument(f"invalid hostname: {spec.hostname}: longer than 64 bytes")


def parse_signal(text: str) -> int:
    """Return the number of the signal that ``TERM``, ``SIGTERM``, ``RTMIN+3`` or ``15`` means.

    Raises:
        InvalidArgument: "Invalid signal: x".
    """
    name = text.strip().upper().removeprefix("SIG")
    base, _, more = name.partition("+")
    try:
        if name.isascii() and name.isdecimal():
            number = int(name)
        else:
            number = int(signal.Signals[f"SIG{base}"]) + int(more or 0)
    except (KeyError, ValueError):
        number = 0
    if not 0 < number <= signal.SIGRTMAX:
        raise InvalidArgument(f"Invalid signal: {text}")
    return number


def _prepare_snapshot(context: Context, record: ContainerRecord, image: Image | None) -> None:
    layers, spec = context.root.layers, record.spec
    if spec.rootfs is not None:
        hostroot.prepare(context, record, spec.rootfs)
        return
    assert image is not None
    for left in reversed(range(_ATTEMPTS)):
        parent = context.root.images.ensure(image, record.driver)
        base = layers.init_snapshot(parent, mount_targets(spec), driver=record.driver)
        try:
            layers.prepare(
                record.snapshot, base, driver=record.driver, options=spec.storage_options
            )
        except NotFound:  # a prune took the init snapshot, which nothing was on yet
            if not left:
                raise
        else:
            return


def discard(context: Context, record: ContainerRecord) -> None:
    """Take back a container that was being made; the caller holds its lock. Idempotent."""
    remove_snapshot(context, record)
    context.files(record.id).remove()
    if condemned := context.rows.delete(record):
        context.root.volumes.clear(condemned)


def remove_snapshot(context: Context, record: ContainerRecord) -> None:
    """Remove a container's snapshot. Idempotent.

    Raises:
        Busy: if something still uses it.
    """
    try:
        context.root.layers.remove(record.snapshot, driver=record.driver)
    except NotFound:
        pass
