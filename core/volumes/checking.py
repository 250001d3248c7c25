"""What of the volumes on disk and of their rows does not fit together.

Rows and directories part only when one of them was lost (a loss of power, a restored backup): a
kill leaves none of it. A directory without a row may hold what nobody can make again, so one with
content is reported and taken over by who makes a volume of its name, and never deleted.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ..layers.check import CheckFinding, CheckKind
from ..store.layout import RootLayout
from ..store.metastore import Metastore
from . import rows


def findings(layout: RootLayout, metastore: Metastore) -> Iterator[CheckFinding]:
    """Yield what is wrong; each suspicion is looked at again, for others are at work."""
    for row in rows.ready(metastore.read()):
        path = layout.volume_data(row.name)
        if not path.is_dir() and rows.find(metastore.read(), row.name) == row:
            yield CheckFinding(
                CheckKind.VOLUME_MISSING,
                row.name,
                None,
                f"its directory {path} is not there",
                f"restore it, or 'stowage volume rm {row.name}'",
            )
    for directory in strays(layout, metastore):
        if has_content(directory):
            remedy = f"'stowage volume create {directory.name}' takes it over"
        else:
            remedy = "'stowage gc' removes it"
        yield CheckFinding(
            CheckKind.VOLUME_UNACCOUNTED,
            str(directory),
            None,
            "nothing is recorded of it",
            remedy,
        )


def strays(layout: RootLayout, metastore: Metastore) -> list[Path]:
    """Return what lies among the volumes that no row knows."""
    there = sorted(layout.volumes.iterdir())  # before the rows: a row precedes its directory
    known = rows.names(metastore.read())
    return [path for path in there if path.name not in known and os.path.lexists(path)]


def has_content(directory: Path) -> bool:
    """Whether there is anything that a container may have written."""
    if directory.is_symlink() or not directory.is_dir():
        return True
    try:
        return any(name != "_data" for name in os.listdir(directory)) or bool(
            os.listdir(directory / "_data")
        )
    except FileNotFoundError:
        return False
