"""A run that its caller waits for: created, run by the runtime itself, recorded, in one go.

What a kill at any instant leaves is named by the row, which is written before everything else:
the next opening of the root kills the cgroup and takes away the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from msgspec import Struct

from ..errors import CommandFailed, StowageError
from ..linux.oom import OomWatch
from ..linux.process import identity
from .context import Context
from .creating import create
from .direct import Outcome, run_directly
from .finishing import KILLED, remove_ended
from .joining import Joined
from .launching import clean_up, launch
from .model import ContainerRecord, ContainerSpec, ContainerState, RuntimeFacts
from .runtime import start_failure
from .streams import Streams


class RunResult(Struct, frozen=True):
    """How a container's run ended; *stdout* and *stderr* are what was collected.

    *exit_code* is the process's own, or 128+n if signal n ended it (137 after a time-out).
    """

    container_id: str
    exit_code: int
    stdout: bytes
    stderr: bytes
    timed_out: bool = False
    oom_killed: bool = False
    """Whether memory ran out."""


def run(
    context: Context,
    spec: ContainerSpec,
    streams: Streams,
    *,
    timeout_seconds: float | None = None,
    created: Callable[[ContainerRecord], None] = lambda record: None,
) -> RunResult:
    """Create a container, run it and wait for its end.

    *created* is told of the container before it runs.

    Raises:
        CommandFailed: if its process could not be started.
        StowageError: if it could not be created; then nothing is left.
    """
    runtime = context.default_runtime
    facts = RuntimeFacts(
        monitor="direct", monitor_process=identity(), runtime=runtime.path, starting=True
    )
    record = create(context, spec, facts, settled=False)
    started_ns = 0

    def started(joined: Joined) -> None:
        nonlocal record, started_ns
        started_ns = time.time_ns()
        record = context.rows.update(
            record, state=ContainerState.RUNNING, events=("create", "start"),
            prepared=True, starting=False, started_ns=started_ns,
        )  # fmt: skip
        joined.require_target()
        context.root.metastore.rest()

    try:
        created(record)
        with launch(context, record, runtime) as ready, ExitStack() as watches:
            watch = None
            if record.spec.resources.memory_bytes:
                watch = watches.enter_context(OomWatch(ready.cgroup))
            outcome = run_directly(
                runtime,
                ready.files,
                ready.plan,
                streams,
                cgroup=ready.cgroup,
                timeout_seconds=timeout_seconds,
                started=partial(started, ready.joined),
            )
            oom_killed = watch is not None and watch.killed(outcome.collected.exit_code)
    except BaseException as error:
        try:
            _give_up(context, record, error)
        except BaseException:
            _leave_to_recovery(context, record, None)
            raise
        raise
    return _end(context, record, outcome, oom_killed=oom_killed)


def _end(
    context: Context, record: ContainerRecord, outcome: Outcome, *, oom_killed: bool
) -> RunResult:
    done = outcome.collected
    code = KILLED if done.timed_out else done.exit_code
    failure = None
    if outcome.error is not None:
        what = "OCI runtime create failed: "
        command = record.spec.arguments[0]
        failure = start_failure(outcome.error, command, what)
        code = failure.exit_code
    try:
        with context.locked(record.id, "is recording its end"):
            if context.rows.find(record.id) is not None:  # else removed by force meanwhile
                clean_up(context, record)
                _record_end(context, record, code, failure, oom_killed=oom_killed)
    except BaseException:
        _leave_to_recovery(context, record, code)
        raise
    if failure is not None:
        raise failure
    return RunResult(record.id, code, done.stdout, done.stderr, done.timed_out, oom_killed)


def _leave_to_recovery(context: Context, record: ContainerRecord, code: int | None) -> None:
    """Let the next opening of the root record the end; as long as we are named, it waits for us."""
    if code is not None and context.rows.find(record.id) is not None:
        try:
            context.files(record.id).leave_exit_code(code)
        except OSError:
            pass  # then it is recorded as one that nobody saw end
    context.rows.disown(record.id, record.runtime.monitor_process)


def _record_end(
    context: Context,
    record: ContainerRecord,
    code: int,
    failure: StowageError | None,
    *,
    oom_killed: bool,
) -> None:
    never_ran = failure is not None
    removing = record.spec.auto_remove
    state = ContainerState.CREATED if never_ran else ContainerState.EXITED
    record = context.rows.update(
        record,
        state=ContainerState.REMOVING if removing else state,
        events=() if never_ran else ("oom", "die") if oom_killed else ("die",),
        exit_code=code,
        oom_killed=oom_killed,
        finished_ns=0 if never_ran else time.time_ns(),
        error=failure.brief if failure else "",
        monitor="",
        monitor_process=None,
        starting=False,
    )
    if removing:
        remove_ended(context, record)


def _give_up(context: Context, record: ContainerRecord, error: BaseException) -> None:
    """Undo a run that failed before its process ran; the container goes if it was to go."""
    with context.locked(record.id, "is giving it up"):
        now = context.rows.find(record.id)
        if now is None:
            return
        clean_up(context, now)
        code = error.exit_code if isinstance(error, CommandFailed) else 128
        brief = error.brief if isinstance(error, StowageError) else str(error)
        now = context.rows.update(
            now, state=ContainerState.CREATED, prepared=True, starting=False,
            monitor="", monitor_process=None, exit_code=code, error=brief,
        )  # fmt: skip
        if now.spec.auto_remove:
            remove_ended(context, now)
