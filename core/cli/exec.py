"""``exec``: one more process in a running container."""

from __future__ import annotations

import os

from ..containers.exec import ExecSpec
from ..containers.streams import Streams
from .attach import read_escape_sequence
from .attach_flags import DETACH_KEYS_FLAG, detach_keys
from .command import Command
from .context import Context
from .environment import read_environment
from .flags import Flag, Parsed, switch
from .run import require_terminal
from .run_options import ENVIRONMENT


def _exec(context: Context, parsed: Parsed) -> int:
    tty, interactive = parsed.on("tty"), parsed.on("interactive")
    detach, keys = parsed.on("detach"), detach_keys(parsed)
    if not detach:
        require_terminal(tty=tty, interactive=interactive)
    env = read_environment(parsed.texts("env-file"), parsed.texts("env"), os.environ)
    reference, *command = parsed.arguments
    spec = ExecSpec(
        command=tuple(command),
        env=env,
        working_dir=parsed.text("workdir") or "",
        user=parsed.text("user") or "",
        tty=tty,
        detach=detach,
        privileged=parsed.on("privileged"),
    )
    streams = Streams(0 if interactive else None, 1, 2)
    done = context.engine.containers.exec(reference, spec, streams, keys=keys)
    if done.detached:
        raise read_escape_sequence()
    return done.exit_code


COMMANDS = {
    "container exec": Command(
        "[OPTIONS] CONTAINER COMMAND [ARG...]",
        _exec,
        (
            *ENVIRONMENT,
            switch("detach", "Detached mode: run command in the background", "d"),
            DETACH_KEYS_FLAG,
            switch("interactive", "Keep STDIN open even if not attached", "i"),
            switch("privileged", "Give extended privileges to the command"),
            switch("tty", "Allocate a pseudo-TTY", "t"),
            Flag("user", "Username or UID (format: <name|uid>[:<group|gid>])", "u"),
            Flag("workdir", "Working directory inside the container", "w"),
        ),
        interspersed=False,
        needs_root=True,
    ),
}
