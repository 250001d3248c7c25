"""An archive comes out of its recipe and tree byte for byte, or the file that changed is named."""

from __future__ import annotations

import bz2
import hashlib
import io
import os
import random
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowage.errors import DataLoss
from stowage.layers.diff import pack_comparison
from stowage.layers.recipe import reassemble, verify
from stowage.layers.tree import Tree
from stowage.layers.unpack import unpack

from .archives import Entry, archive, folder, hard, root_of, sym
from .test_unpack import gnu_tar
from .trees import Model, build, models

pytestmark = pytest.mark.requires_root


def unpacked(target: Path, raw: bytes) -> io.BytesIO:
    recipe = io.BytesIO()
    with root_of(target) as root:
        unpack(io.BytesIO(raw), Tree(root), recipe=recipe)
    return recipe


def assembled(recipe: io.BytesIO, target: Path) -> bytes:
    out = io.BytesIO()
    with root_of(target) as root:
        diff_id = reassemble(recipe, root, out)
    assert diff_id == "sha256:" + hashlib.sha256(out.getvalue()).hexdigest()
    return out.getvalue()


def differing(recipe: io.BytesIO, target: Path) -> list[str]:
    with root_of(target) as root:
        return list(verify(recipe, root))


MAKERS = ["--format=v7", "--format=ustar", "--format=oldgnu", "--format=gnu", "--format=pax",
          "--format=gnu --sparse", "--format=pax --sparse --sparse-version=0.0",
          "--format=pax --sparse --sparse-version=0.1", "--format=pax --sparse", "--format=gnu -b1",
          "--format=pax --xattrs --xattrs-include=*", "--format=gnu --label=volume"]  # fmt: skip


@pytest.mark.parametrize("options", MAKERS)
def test_gnu_tars_archives_come_out_as_they_were(shm_dir: Path, options: str) -> None:
    source, target = shm_dir / "source", shm_dir / "target"
    source.mkdir()
    target.mkdir()
    (source / "d").mkdir()
    (source / "d/data").write_bytes(os.urandom(700_001))
    (source / "empty").touch()
    os.link(source / "d/data", source / "d/twin")
    (source / "link").symlink_to("d/data")
    if "v7" not in options:  # it has no fifos
        os.mkfifo(source / "fifo")
    (source / "holes").touch()
    os.truncate(source / "holes", 1 << 20)
    with (source / "d/holes").open("wb") as out:
        for number in range(30):
            out.seek(number * 40_000)
            out.write(b"x")
    if "v7" not in options and "ustar" not in options:
        (source / ("n" * 200)).write_bytes(b"long")
        (source / "deep").mkdir()
        (source / "deep" / ("m" * 180)).symlink_to("t" * 180)
    raw = gnu_tar(source, *options.split())

    recipe = unpacked(target, raw)

    assert assembled(recipe, target) == raw
    assert differing(recipe, target) == []


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("tail", [b"", bytes(512), b"junk behind the end" * 40])
def test_pythons_archives_come_out_as_they_were(shm_dir: Path, format: int, tail: bytes) -> None:
    raw = archive(
        [folder(b"./"), Entry(b"./a", data=b"x" * 5000), sym(b"s", b"a"), hard(b"h", b"a"),
         Entry(b".wh.gone", data=b"even with contents" * 50), Entry(b"a/../b", data=b"b")],
        format,
    ) + tail  # fmt: skip

    recipe = unpacked(shm_dir, raw)

    assert assembled(recipe, shm_dir) == raw


@pytest.mark.parametrize(
    "later",
    [
        [Entry(b"d/f", data=b"second" * 300)],
        [Entry(b"d/f", data=b"second"), Entry(b"d/f", data=b"third")],
        [sym(b"d/f", b"x")],
        [Entry(b"d", data=b"a file now")],
        [sym(b"d", b"e"), Entry(b"d/f", data=b"in e")],
        [hard(b"d/f", b"other")],
        [hard(b"twin", b"d/f"), Entry(b"d/f", data=b"second")],
    ],
)
def test_what_a_later_member_replaced_is_kept(shm_dir: Path, later: list[Entry]) -> None:
    """The tree holds only the last of several members of one path (duplicates are allowed)."""
    first = [folder(b"e"), folder(b"d"), Entry(b"other", data=b"o"),
             Entry(b"d/f", data=b"first" * 100_000), Entry(b"d/g", data=b"g")]  # fmt: skip
    raw = archive([*first, *later, Entry(b"end", data=b"end")])

    recipe = unpacked(shm_dir, raw)

    assert assembled(recipe, shm_dir) == raw
    assert differing(recipe, shm_dir) == []


