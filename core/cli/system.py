"""``check``, ``gc`` and ``system config``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from ..config_keys import KEYS, Disposition
from ..errors import DataLoss
from . import human
from .command import Command
from .context import Context
from .errors import FAILED
from .flags import Parsed, switch
from .image import FORMAT
from .table import Listing
from .template_functions import printed

if TYPE_CHECKING:
    from ..engine import Engine
    from ..model import SnapshotInfo

# --- check and gc -------------------------------------------------------------------------------


def _check(context: Context, parsed: Parsed) -> int:
    """Print each finding with its remedy; the code tells whether there are any."""
    engine = context.engine
    found = [
        (str(finding), finding.remedy)
        for finding in engine.layers.check(
            full=not parsed.on("quick"), is_referenced=referenced(engine)
        )
    ]
    found += _images_without_layers(engine)
    found += [(str(finding), finding.remedy) for finding in engine.volumes.check()]
    for text, remedy in found:
        context.print(text)
        if remedy:
            context.print(f"  remedy: {remedy}")
    if not parsed.on("quiet"):
        count = sum(1 for _ in engine.layers.walk())
        read = "records" if parsed.on("quick") else "records and every file"
        verdict = f"{len(found)} problems" if len(found) != 1 else "1 problem"
        context.say(f"Checked {count} layers ({read}): {verdict if found else 'clean'}")
    return FAILED if found else 0


def _images_without_layers(engine: Engine) -> Sequence[tuple[str, str]]:
    found = []
    for image in engine.images.list(intermediate=True):
        try:
            engine.images.driver_of(image)
        except DataLoss as error:
            found.append((f"image-incomplete: {error.brief}", error.resolution or ""))
    return found


def referenced(engine: Engine) -> Callable[[SnapshotInfo], bool]:
    """Return what says whether an image refers to a snapshot.

    The records are read when it is first asked, which is when the collector holds its lock.
    """
    names: set[str] | None = None

    def test(info: SnapshotInfo) -> bool:
        nonlocal names
        if names is None:
            names = engine.images.referenced()
        return info.name in names

    return test


def _gc(context: Context, parsed: Parsed) -> int:
    engine = context.engine
    done = engine.layers.gc(referenced(engine))
    for info in done.removed:
        context.print(f"Deleted: {info.driver} {info.name}")
    for name in engine.volumes.sweep():
        context.print(f"Deleted: volume {name}")
    for left in done.left:
        context.warn(f"not deleted: {left}")
    context.print(f"Total reclaimed space: {human.size(done.size_bytes, 4)}")
    return FAILED if done.left else 0


# --- config -------------------------------------------------------------------------------------

CONFIG = Listing(
    {
        "Name": "DIRECTIVE",
        "Value": "VALUE",
        "Origin": "FROM",
        "Default": "DEFAULT",
        "Flag": "FLAG",
        "Variable": "VARIABLE",
        "Meaning": "MEANING",
    },
    ("Name", "Value", "Origin", "Meaning"),
    quiet="Name",
)


def _config(context: Context, parsed: Parsed) -> None:
    config = context.config
    told = (Disposition.HONOURED, Disposition.KEPT)
    rows = [
        {
            "Name": key.name,
            "Value": _value(getattr(config, key.field)),
            "Origin": str(config.origin(key.name)),
            "Default": _value(key.default),
            "Flag": f"--{key.flag_name}",
            "Variable": key.variable,
            "Meaning": key.meaning,
        }
        for key in KEYS.values()
        if key.disposition in told and not key.alias_of
    ]
    context.print(CONFIG.show(rows, format=parsed.text("format")))


def _value(value: object) -> str:
    if value is None:
        return "unset"
    if isinstance(value, tuple):
        return ",".join(str(item) for item in value) or "unset"
    if isinstance(value, Mapping):
        return ",".join(f"{name}={item}" for name, item in value.items()) or "unset"
    return printed(value)


COMMANDS = {
    "system check": Command(
        "[OPTIONS]",
        _check,
        (
            switch("quick", "Compare the records only, read no file"),
            switch("quiet", "Print findings only", "q"),
        ),
    ),
    "system gc": Command("", _gc),
    "system config": Command("[OPTIONS]", _config, (FORMAT,)),
}
