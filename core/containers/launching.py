"""All that stands between a recorded container and its runtime: root, network, files, bundle.

Everything here dies with the process or lies where recovery looks: the root and the network
namespace are descriptors, the directories and the cgroup are named by the row.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from ..effects import effect
from ..errors import Busy, FailedPrecondition, InvalidArgument
from ..linux.cgroups import Cgroup, hierarchies
from ..linux.process import describe
from . import hostroot, volume_use
from .accounts import resolve_user, with_groups
from .bundle import ContainerFiles
from .context import Context
from .joining import Joined, disconnect, host_name, join, write_names
from .model import ContainerRecord
from .namespaces import SHM, Shared, share
from .own_limits import check_own_limits
from .resource_config import apply_io_weights
from .rootfs import Extra, RootPlan, clone_shared
from .rotation import end_rotation
from .runtime import Runtime
from .spec import Bundle, build_config, process_env, sysctls
from .volumes import Bind, check_sources
from .workdir import resolve_workdir

if TYPE_CHECKING:
    from ..layers.attach import Attachment

logger = logging.getLogger("stowage.containers")

#: The last reference to a container's old root goes a moment after its last process
#: (delayed_mntput in fs/namespace.c); a restart waits for it.
_LINGER_SECONDS = 5.0


class Launch(Struct, frozen=True):
    """A container that is ready to be handed to its runtime; descriptors are lent."""

    runtime: Runtime
    files: ContainerFiles
    plan: RootPlan
    joined: Joined
    cgroup: Cgroup


@contextmanager
def launch(context: Context, record: ContainerRecord, runtime: Runtime) -> Iterator[Launch]:
    """Prepare a run of *record* and give it for the time of the ``with``.

    The row must name the cgroup already. What outlives a failure is taken away by
    :func:`clean_up`.

    Raises:
        StowageError: whatever of it does not work, in Docker's words where it has some.
    """
    check_own_limits(record.spec.resources)
    files = context.files(record.id)
    cgroup = context.cgroup(record)
    with ExitStack() as stack:
        attachment = stack.enter_context(_attached(context, record))
        joined = join(context, record, stack)
        _make_bind_sources(record.spec.binds)
        volume_use.require_directories(context, record.spec)
        files.make_kept()
        files.make_bundle()
        shared = share(context, record, stack)
        plan, binds = _plan(context, record, attachment.root, files, runtime, shared, stack)
        config = _config(
            context, record, attachment.root, files, binds, joined, shared.paths,
        )  # fmt: skip
        files.write_config(config)
        # the runtime would make it as well, but could lose the race for an empty parent
        cgroup.make(skip=_hidden(runtime))
        apply_io_weights(cgroup, record.spec.resources)
        yield Launch(runtime, files, plan, joined, cgroup)


def _hidden(runtime: Runtime) -> Sequence[str]:
    known = hierarchies()
    if runtime.hides_unified and known.layout == "hybrid" and known.unified:
        return (known.unified,)
    return ()


def _attached(context: Context, record: ContainerRecord) -> Attachment:
    """Attach the root; one that was in use a moment ago may take a moment to come free."""
    deadline = time.monotonic() + _LINGER_SECONDS
    while True:
        try:
            return context.root.layers.attach(record.snapshot, driver=record.driver)
        except (Busy, FailedPrecondition):
            first_run = not record.runtime.started_ns
            if first_run or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


# --- mounts -----------------------------------------------------------------------------------


def _make_bind_sources(binds: Sequence[Bind]) -> None:
    """Docker makes the host's directory of a ``-v`` that is not there."""
    check_sources(binds)
    for bind in binds:
        if not os.path.lexists(bind.source):
            with effect("container.make_bind_source", path=bind.source):
                os.makedirs(bind.source, exist_ok=True)


def _plan(
    context: Context,
    record: ContainerRecord,
    root: int,
    files: ContainerFiles,
    runtime: Runtime,
    taken: Shared,
    stack: ExitStack,
) -> tuple[RootPlan, Sequence[Bind]]:
    """Return what the mount namespace holds, and the binds as the runtime sees them in it."""
    binds: list[Bind] = []
    shared: list[tuple[int, Path]] = []
    for bind in volume_use.all_binds(context, record.spec):
        if not bind.shared:
            binds.append(bind)
            continue
        point = files.bundle / "shared" / str(len(shared))
        _make_point(point, directory=os.path.isdir(bind.source))
        clone = clone_shared(bind)
        stack.callback(os.close, clone)
        shared.append((clone, point))
        binds.append(replace(bind, source=str(point)))
    if taken.shm is not None:
        point = files.bundle / "shared" / "shm"
        _make_point(point, directory=True)
        shared.append((taken.shm, point))
        binds.append(Bind(str(point), SHM))
    elif record.spec.namespaces.ipc == "host":
        binds.append(Bind(SHM, SHM))
    extras: Sequence[Extra] = ()
    if record.spec.rootfs is not None:
        extras = hostroot.extras(context, record.spec.rootfs, root, stack)
    plan = RootPlan(root, files.rootfs, extras, shared, hide_unified=runtime.hides_unified)
    return plan, binds


