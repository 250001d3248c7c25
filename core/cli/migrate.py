"""``migrate``: move images and layers to another storage driver."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import human
from .command import Command
from .context import Context
from .flags import Flag, Parsed, UsageError, switch

if TYPE_CHECKING:
    from ..images.migrating import Chain, Migration, Moved
    from ..layers.transfer import Step


def _migrate(context: Context, parsed: Parsed) -> int:
    target, every = parsed.text("to"), parsed.on("all")
    if target is None:
        raise UsageError("--to names the storage driver to migrate to")
    if every == bool(parsed.arguments):
        raise UsageError("give either images and layers or --all")
    context.require_root()
    plan = context.engine.migration(target, parsed.arguments, everything=every)
    chains = {chain.name: chain for chain in plan.chains}
    keep = parsed.on("keep")
    return context.each(chains, lambda name: _one(context, plan, chains[name], keep=keep))


def _one(context: Context, plan: Migration, chain: Chain, *, keep: bool) -> str:
    progress = _Progress(context, chain.name)
    try:
        done = plan.move(chain, keep=keep, told=progress.tell)
    finally:
        progress.end()
    return "\n".join(map(_told, done)) or f"{chain.name}: nothing to move"


def _told(moved: Moved) -> str:
    """Say in one line what became of a chain on one driver."""
    text = f"{moved.name}: {moved.source} -> {moved.target}, {_layers(moved.copied)} copied"
    text += f", {_layers(moved.removed)} removed from {moved.source}"
    if moved.containers:
        text += f", {len(moved.kept)} kept there for {', '.join(moved.containers)}"
    elif moved.kept:
        text += f", {len(moved.kept)} kept there"
    return text


def _layers(names: Sequence[str]) -> str:
    count = len(names)
    return f"{count} layer{'' if count == 1 else 's'}"


class _Progress:
    """What is done now, on stderr: one line that changes on a terminal, else a line per step."""

    def __init__(self, context: Context, name: str) -> None:
        self._context = context
        self._name = name
        self._live = sys.stderr.isatty()
        self._shown = False

    def tell(self, step: Step) -> None:
        what = f"{step.doing} {human.short_id(step.layer)} ({step.number}/{step.total})"
        if not self._live:
            self._context.say(f"{self._name}: {what}")
            return
        sys.stderr.write(f"\r\x1b[K{self._name}: {what}")
        sys.stderr.flush()
        self._shown = True

    def end(self) -> None:
        """Take the changing line away."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


COMMANDS = {
    "layer migrate": Command(
        "[OPTIONS] [IMAGE|LAYER...]",
        _migrate,
        (
            switch("all", "Move every image and layer of the root", "a"),
            switch("keep", "Leave the source as it is"),
            Flag("to", "Storage driver to move to", value="driver"),
        ),
    ),
}
