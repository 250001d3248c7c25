"""``container``, ``image``, ``volume`` and ``system prune``: what nobody uses goes, if agreed."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct, field

from ..errors import Busy, FailedPrecondition, InvalidArgument, NotFound
from . import human
from .command import Command
from .context import Context
from .filters import Pair, label_matches, pairs_of, parse_filter
from .flags import Parsed, many, switch

if TYPE_CHECKING:
    from ..engine import Engine
    from ..images.rows import Image

_FILTERS = ("label", "label!", "until")


class Pruned(Struct):
    """What was removed: Docker's heading -> names; and the bytes that it freed."""

    names: dict[str, list[str]] = field(default_factory=dict)
    size_bytes: int = 0

    def note(self, heading: str, name: str) -> None:
        self.names.setdefault(heading, []).append(name)

    def text(self) -> str:
        """Return what Docker prints of it, without a last newline."""
        lines = []
        for heading, names in self.names.items():
            lines += [f"Deleted {heading}:", *names, ""]
        return "\n".join([*lines, f"Total reclaimed space: {human.size(self.size_bytes)}"])


class Chosen(Struct, frozen=True):
    """What ``--filter`` of a prune lets through: Docker's ``until``, ``label`` and ``label!``."""

    until_ns: int | None
    labels: Sequence[Pair]

    def accepts(self, created_ns: int, labels: Mapping[str, str]) -> bool:
        if self.until_ns is not None and created_ns > self.until_ns:
            return False
        return all(label_matches(labels, value) is (key == "label") for key, value in self.labels)


def chosen(parsed: Parsed, *, known: Sequence[str] = _FILTERS) -> Chosen:
    """Read ``--filter``.

    Raises:
        InvalidArgument: if a key or a time is wrong.
    """
    pairs = pairs_of(parsed, known)
    untils = [value for key, value in pairs if key == "until"]
    if len(untils) > 1:
        raise InvalidArgument("more than one until filter specified")
    until = human.parse_when(untils[0]) if untils else None
    return Chosen(until, [pair for pair in pairs if pair[0].startswith("label")])


def confirmed(parsed: Parsed, warning: str) -> bool:
    """Ask before anything is removed, unless ``--force``; no answer means no."""
    if parsed.on("force"):
        return True
    sys.stdout.write(f"WARNING! {warning}\nAre you sure you want to continue? [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


# --- what goes ----------------------------------------------------------------------------------


def prune_images(engine: Engine, which: Chosen, done: Pruned, *, every: bool) -> None:
    """Remove images without a name, or with *every* all that no container uses."""
    used = {record.image_id for record in engine.containers.list()}
    before = _images_bytes(engine)
    for image in engine.images.list([] if every else ["dangling=true"]):
        if image.id in used:
            continue
        if not which.accepts(image.created_ns, image.config.config.labels):
            continue
        _remove_image(engine, image, done)
    done.size_bytes += max(before - _images_bytes(engine), 0)


def _remove_image(engine: Engine, image: Image, done: Pruned) -> None:
    try:
        for reference in [*map(str, image.references)] or [image.id]:
            for removed in engine.images.remove(reference):
                word = "untagged" if removed.untagged else "deleted"
                done.note("Images", f"{word}: {removed.untagged or removed.deleted}")
    except (Busy, FailedPrecondition, NotFound):
        pass  # somebody has begun to use it, or was quicker


def _images_bytes(engine: Engine) -> int:
    """Every layer of an image counts once."""
    sizes = {}
    names = {name for image in engine.images.list(intermediate=True) for name in image.chain}
    for info in engine.layers.df().layers:
        if info.name in names and info.usage is not None:
            sizes[info.driver, info.name] = info.usage.size_bytes
    return sum(sizes.values())


def prune_containers(engine: Engine, which: Chosen, done: Pruned) -> None:
    """Remove the containers that do not run."""
    for record in engine.containers.list():
        if record.state.value not in ("created", "exited", "dead"):
            continue
        if not which.accepts(record.created_ns, record.spec.labels):
            continue
        try:
            used = engine.layers.usage(record.snapshot, driver=record.driver).size_bytes
            engine.containers.remove(record.id)
        except (Busy, FailedPrecondition, NotFound):
            continue
        done.note("Containers", record.id)
        done.size_bytes += used


def prune_volumes(engine: Engine, which: Chosen, done: Pruned) -> None:
    """Remove the volumes that no container uses."""
    for pruned in engine.volumes.prune(lambda one: which.accepts(one.created_ns, one.labels)):
        done.note("Volumes", pruned.name)
        done.size_bytes += pruned.size_bytes


# --- commands -----------------------------------------------------------------------------------

_DANGLING = "This will remove all dangling images."
_VOLUMES = "This will remove all local volumes not used by at least one container."
_UNUSED = "This will remove all images without at least one container associated to them."


def _image_prune(context: Context, parsed: Parsed) -> None:
    which, every = chosen(parsed), parsed.on("all")
    if not confirmed(parsed, _UNUSED if every else _DANGLING):
        return
    done = Pruned()
    prune_images(context.engine, which, done, every=every)
    context.print(done.text())


def _volume_prune(context: Context, parsed: Parsed) -> None:
    which = chosen(parsed, known=("label", "label!"))
    if not confirmed(parsed, _VOLUMES):
        return
    done = Pruned()
    _ = context.engine.containers  # those that were being made when somebody was killed use none
    prune_volumes(context.engine, which, done)
    context.print(done.text())


def _container_prune(context: Context, parsed: Parsed) -> None:
    which = chosen(parsed)
    if not confirmed(parsed, "This will remove all stopped containers."):
        return
    done = Pruned()
    prune_containers(context.engine, which, done)
    context.print(done.text())


def _system_prune(context: Context, parsed: Parsed) -> None:
    which, every = chosen(parsed), parsed.on("all")
    volumes = parsed.on("volumes")
    if volumes and which.until_ns is not None:
        raise InvalidArgument('The "until" filter is not supported with "--volumes"')
    items = [
        "all stopped containers",
        *(["all volumes not used by at least one container"] if volumes else []),
        "all images without at least one container associated to them"
        if every
        else "all dangling images",
        "all layers that nothing refers to",
    ]
    warning = "\n".join(["This will remove:", *(f"  - {item}" for item in items), ""])
    if not confirmed(parsed, warning):
        return
    done = Pruned()
    prune_containers(context.engine, which, done)
    if volumes:
        prune_volumes(context.engine, which, done)
    prune_images(context.engine, which, done, every=every)
    done.size_bytes += context.engine.images.collect().size_bytes
    context.print(done.text())


FORCE = switch("force", "Do not prompt for confirmation", "f")
FILTER = many(
    "filter", 'Provide filter values (e.g. "label=<key>=<value>")', value="filter",
    parse=parse_filter,
)  # fmt: skip

COMMANDS = {
    "container prune": Command("[OPTIONS]", _container_prune, (FILTER, FORCE)),
    "image prune": Command(
        "[OPTIONS]",
        _image_prune,
        (switch("all", "Remove all unused images, not just dangling ones", "a"), FILTER, FORCE),
    ),
    "volume prune": Command("[OPTIONS]", _volume_prune, (FILTER, FORCE)),
    "system prune": Command(
        "[OPTIONS]",
        _system_prune,
        (
            switch("all", "Remove all unused images not just dangling ones", "a"),
            FILTER,
            FORCE,
            switch("volumes", "Prune volumes"),
        ),
    ),
}
