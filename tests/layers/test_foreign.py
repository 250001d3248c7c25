"""Archives of other kinds become tar; what is tar, or nothing at all, goes on as it is."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from stowage.errors import InvalidArchive
from stowage.layers.foreign import as_tar
from stowage.layers.tree import Tree
from stowage.layers.unpack import unpack

from .archives import Entry, archive, root_of
from .trees import build, directory, file, observe, symlink

pytestmark = pytest.mark.requires_root


def written(source: Path, form: str) -> bytes:
    """Everything beneath *source* in an archive of libarchive's own making."""
    import libarchive

    raw = bytearray()

    def take(data: bytes) -> int:
        raw.extend(data)
        return len(data)

    before = Path.cwd()
    os.chdir(source)
    try:
        with libarchive.custom_writer(take, form) as out:
            out.add_files(".")
    finally:
        os.chdir(before)
    return bytes(raw)


def converted(raw: bytes, target: Path) -> None:
    with as_tar(io.BytesIO(raw)) as tar, root_of(target) as root:
        unpack(tar, Tree(root))


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
@pytest.mark.parametrize("form", ["cpio_newc", "cpio", "zip", "7zip", "iso9660"])
def test_another_archive_gives_the_same_files(
    shm_dir: Path, form: str, compress: Callable[[bytes], bytes]
) -> None:
    source, target = shm_dir / "source", shm_dir / "target"
    source.mkdir()
    target.mkdir()
    build(source, {
        b"": directory(), b"bin": directory(), b"bin/sh": file(b"#!" * 5000, mode=0o755),
        b"empty": file(), b"link": symlink(b"bin/sh"),
    })  # fmt: skip

    converted(compress(written(source, form)), target)

    before, after = observe(source), observe(target)
    for path in (b"bin/sh", b"empty", b"link"):
        one, other = before[path], after[path]
        assert (one.kind, one.digest, one.target) == (other.kind, other.digest, other.target)
        if form.startswith("cpio"):
            assert (one.mode, one.mtime_ns) == (other.mode, other.mtime_ns)
    assert after[b"bin"].kind == before[b"bin"].kind


@pytest.mark.parametrize("contents", [b"", b"shared"])
def test_hard_links_of_cpio_are_kept(shm_dir: Path, contents: bytes) -> None:
    """newc brings the contents with the last name."""
    source, target = shm_dir / "source", shm_dir / "target"
    source.mkdir()
    target.mkdir()
    (source / "a").write_bytes(contents)
    os.link(source / "a", source / "b")
    os.link(source / "a", source / "c")

    converted(written(source, "cpio_newc"), target)

    seen = observe(target)
    assert {seen[name].links for name in (b"a", b"b", b"c")} == {b"a"}
    assert (target / "b").read_bytes() == contents


def test_tar_goes_on_unchanged() -> None:
    raw = archive([Entry(b"f", data=b"x" * 3000)])

    with as_tar(io.BytesIO(gzip.compress(raw))) as tar:
        assert tar.read() == raw


@pytest.mark.parametrize(
    "raw", [b"", b"junk" * 1000, b"#mtree\n./f type=file contents=/etc/passwd\n" * 20]
)
def test_what_no_reader_knows_is_refused_when_it_is_unpacked(shm_dir: Path, raw: bytes) -> None:
    """mtree, which could name files of this machine, is no archive to us."""
    with pytest.raises(InvalidArchive):
        converted(raw, shm_dir)

    assert os.listdir(shm_dir) == []


def test_a_damaged_archive_is_refused(shm_dir: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("f", os.urandom(50_000))
    raw = bytearray(out.getvalue())
    raw[20_000] ^= 0xFF

    with pytest.raises(InvalidArchive):
        converted(bytes(raw), shm_dir)


def test_names_cannot_lead_out(shm_dir: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        made.writestr("../outside", "x")

    with pytest.raises(InvalidArchive, match="out of itself"):
        converted(out.getvalue(), shm_dir)


def test_nothing_is_left_in_the_temporary_directory(shm_dir: Path) -> None:
    (shm_dir / "s").mkdir()
    (shm_dir / "s/f").write_bytes(b"x")
    raw = written(shm_dir / "s", "zip")
    before = set(os.listdir(tempfile.gettempdir()))
    (shm_dir / "t").mkdir()

    converted(raw, shm_dir / "t")

    assert set(os.listdir(tempfile.gettempdir())) <= before
    assert subprocess.run(["ls", shm_dir / "t"], capture_output=True).stdout == b"f\n"
