"""What any storage driver must do, tried on the template through its handle; needs root."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stowage.handle import StorageHandle
from stowage.model import Kind
from stowage.options import Options
from stowage.registry import Registry

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only as root: chown and mounts")

NO_OPTIONS = Options({})


@pytest.fixture
def handle(tmp_path: Path) -> Iterator[StorageHandle]:
    opened = Registry().storage("template", tmp_path)
    yield opened
    opened.close()


def prepared(
    handle: StorageHandle, directory: Path, *parents: Path, kind: Kind = Kind.ACTIVE
) -> Path:
    directory.mkdir()
    handle.prepare(directory, parents, kind, NO_OPTIONS)
    return directory


@contextmanager
def shown(
    handle: StorageHandle, directory: Path, *parents: Path, kind: Kind = Kind.ACTIVE
) -> Iterator[int]:
    """A descriptor of the snapshot's root, mounted as the core does it."""
    mount = handle.attach(directory, parents, kind, NO_OPTIONS)
    try:
        root = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=mount)
        try:
            yield root
        finally:
            os.close(root)
    finally:
        os.close(mount)


def write(root: int, name: str, content: bytes) -> None:
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644, dir_fd=root)
    os.write(descriptor, content)
    os.close(descriptor)


def read(root: int, name: str) -> bytes:
    descriptor = os.open(name, os.O_RDONLY, dir_fd=root)
    try:
        return os.read(descriptor, 100)
    finally:
        os.close(descriptor)


def test_the_probe_works_and_leaves_nothing(handle: StorageHandle, tmp_path: Path) -> None:
    assert handle.probe.ok
    assert list(tmp_path.iterdir()) == []


def test_a_base_is_empty_and_0755(handle: StorageHandle, tmp_path: Path) -> None:
    base = prepared(handle, tmp_path / "1")

    with shown(handle, base) as root:
        assert os.listdir(root) == []
        assert os.fstat(root).st_mode & 0o7777 == 0o755


def test_a_child_shows_its_parent_and_writes_do_not_reach_it(
    handle: StorageHandle, tmp_path: Path
) -> None:
    base = prepared(handle, tmp_path / "1")
    with shown(handle, base) as root:
        write(root, "file", b"old")
    handle.seal(base, ())
    child = prepared(handle, tmp_path / "2", base)
    with shown(handle, child, base) as root:
        assert read(root, "file") == b"old"
        write(root, "file", b"new")

    with shown(handle, base, kind=Kind.COMMITTED) as root:
        assert read(root, "file") == b"old"


def test_a_view_takes_nothing_and_is_read_only(handle: StorageHandle, tmp_path: Path) -> None:
    base = prepared(handle, tmp_path / "1")
    handle.seal(base, ())
    view = prepared(handle, tmp_path / "2", base, kind=Kind.VIEW)

    assert list(view.iterdir()) == []
    with shown(handle, view, base, kind=Kind.VIEW) as root, pytest.raises(OSError, match="ile sys"):
        write(root, "file", b"x")