def _make_point(point: Path, *, directory: bool) -> None:
    with effect("container.make_mount_point", path=point):
        point.parent.mkdir(exist_ok=True)
        if directory:
            point.mkdir()
        else:
            point.touch()


# --- config.json ------------------------------------------------------------------------------


def _config(
    context: Context,
    record: ContainerRecord,
    root: int,
    files: ContainerFiles,
    binds: Sequence[Bind],
    joined: Joined,
    shared_namespaces: Mapping[str, str],
) -> dict[str, object]:
    spec, hostname = record.spec, host_name(joined)
    namespace = None
    if joined.private:
        # runc refuses /proc/self; the number is ours as long as the runtime creates
        namespace = f"/proc/{os.getpid()}/fd/{joined.sandbox.descriptor}"
    account = with_groups(root, resolve_user(root, spec.user), spec.security.group_add)
    try:
        mounts = volume_use.seen_mounts(context, spec)
        workdir = resolve_workdir(root, spec.working_dir or "/", mounts, create=True)
    except OSError as error:
        raise InvalidArgument(
            f"the working directory {spec.working_dir!r} cannot be made", details=str(error)
        ) from error
    return build_config(
        Bundle(
            spec=spec,
            account=account,
            env=process_env(spec.env, account, hostname=hostname, tty=spec.tty),
            working_dir=workdir,
            hostname=hostname,
            rootfs=str(files.rootfs),
            cgroup=context.cgroup(record).path,
            network_namespace=namespace,
            shared_namespaces=shared_namespaces,
            sysctls=sysctls(
                private_network=joined.private,
                domainname="" if spec.namespaces.uts else joined.owner.spec.domainname,
            ),
            name_files=write_names(context, record, joined),
            binds=binds,
        )
    )


# --- afterwards -------------------------------------------------------------------------------


def clean_up(context: Context, record: ContainerRecord, runtime: Runtime | None = None) -> None:
    """Take away all that a run leaves besides its row and its snapshot. Idempotent.

    Goes on after a failure and tells it in the log: what is left is found again by recovery.

    Raises:
        Busy: if a process does not die. Nothing else was touched then, and the caller leaves the
            row as it is: the container has not ended, and its address is not free.
    """
    _kill_all(context, record)
    files = context.files(record.id)
    steps: tuple[Callable[[], None], ...] = (
        lambda: _forget(context, record, runtime),
        lambda: context.cgroup(record).remove(),
        lambda: disconnect(context, record),
        lambda: end_rotation(context, record.id),
        files.remove_bundle,
    )
    for step in steps:
        try:
            step()
        except Exception as error:  # noqa: BLE001  # the other steps are as needed
            logger.warning("container %s: clean-up: %s", record.short_id, error)


def _kill_all(context: Context, record: ContainerRecord) -> None:
    cgroup = context.cgroup(record)
    try:
        cgroup.kill()
    except TimeoutError as error:
        users = [describe(pid) for pid in sorted(cgroup.processes())]
        raise Busy(f"container {record.short_id} does not end", users) from error
    except OSError as error:
        logger.warning("container %s: clean-up: %s", record.short_id, error)


def _forget(context: Context, record: ContainerRecord, runtime: Runtime | None) -> None:
    files = context.files(record.id)
    state = context.running_directory / "runtime" / record.id
    if not state.exists():
        return
    runtime = runtime or context.runtime_of(record)
    with effect("container.make_bundle", path=files.bundle):
        files.bundle.mkdir(parents=True, exist_ok=True)  # its log lies there
    runtime.delete(record.id, files.runtime_log)
    runtime.forget(record.id)


def stop_monitor(context: Context, record: ContainerRecord) -> None:
    """Kill a container's conmon, so that its exit command does not come as well. Idempotent."""
    pid = context.files(record.id).monitor_pid()
    if pid is None:
        return
    with effect("monitor.kill", pid=pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
