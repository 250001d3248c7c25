"""Which namespaces a container has of its own, and which it shares; ``--pid``, ``--ipc``, ….

A namespace of another container is entered by descriptor, so that it stays the one that was
looked at; shared memory comes as a clone of the other one's ``/dev/shm``, which lives as long
as either of them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field
from msgspec.structs import replace

from ..errors import FailedPrecondition, InvalidArgument, NotFound
from ..linux.cgroups import hierarchies
from ..records import as_dict, field_names

if TYPE_CHECKING:
    from ..linux.process import ProcessIdentity
    from .context import Context
    from .model import ContainerRecord

_SHARED = "container:"
SHM = "/dev/shm"


class Namespaces(Struct, frozen=True):
    """Modes as Docker writes them: ``host``, ``container:<id>``, ``private``, …; empty is the
    default, which is one of its own."""

    pid: str = ""
    ipc: str = ""
    uts: str = ""
    userns: str = ""
    cgroupns: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return as_dict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Namespaces:
        """Read what :meth:`to_json` gave; unknown keys are ignored."""
        return cls(**{name: plain[name] for name in field_names(cls) if name in plain})


def check_namespaces(asked: Namespaces, hostname: str) -> None:
    """Refuse modes that there are not, and what they exclude.

    Raises:
        InvalidArgument: in Docker's words.
    """
    ipc_modes = ("", "none", "private", "shareable", "host", _SHARED)
    for mode, valid, message in (
        (asked.pid, ("", "host", _SHARED), "--pid: invalid PID mode"),
        (asked.uts, ("", "host"), "--uts: invalid UTS mode"),
        (asked.userns, ("", "host"), "--userns: invalid USER mode"),
        (asked.cgroupns, ("", "host", "private"), "--cgroupns: invalid CGROUP mode"),
        (asked.ipc, ipc_modes, f"invalid IPC mode: {asked.ipc}"),
    ):
        if (_SHARED if shared_with(mode) else mode) not in valid or mode == _SHARED:
            raise InvalidArgument(message)
    if asked.uts == "host" and hostname:
        raise InvalidArgument("conflicting options: hostname and the UTS mode")


def shared_with(mode: str) -> str:
    """Return whose namespace ``container:<name|id>`` means, or an empty string."""
    return mode.removeprefix(_SHARED) if mode.startswith(_SHARED) else ""


def resolved(context: Context, asked: Namespaces) -> Namespaces:
    """Return *asked* with whole ids of other containers, and with the defaults filled in.

    Raises:
        NotFound: if there is no such container.
    """

    def whole(mode: str) -> str:
        name = shared_with(mode)
        return f"{_SHARED}{context.rows.get(name).id}" if name else mode

    on_v2 = hierarchies().layout == "v2"
    return replace(
        asked,
        pid=whole(asked.pid),
        ipc=whole(asked.ipc) or "private",
        cgroupns=asked.cgroupns or ("private" if on_v2 else "host"),
    )


class Shared(Struct, frozen=True):
    """What one run takes from other containers; descriptors are lent.

    *paths* maps a kind of namespace to where the runtime finds it; *shm* is a detached mount.
    """

    paths: Mapping[str, str] = field(default_factory=dict)
    shm: int | None = None


def share(context: Context, record: ContainerRecord, stack: ExitStack) -> Shared:
    """Open what *record* shares with other containers, for the time of *stack*.

    Raises:
        FailedPrecondition: in Docker's words, if the other one does not run or does not share.
        NotFound: if it is gone.
    """
    paths: dict[str, str] = {}
    shm = None
    asked = record.spec.namespaces
    if name := shared_with(asked.pid):
        process = _process(context, name, f"cannot join PID of container {name}")
        paths["pid"] = _opened(process, "pid", stack)
    if name := shared_with(asked.ipc):
        words = f"can't join IPC of container {name}"
        target = context.rows.find(name)
        if target is not None and not _shares_ipc(target):
            raise FailedPrecondition(
                f"{words}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
            )
        process = _process(context, name, words)
        paths["ipc"] = _opened(process, "ipc", stack)
        shm = _shm_of(process, stack)
    return Shared(paths, shm)


def _shares_ipc(target: ContainerRecord) -> bool:
    return target.spec.namespaces.ipc not in ("", "private", "none")


def _process(context: Context, container_id: str, words: str) -> ProcessIdentity:
    from .processes import first_process

    target = context.rows.find(container_id)
    if target is None:
        raise NotFound(
            "container", container_id, brief=f"{words}: No such container: {container_id}"
        )
    process = first_process(context, target) if target.state.lives else None
    if process is None or not process.alive:
        raise FailedPrecondition(f"{words}: Container {target.id} is not running")
    return process


def _opened(process: ProcessIdentity, kind: str, stack: ExitStack) -> str:
    try:
        descriptor = os.open(f"/proc/{process.pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError) as error:
        raise FailedPrecondition(f"the {kind} namespace to join has just gone") from error
    stack.callback(os.close, descriptor)
    if not process.alive:  # the number may be another process's by now
        raise FailedPrecondition(f"the {kind} namespace to join has just gone")
    # runc refuses /proc/self; the number is ours as long as the runtime creates
    return f"/proc/{os.getpid()}/fd/{descriptor}"


def _shm_of(process: ProcessIdentity, stack: ExitStack) -> int:
    namespace = os.open(f"/proc/{process.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        from ..linux.mount import clone_tree
        from ..linux.namespaces import in_mount_namespace

        clone = in_mount_namespace(namespace, lambda: clone_tree(SHM))
    finally:
        os.close(namespace)
    stack.callback(os.close, clone)
    return clone


# --- config.json ------------------------------------------------------------------------------


def namespace_entries(
    asked: Namespaces, shared: Mapping[str, str], network: str | None
) -> list[dict[str, str]]:
    """Return ``linux.namespaces``; *network* is a path, or None for the host's."""
    entries: list[dict[str, str]] = [{"type": "mount"}]
    for kind, mode in (("uts", asked.uts), ("pid", asked.pid), ("ipc", asked.ipc)):
        if mode != "host":
            path = shared.get(kind)
            entries.append({"type": kind, "path": path} if path else {"type": kind})
    if network is not None:
        entries.append({"type": "network", "path": network})
    if asked.cgroupns == "private":
        entries.append({"type": "cgroup"})
    return entries


def without_shm(asked: Namespaces) -> bool:
    """Whether ``/dev/shm`` is not mounted at all."""
    return asked.ipc == "none"


def host_namespaces(asked: Namespaces) -> dict[str, object]:
    """Return the keys of ``HostConfig`` that tell *asked*."""
    return {
        "PidMode": asked.pid,
        "IpcMode": asked.ipc,
        "UTSMode": asked.uts,
        "UsernsMode": asked.userns,
        "CgroupnsMode": asked.cgroupns,
    }
