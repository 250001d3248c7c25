"""Kill a process at each of its effects in turn, recover, and compare with what may be left.

Run as ``crash.py SCENARIO DRIVER DIRECTORY STRIDE``: for n = 1, 1 + STRIDE, … a forked child does
the scenario on a fresh root and kills itself at its n-th effect; another recovers and looks. Ends
when a child got through, and exits with 1 and the reason at a difference.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import sqlite3
import sys
import tarfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import stowage_drivers.storage.overlay  # loaded once, before the forks
import stowage_drivers.storage.vfs  # noqa: F401
from stowage.effects import observe
from stowage.engine import Engine
from stowage.layers import building, check, collect, committing, contents, init, removal, transfer  # noqa: F401
from stowage.layers.store import LayerStore
from stowage.linux.mountinfo import read_mountinfo

Step = Callable[[LayerStore], object]


def archive(name: str) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = 3
        tar.addfile(member, io.BytesIO(b"abc"))
    out.seek(0)
    return out


def write(layers: LayerStore) -> None:
    with layers.attached("work") as root:
        os.mkdir("d", dir_fd=root)


def look(layers: LayerStore) -> None:
    with layers.mounted("work") as path:
        os.listdir(path)


def add(layers: LayerStore) -> None:
    layers.add_layer(archive("a"))


def add_child(layers: LayerStore) -> None:
    (base,) = layers.walk("kind==committed")
    layers.add_layer(archive("b"), base.name)


def remove_all(layers: LayerStore) -> None:
    for info in reversed(list(layers.walk())):
        layers.remove(info.name)


SCENARIOS: dict[str, list[Step]] = {
    "open": [],
    "commit": [
        lambda layers: layers.prepare("work"),
        write,
        lambda layers: layers.commit("done", "work"),
    ],
    "apply": [
        lambda layers: layers.prepare("work"),
        lambda layers: layers.apply("work", archive("a")),
        lambda layers: layers.commit("done", "work"),
        lambda layers: layers.prepare("work", "done"),
    ],
    "add": [add, add_child],
    "remove": [
        lambda layers: layers.prepare("work"),
        write,
        lambda layers: layers.remove("work"),
        lambda layers: layers.prepare("work"),
        lambda layers: layers.drain(),
        remove_all,
        lambda layers: layers.drain(),
    ],
    "init": [
        add,
        lambda layers: layers.init_snapshot(
            next(layers.walk()).name, {b"/dev": "dir", b"/etc/hosts": "file"}
        ),
    ],
    "mount": [
        lambda layers: layers.prepare("work"),
        lambda layers: layers.unmount(layers.mount("work")),
    ],
    "mounted": [
        lambda layers: layers.prepare("work"),
        look,
        lambda layers: layers.view("view"),
    ],
    "bring": [
        add,
        lambda layers: layers.bring(next(layers.walk()).name, layers.default_driver, "vfs"),
        lambda layers: layers.gc(lambda info: False),
    ],
}

Listing = list[tuple[str, str, str]]


def listing(layers: LayerStore) -> Listing:
    return sorted((info.driver, info.name, info.kind.value) for info in layers.walk())


@contextmanager
def engine(root: Path, driver: str) -> Iterator[LayerStore]:
    opened = Engine(root, storage_driver=driver)
    try:
        yield opened.layers
    finally:
        opened.close()


def in_child(work: Callable[[], None]) -> int:
    """Run *work* in a forked child; returns its exit status, negative for a signal."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        work()
        sys.stdout.flush()
        os._exit(0)
    except BaseException:  # noqa: BLE001  # a child's end, whatever it is
        traceback.print_exc()
        os._exit(1)


def kill_at(number: int) -> None:
    """Kill this process as it is about to have, or has just had, its *number*-th effect."""
    seen = count(1)

    @contextmanager
    def around(name: str, facts: dict[str, object]) -> Iterator[None]:
        if next(seen) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        yield
        if next(seen) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    observe(around)


def states(scenario: str, driver: str, root: Path) -> list[Listing]:
    """What is listed before the first step and after each; states are per scenario, not random."""
    read, write_end = os.pipe()

    def work() -> None:
        found = []
        with engine(root, driver) as layers:
            found.append(listing(layers))
            for step in SCENARIOS[scenario]:
                step(layers)
                found.append(listing(layers))
        os.write(write_end, repr(found).encode())

    assert in_child(work) == 0
    os.close(write_end)
    with os.fdopen(read) as file:
        import ast

        result: list[Listing] = ast.literal_eval(file.read())
    return result


def perform(scenario: str, driver: str, root: Path, number: int, progress: int) -> None:
    steps = SCENARIOS[scenario]
    if not steps:
        kill_at(number)
    with engine(root, driver) as layers:
        if steps:  # the making of a root and the probes of drivers are a scenario of their own
            kill_at(number)
        for step in steps:
            step(layers)
            os.write(progress, b".")


def examine(scenario: str, driver: str, root: Path, before: Listing, after: Listing) -> None:
    with engine(root, driver) as layers:
        found = listing(layers)
        halfway = not after and set(found) <= set(before)  # removing several, one by one
        assert found in (before, after) or halfway, f"{found} is neither {before} nor {after}"
        assert layers.check(full=True) == []
        for path in mounted_below(root):
            assert scenario == "mount"  # it is meant to outlive its process
            layers.unmount(path)
        for info in layers.walk("kind==active"):
            with layers.attached(info.name, driver=info.driver):
                pass
        assert layers.drain(20) == 0
        _nothing_left(layers, root)
        for info in reversed(list(layers.walk())):
            layers.remove(info.name, driver=info.driver)
        assert layers.drain(20) == 0
        assert not any((root / "data" / "recipes").iterdir())


def mounted_below(root: Path) -> list[Path]:
    targets = [entry.target for entry in read_mountinfo()]
    return [Path(target) for target in targets if target.startswith(f"{root}/")]


def _nothing_left(layers: LayerStore, root: Path) -> None:
    data = root / "data"
    infos = list(layers.walk())
    directories = {
        (path.parent.name, path.name)
        for path in data.glob("storage/*/*")
        if path.name.isdigit() and not path.parent.name.startswith(".")  # a probe's scratch
    }
    assert directories == {(info.driver, str(info.id)) for info in infos}
    assert not any((data / "trash").iterdir())
    named = sqlite3.connect(data / "metadata.db").execute("SELECT diff_id FROM snapshots")
    wanted = {diff_id.partition(":")[2] for (diff_id,) in named if diff_id}
    assert {path.name for path in (data / "recipes").iterdir()} == wanted
    assert not mounted_below(root)
    assert not list((root / "exec").glob("*/mnt/*"))


def main(scenario: str, driver: str, directory: str, stride: str) -> int:
    base = Path(directory)
    expected = states(scenario, driver, base / "states")
    for number in count(1, int(stride)):
        root = base / f"kill-{number}"
        read, progress = os.pipe()
        status = in_child(lambda: perform(scenario, driver, root, number, progress))  # noqa: B023
        os.close(progress)
        done = len(os.read(read, 1000))
        os.close(read)
        if status not in (0, -signal.SIGKILL):
            print(f"killed at {number}: it failed instead")
            return 1
        before, after = expected[done], expected[min(done + 1, len(expected) - 1)]
        if in_child(lambda: examine(scenario, driver, root, before, after)) != 0:  # noqa: B023
            print(f"killed at effect {number} of {scenario} on {driver}, after step {done}")
            return 1
        shutil.rmtree(root)
        if status == 0:
            return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
