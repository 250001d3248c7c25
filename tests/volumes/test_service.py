"""Volumes by themselves: created, listed, removed, pruned."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stowage.engine import Engine
from stowage.errors import InvalidArgument, NotFound, NotSupported
from stowage.volumes.service import Volumes

pytestmark = pytest.mark.requires_root


@pytest.fixture
def volumes(shm_dir: Path) -> Iterator[Volumes]:
    with Engine(shm_dir / "root") as engine:
        yield engine.volumes


def test_a_volume_is_made_once(volumes: Volumes) -> None:
    """Asked for again, it is returned as it is, labels included."""
    first = volumes.create("vol", labels={"a": "b"})
    first.path.joinpath("file").write_text("kept")
    again = volumes.create("vol", labels={"c": "d"})

    assert again == first
    assert again.path.joinpath("file").read_text() == "kept"
    assert [volume.name for volume in volumes.list()] == ["vol"]


def test_a_volume_without_a_name_gets_64_hex_digits(volumes: Volumes) -> None:
    name = volumes.create().name

    assert len(name) == 64
    assert int(name, 16)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a", "create a: volume name is too short"),
        ("../up", '"../up" includes invalid characters'),
        ("-x", "includes invalid characters"),
        ("x" * 256, "at most 255 characters"),
    ],
)
def test_a_name_that_cannot_be_is_refused(volumes: Volumes, name: str, words: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        volumes.create(name)
    assert words in refusal.value.brief
    assert volumes.list() == []


def test_the_longest_name_works(volumes: Volumes) -> None:
    assert volumes.create("x" * 255).path.is_dir()


def test_another_driver_is_refused_by_name(volumes: Volumes) -> None:
    with pytest.raises(NotSupported, match='plugin "nosuch" not found'):
        volumes.create("vol", driver="nosuch")


def test_a_removed_volume_is_gone(volumes: Volumes) -> None:
    path = volumes.create("vol").path
    volumes.remove("vol")

    assert not path.parent.exists()
    with pytest.raises(NotFound, match="No such volume: vol"):
        volumes.get("vol")
    with pytest.raises(NotFound, match="No such volume: vol"):
        volumes.remove("vol")


def test_prune_takes_what_it_is_told(volumes: Volumes) -> None:
    volumes.create("kept", labels={"keep": ""})
    path = volumes.create("gone").path
    path.joinpath("file").write_bytes(b"x" * 5000)
    path.joinpath("again").hardlink_to(path / "file")
    path.joinpath("directory").mkdir()
    (pruned,) = volumes.prune(lambda volume: "keep" not in volume.labels)

    assert (pruned.name, pruned.size_bytes) == ("gone", 5000)
    assert [volume.name for volume in volumes.list()] == ["kept"]


def test_many_make_and_remove_one_name_at_once(volumes: Volumes) -> None:
    """Nobody meets an error but that another was quicker, and nothing half made is seen."""
    failures: list[BaseException] = []

    def work() -> None:
        for _ in range(15):
            try:
                volumes.create("vol")
                volumes.remove("vol")
            except NotFound:
                continue
            except BaseException as error:  # noqa: BLE001  # shown below
                failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert volumes.create("vol").path.is_dir()


def test_a_directory_whose_row_was_lost_is_reported_and_taken_over(volumes: Volumes) -> None:
    """What it holds is never deleted, not even with a container that could not be made."""
    lost = volumes.path("lost")
    lost.mkdir(parents=True)
    lost.joinpath("file").write_text("dear")
    lost.parent.joinpath("_fill").mkdir()
    (finding,) = volumes.check()
    assert str(finding).startswith(f"volume-unaccounted: {lost.parent}: nothing is recorded")
    assert finding.remedy == "'stowage volume create lost' takes it over"

    assert volumes.sweep() == []
    volumes.create("lost")
    assert volumes.check() == []
    assert lost.joinpath("file").read_text() == "dear"
    assert not lost.parent.joinpath("_fill").exists()


def test_an_empty_directory_without_a_row_is_swept(volumes: Volumes) -> None:
    volumes.path("empty").mkdir(parents=True)
    volumes.create("kept")
    assert [finding.remedy for finding in volumes.check()] == ["'stowage gc' removes it"]

    assert volumes.sweep() == ["empty"]
    assert volumes.check() == []
    assert not volumes.path("empty").parent.exists()
    assert volumes.path("kept").is_dir()


def test_a_row_without_a_directory_is_reported(volumes: Volumes) -> None:
    volumes.create("gone").path.rmdir()
    (finding,) = volumes.check()

    assert str(finding).startswith("volume-missing: gone: its directory")
    volumes.remove("gone")
    assert volumes.check() == []
