"""A full check finds all that is not as a layer's archive says, and nothing else."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from tests.layers.archives import Entry, archive, folder, hard, sym
from tests.layers.test_whiteouts import layers as layer_entries
from tests.layers.test_whiteouts import lowers
from tests.layers.trees import Model, build

from stowage.engine import Engine
from stowage.layers.acl import ACCESS_ACL, acl_from_text
from stowage.layers.check import CheckKind
from stowage.layers.store import LayerStore
from stowage.testing.lab import Lab

pytestmark = pytest.mark.requires_root

ENTRIES = [
    folder(b"./"),
    folder(b"dir"),
    Entry(b"dir/file", data=b"contents", pax={"SCHILY.xattr.user.kept": "yes"}),
    folder(b"dir/empty"),
    hard(b"dir/again", b"dir/file"),
    sym(b"link", b"dir"),
    Entry(b"link/through", data=b"went to dir"),
    Entry(b"fifo", tarfile.FIFOTYPE),
    Entry(b"node", tarfile.CHRTYPE, device=(1, 3)),
    Entry(b"twice", data=b"first", mode=0o600),
    Entry(b"twice", data=b"second", mode=0o640, uid=7),
    Entry(b"made/for/it", data=b"x"),
]
UPPER = [
    Entry(b"dir/new", data=b"new"),
    Entry(b"dir/.wh.empty"),
    Entry(b"made/.wh..wh..opq"),
    Entry(b"made/mine", data=b"y"),
    hard(b"linked", b"twice"),
    Entry(b".wh.never-there"),
]


def _extra(top: Path) -> None:
    (top / "dir" / "extra").write_text("x")


def _other_link(top: Path) -> None:
    (top / "link").unlink()
    (top / "link").symlink_to("made")


def _other_node(top: Path) -> None:
    (top / "node").unlink()
    os.mknod(top / "node", 0o20644, os.makedev(1, 5))


def _other_type(top: Path) -> None:
    (top / "fifo").unlink()
    (top / "fifo").mkdir()


def _copied(top: Path) -> None:
    shutil.copy2(top / "dir" / "again", top / "copy")
    (top / "copy").replace(top / "dir" / "again")


HARMS: dict[str, tuple[Callable[[Path], object], tuple[str, str]]] = {
    "an extra file": (_extra, ("/dir/extra ", "is not in its archive")),
    "an extra directory": (lambda top: (top / "more").mkdir(), ("/more ", "is not in its archive")),
    "a mode": (
        lambda top: (top / "dir" / "file").chmod(0o4755),
        ("/dir/file ", "has the mode 4755"),
    ),
    "a directory's mode": (lambda top: (top / "dir").chmod(0o777), ("/dir ", "has the mode 0777")),
    "an owner": (lambda top: os.chown(top / "twice", 0, 9), ("/twice ", "has the owner 0:9")),
    "an xattr": (
        lambda top: os.setxattr(top / "dir" / "file", "user.kept", b"no"),
        ("/dir/file ", "has other extended attributes"),
    ),
    "an extra xattr": (
        lambda top: os.setxattr(top / "twice", "trusted.more", b"x"),
        ("/twice ", "has other extended attributes"),
    ),
    "an access ACL": (
        lambda top: os.setxattr(
            top / "twice", ACCESS_ACL, acl_from_text(b"u::rw-,u:1:rw-,g::r--,m::r--,o::---")
        ),
        ("/twice ", "has other extended attributes"),
    ),
    "a time": (
        lambda top: os.utime(top / "twice", (1, 1)),
        ("/twice ", "has another modification"),
    ),
    "a symlink": (_other_link, ("/link ", "leads elsewhere")),
    "a device": (_other_node, ("/node ", "is another device")),
    "a type": (
        _other_type,
        ("/fifo ", "is of another type"),
    ),
    "no symlink": (lambda top: (top / "link").unlink(), ("/link ", "is gone")),
    "no fifo": (lambda top: (top / "fifo").unlink(), ("/fifo ", "is gone")),
    "no empty directory": (lambda top: (top / "dir" / "empty").rmdir(), ("/dir/empty ", "is gone")),
    "no hard link": (lambda top: (top / "dir" / "again").unlink(), ("/dir/again ", "is gone")),
    "a broken hard link": (_copied, ("/dir/again ", "is no longer a hard link to /dir/file")),
    "contents": (
        lambda top: (top / "dir" / "file").write_text("other"),
        ("/dir/file ", "is gone or"),
    ),
}


Stack = tuple[LayerStore, Path, Path]


@pytest.fixture(params=["vfs", "overlay"])
def stack(request: pytest.FixtureRequest, ext4_dir: Path) -> Iterator[Stack]:
    engine = Engine(ext4_dir / "root", storage_driver=request.param)
    try:
        base = engine.layers.add_layer(BytesIO(archive(ENTRIES)))
        upper = engine.layers.add_layer(BytesIO(archive(UPPER)), base.name)
        storage = ext4_dir / "root" / "data" / "storage" / request.param
        yield engine.layers, storage / str(base.id) / "fs", storage / str(upper.id) / "fs"
    finally:
        engine.close()


@pytest.fixture(scope="session")
def session_dir(lab: Lab) -> Iterator[Path]:
    """A directory on tmpfs for the whole session; examples make their own beneath it."""
    with tempfile.TemporaryDirectory(dir=lab.directory) as path:
        yield Path(path)


def details(layers: LayerStore) -> list[str]:
    found = layers.check(full=True)
    assert {finding.kind for finding in found} <= {CheckKind.LAYER_CONTENT_MODIFIED}
    return [finding.details for finding in found]


def test_archives_with_all_kinds_of_entries_are_what_they_say(stack: Stack) -> None:
    assert details(stack[0]) == []


@pytest.mark.parametrize("harm", HARMS)
def test_a_changed_layer_is_found(stack: Stack, harm: str) -> None:
    layers, base, _ = stack
    change, said = HARMS[harm]

    change(base)

    assert any(text.startswith(said[0]) and said[1] in text for text in details(layers)), details(
        layers
    )


def test_what_a_layer_deleted_and_is_back_is_found(stack: Stack) -> None:
    layers, _, upper = stack
    if upper.parent.parent.name == "vfs":
        (upper / "dir" / "empty").mkdir()
        (upper / "made" / "for").mkdir()
    else:
        (upper / "dir" / "empty").unlink()
        os.removexattr(upper / "made", "trusted.overlay.opaque")

    back = [text.split()[0] for text in details(layers) if "was deleted" in text]
    assert back == ["/dir/empty", "/made/for"]


def test_what_is_gone_of_the_parents_is_found(stack: Stack) -> None:
    layers, _, upper = stack
    if upper.parent.parent.name == "vfs":
        (upper / "fifo").unlink()
    else:
        os.mknod(upper / "fifo", 0o20000, 0)

    assert any(text.startswith("/fifo is gone") for text in details(layers))


@pytest.mark.parametrize("driver", ["vfs", "overlay"])
@settings(max_examples=20)
@given(lower=lowers(), entries=layer_entries())
def test_no_whole_layer_is_blamed(
    session_dir: Path, driver: str, lower: Model, entries: list[Entry]
) -> None:
    with tempfile.TemporaryDirectory(dir=session_dir) as name:
        place = Path(name)
        build(place / "lower", lower)
        engine = Engine(place / "root", storage_driver=driver)
        try:
            layers = engine.layers
            layers.prepare("work")
            with layers.attached("work") as top:
                shutil.copytree(place / "lower", f"/proc/self/fd/{top}", dirs_exist_ok=True)
            base = layers.commit(None, "work")
            layers.add_layer(BytesIO(archive(entries)), base.name)

            assert layers.check(full=True) == []
        finally:
            engine.close()
