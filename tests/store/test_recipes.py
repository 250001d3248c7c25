"""Recipes are shared by all layers with one diffID, whoever makes them and when."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stowage.effects import observe
from stowage.store.layout import RootLayout
from stowage.store.locks import Locks
from stowage.store.metastore import Metastore
from stowage.store.recipes import Recipes

DIFF_ID = f"sha256:{'0' * 64}"


@pytest.fixture
def recipes(shm_dir: Path) -> Iterator[Recipes]:
    layout = RootLayout(shm_dir / "data", shm_dir / "exec")
    layout.create()
    metastore = Metastore(layout.data_root / "metadata.db")
    yield Recipes(layout, metastore, Locks(layout.locks))
    metastore.close()


@pytest.mark.parametrize("torn", [False, True])
def test_two_makers_of_one_recipe_both_succeed(recipes: Recipes, torn: bool) -> None:
    """Both have looked and found none of any row before either gives it its name."""
    if torn:
        recipes.path(DIFF_ID).write_bytes(b"")
    both, errors = threading.Barrier(2, timeout=10), []
    waited: set[tuple[int, str]] = set()

    @contextmanager
    def around(name: str, facts: dict[str, object]) -> Iterator[None]:
        step = (threading.get_ident(), name)
        if name in ("recipe.publish", "recipe.delete") and step not in waited:
            waited.add(step)
            both.wait()
        yield

    def make() -> None:
        try:
            with recipes.draft() as draft:
                draft.file.write(b"whole")
                draft.publish(DIFF_ID)
        except Exception as error:  # noqa: BLE001  # of a thread: told below
            errors.append(error)

    remove = observe(around)
    try:
        threads = [threading.Thread(target=make, daemon=True) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        remove()

    assert errors == []
    assert [path.read_bytes() for path in recipes.paths()] == [b"whole"]
