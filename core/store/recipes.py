"""The recipes of layers: ``recipes/<hex of diffID>``, shared by all layers with that diffID.

Whoever writes one holds the lock ``recipes`` shared until a row names it; whoever sweeps holds it
exclusively. So a staged file seen by a sweeper has lost its maker, and a recipe without a row is
nobody's.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..effects import effect
from ..errors import Busy, DataLoss
from .erase import erase_path
from .layout import RootLayout
from .locks import Lease, Locks
from .metastore import Metastore

_LOCK = "recipes"
_STAGED = "."
_RECIPE = re.compile(r"[0-9a-f]{64}|\..*", re.DOTALL)


class RecipeDraft:
    """A recipe that is being written to :attr:`file`; dropped unless published."""

    def __init__(self, recipes: Recipes, path: Path, file: BinaryIO) -> None:
        self._recipes = recipes
        self._path = path
        self.file = file

    def publish(self, diff_id: str) -> None:
        """Give the recipe its name. One that a recorded layer relies on is left as it is; any
        other is replaced, for it may be a torn leftover of a loss of power. Any number of makers
        may do so at once: it is there and whole all the while.

        The staged name stays until the block of ``draft`` ends: if this process is killed before
        a row names the recipe, it tells the next one to sweep.
        """
        self.file.flush()
        target = self._recipes.path(diff_id)
        if target.exists():
            if self._recipes.known(diff_id):
                return
            with effect("recipe.sync", path=target):  # the maker of the other may have done so
                os.fsync(self.file.fileno())
        second = self._path.with_name(f"{self._path.name}.ready")
        with effect("recipe.publish", path=target):
            os.link(self._path, second)
            os.replace(second, target)  # another maker of the same layer may do the same now


class Recipes:
    """The recipes of one root."""

    def __init__(self, layout: RootLayout, metastore: Metastore, locks: Locks) -> None:
        self._layout = layout
        self._metastore = metastore
        self._locks = locks

    def path(self, diff_id: str) -> Path:
        return self._layout.recipe(diff_id)

    @contextmanager
    def draft(self) -> Iterator[RecipeDraft]:
        """Stage a recipe; leave the block only after a row names what was published."""
        with self._locks.acquire(_LOCK, exclusive=False, subject="the store of recipes"):
            path = self._layout.recipes / f"{_STAGED}{os.getpid()}-{secrets.token_hex(6)}"
            with effect("recipe.create", path=path):
                file = path.open("xb")
            try:
                with file:
                    yield RecipeDraft(self, path, file)
            finally:
                with effect("recipe.unstage", path=path):
                    path.unlink(missing_ok=True)

    def open(self, diff_id: str) -> BinaryIO:
        """Open the recipe of a layer for reading.

        Raises:
            DataLoss: if it is not there.
        """
        try:
            return self.path(diff_id).open("rb")
        except FileNotFoundError as error:
            raise DataLoss(
                f"the recipe of layer {diff_id} is missing",
                resolution="remove the layer and load its image again",
            ) from error

    def known(self, diff_id: str) -> bool:
        """Whether any row names that diffID."""
        row = self._metastore.read().execute(
            "SELECT 1 FROM snapshots WHERE diff_id = ? LIMIT 1", (diff_id,)
        )
        return row.fetchone() is not None

    def release(self, diff_id: str) -> None:
        """Delete a recipe if no row names it; left for ``gc`` while anybody writes recipes."""
        lease = self._alone()
        if lease is None:
            return
        with lease:
            if not self.known(diff_id):
                self._unlink(self.path(diff_id))

    def staged(self) -> bool:
        """Whether a recipe is being written, or was when its maker was killed."""
        return any(name.startswith(_STAGED) for name in os.listdir(self._layout.recipes))

    def sweep(self) -> list[Path]:
        """Delete every staged or unnamed recipe and return them; nothing while any is written."""
        lease = self._alone()
        if lease is None:
            return []
        with lease:
            unused = [path for path in self.paths() if not self._in_use(path)]
            for path in unused:
                self._unlink(path)
        return unused

    def strangers(self) -> list[Path]:
        """Return what cannot be a recipe by its name; unlike an unnamed one no kill leaves it."""
        return [path for path in self.paths() if not _RECIPE.fullmatch(path.name)]

    def _alone(self) -> Lease | None:
        """Keep writers out; None if there are any (another sweeper is soon done)."""
        try:
            return self._locks.acquire(_LOCK, exclusive=True, subject="the store of recipes")
        except Busy:
            return None

    def paths(self) -> list[Path]:
        """Return every file among the recipes, staged ones included."""
        return sorted(self._layout.recipes.iterdir())

    def _in_use(self, path: Path) -> bool:
        return not path.name.startswith(_STAGED) and self.known(f"sha256:{path.name}")

    def _unlink(self, path: Path) -> None:
        with effect("recipe.delete", path=path):
            if path.is_dir() and not path.is_symlink():  # nobody of us made it
                erase_path(path)
            else:
                path.unlink(missing_ok=True)
