"""The engine from Python: runs, depth limits, several drivers at once, what it refuses."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from threading import Barrier, Thread

import pytest

from stowage.config import Config
from stowage.containers.model import ContainerSpec
from stowage.engine import Engine
from stowage.errors import (
    CommandFailed,
    FailedPrecondition,
    InvalidArgument,
    InvalidConfig,
    NotFound,
    NotSupported,
)
from stowage.images.bootstrap import busybox
from stowage.images.rows import Image

pytestmark = pytest.mark.requires("containers")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine(tmp_path) as engine:
        busybox(engine.images)
        yield engine
        for record in engine.containers.list():
            engine.containers.remove(record.id, force=True)


def layer(number: int) -> io.BytesIO:
    """An archive with one file named after its number."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        content = f"{number}\n".encode()
        info = tarfile.TarInfo(f"layer{number}")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    out.seek(0)
    return out


def grow(engine: Engine, image: Image, depth: int, reference: str) -> Image:
    """Put layers on *image* until it has *depth* of them."""
    for number in range(len(image.chain), depth):
        name = reference if number == depth - 1 else None
        image = engine.images.create(image, layer(number), reference=name)
    return image


def test_an_image_of_499_layers_runs_and_one_of_500_is_refused_by_name(tmp_path: Path) -> None:
    """500 lower directories are the kernel's limit, and the init snapshot is one of them."""
    with Engine(config=Config.for_root(tmp_path, {"sync": "none"})) as engine:
        image = grow(engine, busybox(engine.images), 499, "deep")

        result = engine.run("deep", ["cat", "/layer1", "/layer498"], network="none")

        assert (result.stdout, result.exit_code) == (b"1\n498\n", 0)

        grow(engine, image, 500, "deeper")
        with pytest.raises(NotSupported, match=r"50[01]"):
            engine.run("deeper", ["true"], network="none")
        assert engine.containers.list() == []


def test_a_container_on_another_driver_brings_its_image_over_once(engine: Engine) -> None:
    before = {info.driver for info in engine.layers.walk()}

    first = engine.run("busybox", ["cat", "/proc/mounts"], network="none", storage_driver="vfs")
    layers = [info.name for info in engine.layers.walk(driver="vfs")]
    engine.run("busybox", ["true"], network="none", storage_driver="vfs")

    assert before == {"overlay"}
    assert b"overlay / overlay" not in first.stdout
    assert [info.name for info in engine.layers.walk(driver="vfs")] == layers


def test_input_environment_and_user_reach_the_command(engine: Engine) -> None:
    result = engine.run(
        "busybox",
        ["sh", "-c", "cat; echo $COLOUR; id -u; pwd; hostname"],
        env={"COLOUR": "blue"},
        user="65534",
        working_dir="/tmp",
        hostname="box",
        input=b"fed\n",
        network="none",
    )

    assert result.stdout.decode().split() == ["fed", "blue", "65534", "/tmp", "box"]


def test_a_run_is_killed_after_its_time(engine: Engine) -> None:
    result = engine.run("busybox", ["sleep", "60"], network="none", timeout_seconds=0.5)

    assert (result.timed_out, result.exit_code) == (True, 137)
    assert engine.containers.list() == []


def test_check_turns_an_exit_code_into_an_error(engine: Engine) -> None:
    with pytest.raises(CommandFailed, match="exit code 3") as caught:
        engine.run("busybox", ["sh", "-c", "echo why >&2; exit 3"], network="none", check=True)

    assert (caught.value.exit_code, caught.value.details) == (3, "why")


def test_a_snapshot_and_a_containers_root_can_be_mounted(engine: Engine) -> None:
    engine.run("busybox", ["touch", "/new"], name="kept", network="none", remove=False)

    with engine.mounted("kept") as path:
        assert (path / "new").exists()
        assert path.is_mount()
    assert not path.exists() or not path.is_mount()


def test_another_default_driver_is_refused_while_layers_live_in_the_root(engine: Engine) -> None:
    root = engine.layout.data_root.parent
    with (
        Engine(root, storage_driver="vfs") as other,
        pytest.raises(FailedPrecondition, match=r"'overlay'.*'vfs'"),
    ):
        _ = other.layers


def test_the_default_driver_can_be_changed_by_the_command_for_it(engine: Engine) -> None:
    root = engine.layout.data_root.parent
    engine.set_default_driver("vfs")

    with Engine(root) as other:
        assert other.selection.name == "vfs"


def test_an_unknown_image_is_not_found(engine: Engine) -> None:
    with pytest.raises(NotFound, match="nosuch"):
        engine.run("nosuch", ["true"], network="none")


def test_threads_that_open_different_parts_at_once_do_not_wait_for_each_other(
    tmp_path: Path,
) -> None:
    """Each part needs others; whatever the order, nobody holds what another one wants."""
    parts = ["layers", "images", "containers", "networks", "selection"]
    for number in range(20):
        with Engine(tmp_path / str(number)) as engine:
            barrier = Barrier(len(parts))

            def use(part: str, engine: Engine = engine, barrier: Barrier = barrier) -> None:
                barrier.wait()
                getattr(engine, part)

            threads = [Thread(target=use, args=(part,), daemon=True) for part in parts]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)

            assert not any(thread.is_alive() for thread in threads)


def test_the_root_of_a_running_container_is_in_use_for_an_engine_that_saw_no_container(
    engine: Engine,
) -> None:
    spec = ContainerSpec(image="busybox", command=("sleep", "60"), network="none")
    record = engine.containers.create(spec)
    engine.containers.start(record.id)

    with (
        Engine(engine.layout.data_root.parent) as other,
        pytest.raises(FailedPrecondition, match="in use"),
    ):
        other.layers.remove(record.snapshot, driver=record.driver)
    assert engine.exec(record.id, ["true"]).exit_code == 0


def test_a_command_that_is_one_string_is_refused(engine: Engine) -> None:
    with pytest.raises(InvalidArgument, match="one string"):
        engine.run("busybox", "echo hi", network="none")


def test_a_container_can_be_started_looked_into_and_stopped_from_python(engine: Engine) -> None:
    engine.create("busybox", ["sleep", "60"], name="web", network="none", labels={"a": "b"})
    engine.start("web")

    assert engine.exec("web", ["hostname"]).exit_code == 0

    engine.stop("web", 0)
    assert engine.wait("web") == 137
    engine.remove("web")
    assert engine.containers.list() == []


def test_options_without_a_prefix_are_for_the_default_driver_alone(tmp_path: Path) -> None:
    chosen = {"storage-driver": "overlay2", "storage-opts": ["index=off", "vfs.nonsense=1"]}
    with Engine(config=Config.for_root(tmp_path, chosen)) as engine:
        assert engine.storage().capabilities
        with pytest.raises(InvalidConfig, match="nonsense"):
            engine.storage("vfs")
    chosen = {"storage-driver": "overlay2", "storage-opts": ["index=off"]}
    with Engine(config=Config.for_root(tmp_path / "other", chosen)) as engine:
        assert engine.storage("vfs").name == "vfs"
    chosen = {"storage-driver": "vfs", "storage-opts": ["index=off"]}
    with (
        Engine(config=Config.for_root(tmp_path / "third", chosen)) as engine,
        pytest.raises(InvalidConfig, match="index"),
    ):
        engine.storage()


def test_deciding_on_a_driver_records_nothing(tmp_path: Path) -> None:
    with Engine(tmp_path) as engine:
        assert engine.decide() == engine.decide()
        assert "first that works" in engine.decide().rule
