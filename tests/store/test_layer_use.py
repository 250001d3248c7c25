"""Who uses a snapshot: leases, mount points, containers; and refusals that name them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from stowage.errors import Busy, NotFound
from stowage.layers.store import LayerStore
from stowage.linux.mountinfo import read_mountinfo

pytestmark = pytest.mark.requires_root

OpenLayers = Callable[..., LayerStore]

HOLDER = """
import sys
from stowage.engine import Engine
engine = Engine(sys.argv[1], storage_driver="vfs")
with {how} as held:
    print(held, flush=True)
    sys.stdin.read()
engine.close()
"""


def mounted_below(root: Path) -> list[str]:
    return [entry.target for entry in read_mountinfo() if entry.target.startswith(f"{root}/")]


@pytest.fixture
def hold(layers: LayerStore, root: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start a process that holds something of the root until it is killed."""
    with ExitStack() as stack:

        def start(how: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-c", HOLDER.format(how=how), str(root)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.callback(process.communicate)
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline()
            return process

        yield start


@pytest.mark.parametrize("act", ["attach", "commit", "remove", "mount"])
def test_an_attached_snapshot_is_busy_and_names_its_holder(
    layers: LayerStore, hold: Callable[[str], subprocess.Popen[str]], act: str
) -> None:
    layers.prepare("work")
    holder = hold('engine.layers.attached("work")')
    acts: dict[str, Callable[[], object]] = {
        "attach": lambda: layers.attach("work"),
        "commit": lambda: layers.commit("done", "work"),
        "remove": lambda: layers.remove("work"),
        "mount": lambda: layers.mount("work"),
    }

    with pytest.raises(Busy, match="snapshot 'work' is in use") as caught:
        acts[act]()

    (text,) = caught.value.holders
    assert text.startswith(f"{holder.pid} (")
    assert "attached" in text
    holder.kill()
    holder.wait()
    layers.remove("work")


def test_a_killed_holder_leaves_nothing_attached(
    layers: LayerStore, hold: Callable[[str], subprocess.Popen[str]]
) -> None:
    layers.prepare("work")
    holder = hold('engine.layers.attached("work")')
    holder.kill()
    holder.wait()

    with layers.attached("work") as root:
        os.mkdir("d", dir_fd=root)


def test_readers_of_a_committed_snapshot_share_it(layers: LayerStore) -> None:
    layers.prepare("work")
    layers.commit("base", "work")

    with layers.attached("base"), layers.attached("base"):
        layers.prepare("child", "base")
        layers.remove("child")
        with pytest.raises(Busy):
            layers.remove("base")


def test_a_containers_use_is_named(layers: LayerStore) -> None:
    layers.prepare("work")
    layers._context.in_use = lambda info: f"container {info.name} runs"

    for act in (
        lambda: layers.remove("work"),
        lambda: layers.commit("done", "work"),
        lambda: layers.attach("work"),
    ):
        with pytest.raises(Busy, match="container work runs"):
            act()

    layers._context.in_use = lambda info: None
    layers.remove("work")


def test_changes_of_an_attached_overlay_snapshot_can_be_read(open_layers: OpenLayers) -> None:
    layers = open_layers("overlay")
    layers.prepare("work")

    with layers.attached("work") as root:
        os.mkdir("d", dir_fd=root)
        assert [change.path for change in layers.changes("work")] == [b"/d"]


def test_changes_of_an_attached_snapshot_are_read_through_its_own_root(
    layers: LayerStore,
) -> None:
    layers.prepare("work")

    with layers.attached("work") as root:
        os.mkdir("d", dir_fd=root)
        with pytest.raises(Busy):
            layers.changes("work")
        assert [change.path for change in layers.changes("work", root=root)] == [b"/d"]


def test_mounted_gives_a_mount_point_that_all_share_and_the_last_removes(
    layers: LayerStore, open_layers: OpenLayers, root: Path
) -> None:
    layers.prepare("work")
    other = open_layers()

    with layers.mounted("work") as path:
        (path / "f").write_text("x")
        with other.mounted("work") as same:
            assert same == path
        assert (path / "f").read_text() == "x"
        with pytest.raises(Busy, match="mounted at"):
            layers.remove("work")

    assert mounted_below(root) == []
    assert not path.exists()
    layers.remove("work")


def test_mount_stays_until_unmounted_and_is_idempotent(
    layers: LayerStore, open_layers: OpenLayers, root: Path
) -> None:
    layers.prepare("work")
    path = layers.mount("work")
    layers.close()

    again = open_layers()
    assert again.mount("work") == path
    with pytest.raises(Busy, match="mounted at"):
        again.attach("work")
    again.unmount(path)

    assert mounted_below(root) == []
    with pytest.raises(NotFound):
        again.unmount(path)
    again.remove("work")


def test_mount_at_a_path_of_ones_own(layers: LayerStore, shm_dir: Path) -> None:
    layers.prepare("work")
    place = shm_dir / "place"
    with pytest.raises(NotFound):
        layers.mount("work", place)
    place.mkdir()

    assert layers.mount("work", place) == place
    with pytest.raises(Busy, match="mounted at"):
        layers.mount("work", shm_dir)
    (place / "f").write_text("x")
    layers.unmount(place)

    assert place.is_dir()
    assert list(place.iterdir()) == []


def test_a_mount_whose_process_was_killed_is_taken_down(
    layers: LayerStore,
    hold: Callable[[str], subprocess.Popen[str]],
    open_layers: OpenLayers,
    root: Path,
) -> None:
    layers.prepare("work")
    holder = hold('engine.layers.mounted("work")')
    # in the holder's own namespace? no: a child shares ours, and its mount outlives it
    assert mounted_below(root)
    holder.kill()
    holder.wait()

    again = open_layers()

    assert mounted_below(root) == []
    again.remove("work")


def test_a_mount_of_a_killed_process_is_joined(
    layers: LayerStore, hold: Callable[[str], subprocess.Popen[str]], root: Path
) -> None:
    layers.prepare("work")
    holder = hold('engine.layers.mounted("work")')
    holder.send_signal(signal.SIGKILL)
    holder.wait()

    with layers.mounted("work") as path:
        assert mounted_below(root) == [str(path)]

    layers.recover()
    assert mounted_below(root) == []


def test_unmounting_what_a_process_works_in_names_it(layers: LayerStore) -> None:
    layers.prepare("work")
    path = layers.mount("work")
    worker = subprocess.Popen(["sleep", "60"], cwd=path)
    try:
        with pytest.raises(Busy, match="cannot unmount") as caught:
            layers.unmount(path)
        (text,) = caught.value.holders
        assert text == f"{worker.pid} (sleep 60): works in {path}"
    finally:
        worker.kill()
        worker.wait()
    layers.unmount(path)


def test_a_foreign_mount_at_the_place_is_not_taken_for_ours(
    layers: LayerStore, shm_dir: Path
) -> None:
    from stowage.linux.mount import syscall_mount, unmount

    layers.prepare("work")
    place = shm_dir / "place"
    place.mkdir()
    layers.mount("work", place)
    unmount(place)
    syscall_mount("foreign", place, "tmpfs", 0)
    try:
        layers.unmount(place)
        assert mounted_below(shm_dir) == [str(place)]
    finally:
        unmount(place)
    layers.remove("work")
