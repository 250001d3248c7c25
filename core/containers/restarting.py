"""Starting a container again: by its user, by its policy, after a reboot. No daemon waits.

Between an end and the restart that follows, a small process of its own sleeps and then becomes
the exit command that finishes the run. It is the container's *monitor_process* meanwhile: who
stops or removes the container kills it, and if something else does, the next opening of the root
finds the container without an owner and lets another one wait.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ..effects import effect
from ..errors import StowageError, Unavailable
from ..linux.process import ProcessIdentity, boot_id, identity, send_signal
from .context import Context
from .model import ContainerRecord, ContainerState
from .restarts import resumes
from .runtime import helper_environment

_WAITER = Path(__file__).with_name("waiter.py")


def wait_for_restart(context: Context, record: ContainerRecord) -> ContainerRecord:
    """Let a process wait until a *restarting* container is due, and record it as its owner.

    The caller holds the container's lock. A process that waited before finds another owner.

    Raises:
        Unavailable: if there can be no such process now; the next opening of the root tries again.
    """
    delay_seconds = max(0.0, (record.runtime.restarts.due_ns - time.time_ns()) / 1e9)
    command = context.exit_command(record.id, record.runtime.run)
    words = [sys.executable, "-I", "-S", str(_WAITER), f"{delay_seconds:.3f}", *command]
    try:
        with effect("restart.wait", id=record.id, seconds=delay_seconds):
            process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=helper_environment(),
                cwd="/",
            )
        with process:
            assert process.stdin is not None
            assert process.stdout is not None
            waiter = identity(int(process.stdout.readline()))
            record = context.rows.update(record, monitor_process=waiter)
            process.stdin.write(b"g")
    except (OSError, ValueError) as error:
        raise Unavailable(
            f"container {record.short_id} cannot be restarted now", details=str(error)
        ) from error
    return record


def cancel_restart(record: ContainerRecord) -> None:
    """End the process that waits to restart a container; the caller holds its lock. Idempotent."""
    if record.state is ContainerState.RESTARTING and record.runtime.monitor_process is not None:
        send_signal(record.runtime.monitor_process, signal.SIGKILL)


def is_waiter(process: ProcessIdentity | None) -> bool:
    """Whether this very process has waited to restart a container."""
    return process is not None and process.pid == os.getpid() and process.alive


def restart(
    context: Context,
    record: ContainerRecord,
    timeout_seconds: float | None = None,
    signal_name: str = "",
) -> ContainerRecord:
    """Stop a container if it runs, then start it; raises as both of them."""
    from .starting import start
    from .stopping import stop

    if record.state.lives:
        stop(context, record, timeout_seconds, signal_name, kept_by=identity())
    started, _ = start(context, record.id)
    context.rows.record_event(started, "restart")
    return started


def resume(context: Context) -> Sequence[tuple[ContainerRecord, StowageError | None]]:
    """Start what is to run after the machine has started; oldest first.

    Those are the containers that ended with an earlier boot, as their policies say. Returns each
    with the error for which it could not be started. Idempotent.
    """
    from .starting import start

    done: list[tuple[ContainerRecord, StowageError | None]] = []
    for record in reversed(context.rows.all()):
        facts = record.runtime
        ended = record.state is ContainerState.EXITED
        if not ended or not resumes(
            record.spec.restart, facts.restarts, exit_code=facts.exit_code, boot_id=boot_id()
        ):
            continue
        try:
            record, _ = start(context, record.id)
        except StowageError as error:
            done.append((record, error))
        else:
            done.append((record, None))
    return done