def test_payloads_below_symlinks_are_found_where_they_went(shm_dir: Path) -> None:
    raw = archive([folder(b"usr"), sym(b"lib", b"/usr"), Entry(b"lib/f", data=b"x" * 999)])

    recipe = unpacked(shm_dir, raw)

    assert assembled(recipe, shm_dir) == raw


@given(model=models())
def test_packing_writes_the_recipe_of_what_it_packs(session_dir: Path, model: Model) -> None:
    with tempfile.TemporaryDirectory(dir=session_dir) as name:
        tree, copy = Path(name, "tree"), Path(name, "copy")
        tree.mkdir()
        copy.mkdir()
        build(tree, model)
        out, recipe = io.BytesIO(), io.BytesIO()
        with root_of(tree) as root:
            packed = pack_comparison(None, root, out, sealed_ns=None, recipe=recipe)

        assert packed.diff_id == "sha256:" + hashlib.sha256(out.getvalue()).hexdigest()
        assert packed.size_bytes == len(out.getvalue())
        assert assembled(recipe, tree) == out.getvalue()
        assert assembled(unpacked(copy, out.getvalue()), copy) == out.getvalue()


RAW = archive(
    [folder(b"d"), Entry(b"d/f", data=b"x" * 5000), Entry(b"empty"), Entry(b"g", data=b"g")]
)


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        ("echo >> d/f", "/d/f"),
        ("printf y | dd of=d/f bs=1 seek=77 conv=notrunc status=none", "/d/f"),
        ("truncate -s 4999 d/f", "/d/f"),
        ("echo x > empty", "/empty"),
        ("rm g", "/g"),
        ("rm g; mkdir g", "/g"),
        ("rm g; mkfifo g", "/g"),
        ("cp g /tmp/.g$$; rm g; ln -s /tmp/.g$$ g; rm -f /tmp/.g$$", "/g"),
        ("mv d e; ln -s e d", "/d/f"),
    ],
)
def test_a_file_that_changed_is_named(shm_dir: Path, harm: str, named: str) -> None:
    recipe = unpacked(shm_dir, RAW)
    subprocess.run(harm, shell=True, cwd=shm_dir, check=True)

    assert differing(recipe, shm_dir) == [named]
    with pytest.raises(DataLoss, match=named):
        assembled(recipe, shm_dir)


def test_data_in_what_was_a_hole_are_a_change(shm_dir: Path) -> None:
    source, target = shm_dir / "s", shm_dir / "t"
    source.mkdir()
    target.mkdir()
    (source / "f").write_bytes(b"x")
    os.truncate(source / "f", 1 << 20)
    recipe = unpacked(target, gnu_tar(source, "--sparse", "--format=pax"))

    assert differing(recipe, target) == []
    with (target / "f").open("r+b") as out:
        out.seek(500_000)
        out.write(b"!")
    assert differing(recipe, target) == ["/f"]


@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_damaged_recipe_never_gives_another_archive(
    session_dir: Path, at: float, bit: int
) -> None:
    with tempfile.TemporaryDirectory(dir=session_dir) as name:
        recipe = bytearray(unpacked(Path(name), RAW).getvalue())
        recipe[int(at * len(recipe))] ^= 1 << bit

        try:
            assert assembled(io.BytesIO(bytes(recipe)), Path(name)) == RAW
        except DataLoss:
            pass


@given(size=st.floats(0, 1, exclude_max=True))
def test_a_truncated_recipe_is_refused(session_dir: Path, size: float) -> None:
    """All that counts is in front of the last frame's four bytes of checksum."""
    with tempfile.TemporaryDirectory(dir=session_dir) as name:
        recipe = unpacked(Path(name), RAW).getvalue()[:-4]

        with pytest.raises(DataLoss):
            assembled(io.BytesIO(recipe[: int(size * len(recipe))]), Path(name))


def test_a_recipe_is_small(shm_dir: Path) -> None:
    entries = [Entry(b"f%d" % n, data=random.Random(n).randbytes(5000)) for n in range(300)]
    raw = archive(entries)

    assert len(unpacked(shm_dir, raw).getvalue()) < len(raw) / 50


def test_the_recipe_of_a_compressed_archive_gives_the_uncompressed_one(shm_dir: Path) -> None:
    recipe = unpacked(shm_dir, bz2.compress(RAW))

    assert assembled(recipe, shm_dir) == RAW
