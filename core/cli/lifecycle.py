"""``start``, ``attach``, ``stop``, ``rm`` and the like; and what conmon calls at the end."""

from __future__ import annotations

import sys

from ..errors import AlreadyExists, InvalidArgument, NotFound, StowageError
from .attach import follow, join
from .attach_flags import DETACH_KEYS_FLAG, SIG_PROXY_FLAG, Attachment, detach_keys
from .command import Command
from .context import Context
from .errors import FAILED, report
from .flags import Flag, Parsed, switch
from .run import require_terminal
from .run_options import seconds


def _start(context: Context, parsed: Parsed) -> int:
    containers = context.engine.containers
    interactive = parsed.on("interactive")
    keys = detach_keys(parsed)
    if parsed.on("attach") or interactive:
        if len(parsed.arguments) > 1:
            raise InvalidArgument("you cannot start and attach multiple containers at once")
        record = containers.get(parsed.arguments[0])
        require_terminal(tty=record.spec.tty, interactive=interactive)
        stdin = interactive and record.spec.open_stdin
        return follow(context, record, Attachment(stdin=stdin, keys=keys))
    failed = []
    for name in parsed.arguments:
        try:
            containers.start(containers.get(name).id)
        except StowageError as error:
            sys.stdout.flush()
            report(error, debug=context.debug)
            failed.append(name)
        else:
            context.print(name)
    if failed:
        print(f"Error: failed to start containers: {', '.join(failed)}", file=sys.stderr)
    return FAILED if failed else 0


def _attach(context: Context, parsed: Parsed) -> int:
    keys = detach_keys(parsed)
    record = context.engine.containers.get(parsed.arguments[0])
    stdin = record.spec.open_stdin and not parsed.on("no-stdin")
    require_terminal(tty=record.spec.tty, interactive=stdin)
    proxy = parsed.on("sig-proxy")
    return join(context, record, Attachment(stdin=stdin, proxy=proxy, keys=keys))


def _rename(context: Context, parsed: Parsed) -> int:
    reference, name = parsed.arguments
    try:
        context.engine.containers.rename(reference, name)
    except StowageError as error:
        if isinstance(error, AlreadyExists):
            error.brief = f"Error when allocating new name: {error.brief}"
        report(error, debug=context.debug)
        print(f"Error: failed to rename container named {reference}", file=sys.stderr)
        return FAILED
    return 0


def _stop(context: Context, parsed: Parsed) -> int:
    containers = context.engine.containers
    timeout, signal_name = parsed.number("time"), parsed.text("signal") or ""

    def stop(name: str) -> None:
        containers.stop(name, timeout, signal=signal_name)

    return context.each_at_once(parsed.arguments, stop)


def _restart(context: Context, parsed: Parsed) -> int:
    containers = context.engine.containers
    timeout, signal_name = parsed.number("time"), parsed.text("signal") or ""

    def restart(name: str) -> None:
        container_id = containers.get(name).id
        try:
            containers.restart(container_id, timeout, signal=signal_name)
        except StowageError as error:
            error.brief = f"Cannot restart container {name}: {error.brief}"
            raise

    return context.each_at_once(parsed.arguments, restart)


def _pause(context: Context, parsed: Parsed) -> int:
    containers = context.engine.containers

    def pause(name: str) -> None:
        containers.pause(name)

    return context.each_at_once(parsed.arguments, pause)


def _unpause(context: Context, parsed: Parsed) -> int:
    containers = context.engine.containers

    def unpause(name: str) -> None:
        containers.unpause(name)

    return context.each_at_once(parsed.arguments, unpause)


def _kill(context: Context, parsed: Parsed) -> int:
    containers = context.engine.containers
    signal_name = parsed.text("signal") or "KILL"

    def kill(name: str) -> None:
        try:
            containers.kill(name, signal_name)
        except NotFound as error:
            error.brief = f"Cannot kill container: {name}: {error.brief}"
            raise

    return context.each_at_once(parsed.arguments, kill)


def _remove(context: Context, parsed: Parsed) -> int:
    containers = context.engine.containers
    force, volumes = parsed.on("force"), parsed.on("volumes")

    def remove(name: str) -> str:
        try:
            containers.remove(name, force=force, volumes=volumes)
        except NotFound as error:
            if not force:
                raise
            report(error)  # Docker's rm -f says so, and that is all
            return ""
        return name

    return context.each_at_once(parsed.arguments, remove)


def _wait(context: Context, parsed: Parsed) -> int:
    containers = context.engine.containers
    return context.each(parsed.arguments, lambda name: str(containers.wait(name)))


def _finish(context: Context, parsed: Parsed) -> None:
    container_id, run = parsed.arguments
    context.engine.containers.finish(container_id, run)


_STOP_FLAGS = (
    Flag("signal", "Signal to send to the container", "s"),
    Flag(
        "time",
        "Seconds to wait for stop before killing it (default: the container's)",
        "t",
        value="int",
        parse=seconds,
    ),
)

COMMANDS = {
    "container start": Command(
        "[OPTIONS] CONTAINER [CONTAINER...]",
        _start,
        (
            switch("attach", "Attach STDOUT/STDERR and forward signals", "a"),
            DETACH_KEYS_FLAG,
            switch("interactive", "Attach container's STDIN", "i"),
        ),
        needs_root=True,
    ),
    "container attach": Command(
        "[OPTIONS] CONTAINER",
        _attach,
        (
            switch("no-stdin", "Do not attach STDIN"),
            DETACH_KEYS_FLAG,
            SIG_PROXY_FLAG,
        ),
        needs_root=True,
    ),
    "container rename": Command("CONTAINER NEW_NAME", _rename),
    "container stop": Command(
        "[OPTIONS] CONTAINER [CONTAINER...]",
        _stop,
        _STOP_FLAGS,
        needs_root=True,
    ),
    "container restart": Command(
        "[OPTIONS] CONTAINER [CONTAINER...]", _restart, _STOP_FLAGS, needs_root=True
    ),
    "container pause": Command("CONTAINER [CONTAINER...]", _pause, needs_root=True),
    "container unpause": Command("CONTAINER [CONTAINER...]", _unpause, needs_root=True),
    "container kill": Command(
        "[OPTIONS] CONTAINER [CONTAINER...]",
        _kill,
        (Flag("signal", "Signal to send to the container", "s", default="KILL"),),
        needs_root=True,
    ),
    "container rm": Command(
        "[OPTIONS] CONTAINER [CONTAINER...]",
        _remove,
        (
            switch("force", "Force the removal of a running container (uses SIGKILL)", "f"),
            switch("volumes", "Remove anonymous volumes associated with the container", "v"),
        ),
    ),
    "container wait": Command("CONTAINER [CONTAINER...]", _wait),
    "container finish": Command("CONTAINER RUN", _finish, bare=True),
}
