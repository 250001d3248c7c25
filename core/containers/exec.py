"""A further process in a running container (``exec``), by the runtime's own verb.

The runtime joins the namespaces and the cgroup. Its process gets pipes or a terminal of ours,
never a descriptor of the caller's: who has the caller's terminal can type on it (TIOCSTI).
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from msgspec import Struct
from msgspec.structs import replace

from ..effects import effect
from ..errors import CommandFailed, FailedPrecondition, InvalidArgument, NotSupported
from ..linux.process import ProcessIdentity
from ..records import as_dict
from .accounts import resolve_user, with_groups
from .bundle import write_named
from .context import Context
from .detach_keys import parse_detach_keys
from .execsession import ExecFiles, ExecSession
from .freezing import require_settled
from .model import ContainerRecord, ContainerState
from .processes import first_process
from .pump import terminal_size
from .runtime import read_log_error, start_failure
from .spec import process_config, process_env
from .streams import Collected, Streams
from .utf8 import check_utf8
from .volume_use import seen_mounts
from .workdir import resolve_workdir

#: What ``run`` gives for a failure that is not the command's, and what ``exec`` does.
_RUN_FAILED, _NOT_STARTED = 125, 126


class ExecSpec(Struct, frozen=True):
    """What ``exec`` can ask; what is empty is as in the container itself."""

    command: tuple[str, ...]
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    tty: bool = False
    detach: bool = False
    privileged: bool = False
    """All capabilities that we can hand out."""


def execute(
    context: Context,
    record: ContainerRecord,
    spec: ExecSpec,
    streams: Streams,
    *,
    timeout_seconds: float | None = None,
    keys: bytes | None = None,
) -> Collected:
    """Run a command in a running container and wait for it, unless it is to be detached.

    *keys* typed on a terminal leave it running (default: Docker's).

    Raises:
        FailedPrecondition: "Container … is not running".
        CommandFailed: if it could not be started (126 or 127, as Docker says).
    """
    process = require_running(context, record)
    try:
        runtime = context.runtime_of(record)
    except NotSupported as missing:
        raise CommandFailed(
            missing.brief, _NOT_STARTED, details=missing.details, resolution=missing.resolution
        ) from missing
    with _files(context, record) as files:
        try:
            check_utf8(as_dict(spec))
            config = _process(context, record, spec, process, streams)
        except InvalidArgument as wrong:
            raise CommandFailed(
                wrong.brief, _NOT_STARTED, details=wrong.details, resolution=wrong.resolution
            ) from wrong
        with effect("exec.write_config", path=files.config):
            write_named(files.config, json.dumps(config))
        words = " ".join(spec.command)
        for action in ("exec_create", "exec_start"):
            context.rows.record_event(record, f"{action}: {words}", execID=files.config.stem)
        session = ExecSession(
            runtime, record.id, files, context.cgroup(record),
            tty=spec.tty, keys=parse_detach_keys("") if keys is None else keys,
        )  # fmt: skip
        context.root.metastore.rest()
        done = session.leave() if spec.detach else session.follow(streams, timeout_seconds)
        error = read_log_error(files.log) if done.exit_code and not done.timed_out else None
        if error is not None:
            raise _failure(error, spec.command[0])
        if not spec.detach and not done.detached:
            context.rows.record_event(
                record, "exec_die", execID=files.config.stem, exitCode=str(done.exit_code)
            )
        return done


def _failure(message: str, command: str) -> CommandFailed:
    failure = start_failure(message, command, "OCI runtime exec failed: exec failed: ")
    if failure.exit_code == _RUN_FAILED:
        return CommandFailed(failure.brief, _NOT_STARTED)
    return failure


def require_running(context: Context, record: ContainerRecord) -> ProcessIdentity:
    """Return the container's first process.

    Raises:
        FailedPrecondition: in Docker's words, if there is none, it stands still or restarts.
    """
    if record.state is ContainerState.PAUSED:
        raise FailedPrecondition(
            f"Container {record.name} is paused, unpause the container before exec"
        )
    require_settled(record)
    process = first_process(context, record)
    if not record.state.lives or process is None or not process.alive:
        raise FailedPrecondition(f"Container {record.id} is not running")
    return process


def _process(
    context: Context,
    record: ContainerRecord,
    spec: ExecSpec,
    process: ProcessIdentity,
    streams: Streams,
) -> dict[str, object]:
    try:
        root = os.open(f"/proc/{process.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):  # it is ending just now
        raise FailedPrecondition(f"Container {record.id} is not running") from None
    try:
        account = resolve_user(root, spec.user or record.spec.user)
        account = with_groups(root, account, record.spec.security.group_add)
        mounts = seen_mounts(context, record.spec)
        asked = spec.working_dir or record.spec.working_dir or "/"
        workdir = resolve_workdir(root, asked, mounts)
    finally:
        os.close(root)
    env = process_env(
        (*record.spec.env, *spec.env), account, hostname=record.hostname, tty=spec.tty
    )
    config = process_config(
        spec.command,
        env,
        workdir,
        account,
        tty=spec.tty,
        resources=record.spec.resources,
        security=replace(record.spec.security, privileged=True)
        if spec.privileged
        else record.spec.security,
    )
    size = terminal_size(streams.stdin, streams.stdout) if spec.tty else None
    if size is not None:
        config["consoleSize"] = {"height": size[0], "width": size[1]}
    return config


@contextmanager
def _files(context: Context, record: ContainerRecord) -> Iterator[ExecFiles]:
    bundle = context.files(record.id).bundle
    name = secrets.token_hex(32)
    files = ExecFiles(*(bundle / f"{name}.{kind}" for kind in ("json", "pid", "log")))
    try:
        yield files
    finally:
        with effect("exec.remove_files", path=bundle):
            for file in (files.config, files.pid, files.log):
                file.unlink(missing_ok=True)
