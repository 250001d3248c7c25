"""Names that the command line completes with, read from a root without changing anything in it.

No recovery, no lock, no driver: pressing Tab must be quick and may not write.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from ..registry import Registry

#: kind -> a query whose first column is what to complete with
_QUERIES = {
    "container": "SELECT name FROM containers WHERE state != 'removing' ORDER BY name",
    "running": "SELECT name FROM containers WHERE state IN ('running', 'paused', 'restarting')"
    " ORDER BY name",
    "stopped": "SELECT name FROM containers WHERE state IN ('created', 'exited', 'dead')"
    " ORDER BY name",
    "paused": "SELECT name FROM containers WHERE state = 'paused' ORDER BY name",
    "image": "SELECT name FROM image_references ORDER BY name",
    "image or layer": "SELECT name FROM image_references UNION SELECT name FROM snapshots"
    " WHERE kind = 'committed' AND state = 'ready' ORDER BY name",
    "network": "SELECT name FROM networks UNION VALUES ('bridge'), ('host'), ('none')",
    "volume": "SELECT name FROM volumes ORDER BY name",
    "snapshot": "SELECT name FROM snapshots ORDER BY name",
}


class LiveNames:
    """The names in the root at *data_root*; a root that cannot be read has none."""

    def __init__(self, data_root: Path) -> None:
        self._path = data_root / "metadata.db"

    @cached_property
    def _database(self) -> sqlite3.Connection:
        return sqlite3.connect(f"{self._path.as_uri()}?mode=ro", uri=True)

    def of(self, kind: str) -> Sequence[str]:
        """Return the names of all that is a *kind*; none for a kind that is not known."""
        if kind in _DRIVERS:
            return _DRIVERS[kind]()
        if kind == "object":
            return [*self.of("container"), *self.of("image"), *self.of("volume")]
        if kind not in _QUERIES:
            return ()
        try:
            return [str(row[0]) for row in self._database.execute(_QUERIES[kind])]
        except sqlite3.Error:  # no root yet, not ours to read, or without such a table
            return ("bridge", "host", "none") if kind == "network" else ()

    def close(self) -> None:
        """Close what was opened."""
        if "_database" in self.__dict__:
            self._database.close()


def _storage_drivers() -> Sequence[str]:
    return sorted(plugin.name for plugin in Registry().plugins("storage"))


def _all_drivers() -> Sequence[str]:
    networks = {plugin.name for plugin in Registry().plugins("network")}
    return sorted({*_storage_drivers(), *networks})


_DRIVERS: Mapping[str, Callable[[], Sequence[str]]] = {
    "storage driver": _storage_drivers,
    "driver": _all_drivers,
}
