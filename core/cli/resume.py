"""``system resume``, after a crash or a reboot, and the systemd unit that calls it."""

from __future__ import annotations

import sys
from pathlib import Path
from shlex import quote

from .command import Command
from .context import Context
from .errors import FAILED, report
from .flags import Parsed, switch


def _resume(context: Context, parsed: Parsed) -> int:
    """Opening the root has recovered what was unfinished; this finishes what goes on behind, and
    starts what is to run after the machine has started."""
    engine = context.engine
    engine.layers.recover()
    engine.containers.recover()
    failed = 0
    for record, error in engine.containers.resume():
        if error is None:
            context.print(record.name)
        else:
            error.brief = f"container {record.name} cannot be started: {error.brief}"
            report(error, debug=context.debug)
            failed += 1
    left = engine.layers.drain()
    running = sum(record.state.lives for record in engine.containers.list())
    context.say(
        f"Recovered {engine.layout.data_root}: {running} containers running"
        + (f", {left} removals left in the trash" if left else "")
    )
    return FAILED if failed else 0


def _unit(context: Context, parsed: Parsed) -> None:
    """Print the systemd unit that resumes this root after each start of the machine, or the one
    of the fork server."""
    config = context.config
    words = [
        sys.executable, "-P", "-m", "stowage",
        "--data-root", str(config.data_root), "--exec-root", str(config.exec_root),
    ]  # fmt: skip
    command = " ".join(map(quote, words)).replace("%", "%%").replace("$", "$$")
    name = "fork-server.service" if parsed.on("fork-server") else "stowage.service"
    text = Path(__file__).with_name(name).read_text()
    context.print(text.replace("@STOWAGE@", command).rstrip())


COMMANDS = {
    "system resume": Command("", _resume),
    "system unit": Command(
        "[OPTIONS]", _unit, (switch("fork-server", "Print the unit of the fork server instead"),)
    ),
}
