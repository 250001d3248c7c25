"""A step that fails leaves the snapshot as it was or gone, and its lease free in this process."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from stowage.effects import observe
from stowage.errors import InvalidArchive, NotFound
from stowage.layers import attach as attaching
from stowage.layers import contents
from stowage.layers.rows import get
from stowage.layers.store import LayerStore

pytestmark = pytest.mark.requires_root

MakeArchive = Callable[[Mapping[str, bytes]], io.BytesIO]


@contextmanager
def failing(effect: str, nth: int = 1) -> Iterator[None]:
    """Let the *nth* effect of that name fail with EIO, and each later one."""
    seen = 0

    @contextmanager
    def around(name: str, facts: dict[str, object]) -> Iterator[None]:
        nonlocal seen
        seen += name == effect
        if name == effect and seen >= nth:
            raise OSError(5, "Input/output error")
        yield

    remove = observe(around)
    try:
        yield
    finally:
        remove()


@pytest.mark.parametrize("undo", ["trash.bury", "metastore.commit"])
def test_a_draft_that_cannot_be_taken_back_keeps_no_lease_and_tells_the_first_error(
    layers: LayerStore, undo: str
) -> None:
    """The next who wants the name takes it back as if its maker had been killed."""

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise ValueError("the stream broke")

    nth = 2 if undo == "metastore.commit" else 1  # the first inserts the row
    with failing(undo, nth), pytest.raises(InvalidArchive, match="cannot be unpacked") as caught:
        layers.add_layer(Broken())

    assert any("Input/output error" in note for note in caught.value.__notes__)
    layers.recover()
    assert layers.drain(20) == 0
    assert layers.check() == []
    assert list(layers.walk()) == []


@pytest.mark.parametrize("use", ["attach", "read"])
def test_looking_at_a_layer_that_is_just_removed_leaves_no_lock_file(
    layers: LayerStore, archive: MakeArchive, root: Path, use: str
) -> None:
    layer = layers.add_layer(archive({"a": b"1"}))
    row = get(layers._context.metastore.read(), "vfs", layer.name)  # as a reader has it
    layers.remove(layer.name)
    before = sorted(os.listdir(root / "data" / "locks"))

    look = attaching.attach if use == "attach" else contents.changes
    with pytest.raises(NotFound):
        look(layers._context, row)

    assert sorted(os.listdir(root / "data" / "locks")) == before
