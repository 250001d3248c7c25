"""A step that fails leaves the snapshot as it was or gone, and its lease free in this process."""

from __future__ import annotations

import io
import os
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from stowage.effects import observe
from stowage.errors import Busy, InvalidArchive, NotFound
from stowage.layers import attach as attaching
from stowage.layers import contents
from stowage.layers.rows import get, unfinished
from stowage.layers.store import LayerStore
from stowage.model import Kind

pytestmark = pytest.mark.requires_root

OpenLayers = Callable[..., LayerStore]
MakeArchive = Callable[[Mapping[str, bytes]], io.BytesIO]


@contextmanager
def failing(effect: str, nth: int = 1, *, once: bool = False) -> Iterator[None]:
    """Let the *nth* effect of that name fail with EIO, and each later one unless *once*."""
    seen = 0

    @contextmanager
    def around(name: str, facts: dict[str, object]) -> Iterator[None]:
        nonlocal seen
        seen += name == effect
        if name == effect and (seen == nth if once else seen >= nth):
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


# --- a commit that fails, and one that loses its process -----------------------------------------


def write(layers: LayerStore, name: str, content: bytes) -> None:
    with layers.attached("work") as root:
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, dir_fd=root)
        os.write(file, content)
        os.close(file)


def exported(layers: LayerStore, name: str) -> dict[str, bytes]:
    out = io.BytesIO()
    layers.export(name, out)
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        files = {member.name: tar.extractfile(member) for member in tar if member.isfile()}
        return {name.strip("/"): file.read() for name, file in files.items() if file}


@pytest.fixture(params=["vfs", "overlay"])
def halfway(request: pytest.FixtureRequest, open_layers: OpenLayers) -> LayerStore:
    """A root in which the commit of ``work`` as ``done`` ended between intent and publication."""
    layers = open_layers(request.param)
    layers.prepare("work")
    write(layers, "f", b"first")
    with failing("metastore.commit", 2), pytest.raises(OSError, match="Input/output error"):
        layers.commit("done", "work")  # as after a kill: not even the intent can be taken back
    assert [info.kind for info in layers.walk()] == [Kind.ACTIVE]
    return layers


@pytest.mark.parametrize("driver", ["vfs", "overlay"])
@pytest.mark.parametrize(("effect", "nth"), [("metastore.commit", 2), ("recipe.unstage", 1)])
def test_a_commit_that_fails_leaves_the_snapshot_active_and_usable(
    open_layers: OpenLayers, driver: str, effect: str, nth: int
) -> None:
    layers = open_layers(driver)
    layers.prepare("work")
    write(layers, "f", b"first")
    with failing(effect, nth, once=True), pytest.raises(OSError, match="Input/output error"):
        layers.commit("done", "work")

    layers.recover()
    write(layers, "g", b"second")
    layers.commit("done", "work")

    assert exported(layers, "done") == {"f": b"first", "g": b"second"}
    assert layers.check(full=True) == []


@pytest.mark.parametrize("act", ["attach", "apply", "mount", "commit"])
def test_a_commit_without_a_process_is_finished_before_anybody_gets_at_the_snapshot(
    halfway: LayerStore, archive: MakeArchive, act: str
) -> None:
    acts: dict[str, Callable[[], object]] = {
        "attach": lambda: halfway.attach("work"),
        "apply": lambda: halfway.apply("work", archive({"g": b""})),
        "mount": lambda: halfway.mount("work"),
        "commit": lambda: halfway.commit("other", "work"),
    }
    with pytest.raises(NotFound):
        acts[act]()

    assert [info.name for info in halfway.walk()] == ["done"]
    assert exported(halfway, "done") == {"f": b"first"}
    assert halfway.check(full=True) == []


def test_a_snapshot_whose_commit_lost_its_process_can_be_removed(halfway: LayerStore) -> None:
    halfway.remove("work")

    assert list(halfway.walk()) == []
    halfway.prepare("done")


def test_a_commit_is_not_finished_under_a_running_container(halfway: LayerStore) -> None:
    context = halfway._context
    context.in_use = lambda info: "a container runs on it"
    halfway.recover()
    with pytest.raises(Busy, match="container runs"):
        halfway.attach("work")
    assert [info.kind for info in halfway.walk()] == [Kind.ACTIVE]

    context.in_use = lambda info: None
    halfway.recover()
    assert [info.name for info in halfway.walk()] == ["done"]


def test_a_commit_whose_content_was_lost_is_taken_back(halfway: LayerStore, root: Path) -> None:
    """The intent survived a loss of power, the contents did not: the seal syncs only after it."""
    (torn,) = (root / "data" / "storage").glob("*/*/fs/f")
    torn.write_bytes(b"")
    halfway.recover()

    assert [(info.name, info.kind) for info in halfway.walk()] == [("work", Kind.ACTIVE)]
    write(halfway, "f", b"again")
    halfway.commit("done", "work")
    assert exported(halfway, "done") == {"f": b"again"}
    assert halfway.check(full=True) == []


def test_a_recovery_that_takes_a_new_row_for_a_leftover_only_delays_it(
    layers: LayerStore, open_layers: OpenLayers
) -> None:
    """The name stays taken until that recovery has dropped the row, however long it needs."""
    other = open_layers()._context
    taken: list[threading.Timer] = []

    @contextmanager
    def around(name: str, facts: dict[str, object]) -> Iterator[None]:
        yield
        if name != "metastore.commit" or taken:
            return
        (row,) = unfinished(other.metastore.read())
        lease = other.locks.try_acquire(other.lease_name(row), exclusive=True)
        assert lease is not None
        taken.append(threading.Timer(0.4, other.discard, (row, lease)))
        taken[0].start()

    remove = observe(around)
    try:
        layers.prepare("work")
    finally:
        remove()
        for timer in taken:
            timer.join()

    assert taken
    assert [info.name for info in layers.walk()] == ["work"]
