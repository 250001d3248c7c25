"""Init snapshots hold the mount targets, once for all containers of an image."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowage.errors import FailedPrecondition
from stowage.layers.init import resolve
from stowage.layers.store import LayerStore

pytestmark = pytest.mark.requires_root


@pytest.fixture
def image(layers: LayerStore) -> LayerStore:
    """A store with the committed snapshot ``image``: /etc/hosts, /run, and links."""
    layers.prepare("work")
    with layers.attached("work") as root:
        os.mkdir("etc", dir_fd=root)
        os.close(os.open("etc/hosts", os.O_CREAT | os.O_WRONLY, dir_fd=root))
        os.mkdir("run", dir_fd=root)
        os.mkdir("var", dir_fd=root)
        os.symlink("/run", "var/run", dir_fd=root)
        os.symlink("../../../../outside", "etc/resolv.conf", dir_fd=root)
        os.symlink("loop", "loop", dir_fd=root)
    layers.commit("image", "work")
    return layers


def paths(layers: LayerStore, key: str) -> set[bytes]:
    return {change.path for change in layers.changes(key)}


def test_nothing_missing_gives_the_image_itself(image: LayerStore) -> None:
    assert image.init_snapshot("image", {b"/etc/hosts": "file", b"/run": "dir"}) == "image"


def test_what_is_missing_is_made_and_shows_in_no_container(image: LayerStore) -> None:
    name = image.init_snapshot(
        "image",
        {b"/dev": "dir", b"/etc/hostname": "file", b"/etc/mtab": b"/proc/mounts", b"/run": "dir"},
    )
    assert name is not None
    image.prepare("container", name)

    assert image.changes("container") == []
    added = paths(image, name)
    assert {b"/dev", b"/etc/hostname", b"/etc/mtab"} <= added <= {
        b"/dev", b"/etc/hostname", b"/etc/mtab", b"/etc", b"/"
    }  # fmt: skip
    with image.attached("container", read_only=True) as root:
        assert os.readlink("etc/mtab", dir_fd=root) == "/proc/mounts"
        assert os.stat("dev", dir_fd=root).st_mode == 0o40755
        assert os.stat("etc/hostname", dir_fd=root).st_mode == 0o100644


def test_targets_follow_links_within_the_root_only(image: LayerStore, shm_dir: Path) -> None:
    name = image.init_snapshot(
        "image", {b"/var/run/x": "dir", b"/etc/resolv.conf": "file", b"/etc/../../up": "dir"}
    )
    assert name is not None

    assert {b"/run/x", b"/outside", b"/up"} <= paths(image, name)
    assert not (shm_dir / "outside").exists()


def test_the_same_targets_share_one_snapshot(
    image: LayerStore, open_layers: Callable[[], LayerStore]
) -> None:
    targets: dict[bytes, str | bytes] = {b"/dev": "dir", b"/proc": "dir"}
    other = open_layers()

    first = image.init_snapshot("image", targets)

    assert other.init_snapshot("image", dict(reversed(targets.items()))) == first
    assert image.init_snapshot("image", {b"/dev": "dir"}) != first
    assert len(list(image.walk("kind==committed"))) == 3


def test_without_an_image_all_targets_are_made(layers: LayerStore) -> None:
    name = layers.init_snapshot(None, {b"/a/b": "dir"})

    assert name is not None
    assert layers.stat(name).parent is None
    assert {b"/a", b"/a/b"} <= paths(layers, name)


def test_a_target_below_a_file_is_refused_and_leaves_nothing(image: LayerStore) -> None:
    before = list(image.walk())

    for path in (b"/etc/hosts/x", b"/loop/x"):
        with pytest.raises(FailedPrecondition, match="leads through"):
            image.init_snapshot("image", {path: "dir"})

    assert list(image.walk()) == before
    assert image.check(full=True) == []


names = st.sampled_from([b"a", b"b", b"c", b"..", b".", b""])


@given(
    links=st.dictionaries(
        st.sampled_from(["a", "b", "d/c"]),
        st.lists(names, min_size=1, max_size=4).map(b"/".join).filter(bool),
        max_size=3,
    ),
    path=st.lists(names, max_size=4).map(b"/".join),
)
def test_resolving_agrees_with_the_kernel(links: dict[str, bytes], path: bytes) -> None:
    """Where openat2 in the root finds something, it is what the names lead to."""
    import shutil
    import tempfile

    from stowage.linux.paths import open_in_root

    place = Path(tempfile.mkdtemp(dir="/dev/shm"))
    try:
        (place / "d").mkdir()
        (place / "c").mkdir()
        for name, text in links.items():
            (place / name).symlink_to(os.fsdecode(text))
        root = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        try:
            found = resolve(root, path)
            try:
                expected = open_in_root(root, path, os.O_PATH)
            except OSError:
                return
            assert found is not None
            here = os.stat(b"/".join(found) or b".", dir_fd=root, follow_symlinks=False)
            assert os.path.samestat(here, os.fstat(expected))
            os.close(expected)
        finally:
            os.close(root)
    finally:
        shutil.rmtree(place)
