"""What is packed is read alike by GNU tar, Python's tarfile and libarchive; and what is in it."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given

from stowage.layers.diff import pack_comparison
from stowage.layers.tarwriter import data_extents

from .archives import root_of
from .trees import Model, Node, build, differences, directory, file, models, observe, symlink

pytestmark = pytest.mark.requires_root


def packed(tree: Path) -> bytes:
    out = io.BytesIO()
    with root_of(tree) as root:
        pack_comparison(None, root, out, sealed_ns=None)
    return out.getvalue()


@given(model=models())
def test_gnu_tar_makes_the_same_tree(session_dir: Path, model: Model) -> None:
    with tempfile.TemporaryDirectory(dir=session_dir) as name:
        tree, copy = Path(name, "tree"), Path(name, "copy")
        tree.mkdir()
        copy.mkdir()
        build(tree, model)

        quiet = ["--warning=no-timestamp", "--warning=no-unknown-keyword"]
        said = subprocess.run(
            ["tar", "-C", copy, *quiet, "--numeric-owner", "--xattrs",
             "--xattrs-include=*", "-xpf-"],
            input=packed(tree), capture_output=True, check=True,
        ).stderr  # fmt: skip

        assert said == b""
        assert differences(observe(copy), observe(tree)) == []


@given(model=models())
def test_pythons_tarfile_reads_the_same(session_dir: Path, model: Model) -> None:
    with tempfile.TemporaryDirectory(dir=session_dir) as name:
        tree = Path(name)
        build(tree, model)
        seen = observe(tree)

        with tarfile.open(fileobj=io.BytesIO(packed(tree)), errors="surrogateescape") as tar:
            members = {os.fsencode(member.name): member for member in tar}
        members[b""] = members.pop(b".")

        assert set(members) == set(seen)
        for path, member in members.items():
            node = seen[path]
            if member.islnk():
                assert os.fsencode(member.linkname) == node.links
                continue
            assert (member.mode, member.uid, member.gid) == (node.mode, node.uid, node.gid)
            assert abs(member.mtime - node.mtime_ns / 1e9) < 1e-3
            assert member.uname == member.gname == ""
            if member.isfile():
                assert member.size == node.size


def libarchive_entries(raw: bytes) -> Iterator[tuple[bytes, int, int, int, int, bytes]]:
    """Name, mode, uid, gid, size and contents as libarchive has them."""
    from ctypes import byref, c_size_t, c_void_p, create_string_buffer, string_at

    from libarchive import ffi

    reader = ffi.read_new()
    ffi.get_read_format_function("tar")(reader)
    ffi.get_read_filter_function("none")(reader)
    buffer = create_string_buffer(raw, len(raw))
    ffi.read_open_memory(reader, buffer, c_size_t(len(raw)))
    entry = c_void_p()
    try:
        while ffi.read_next_header(reader, byref(entry)) != ffi.ARCHIVE_EOF:
            size = ffi.entry_size(entry)
            content = b""
            if stat.S_ISREG(ffi.entry_filetype(entry)) and not ffi.entry_hardlink(entry):
                data = create_string_buffer(size + 1)
                taken = ffi.read_data(reader, data, c_size_t(size)) if size else 0
                content = string_at(data, taken)
            yield (
                ffi.entry_pathname(entry), ffi.entry_mode(entry), ffi.entry_uid(entry),
                ffi.entry_gid(entry), size, content,
            )  # fmt: skip
    finally:
        ffi.read_free(reader)


@given(model=models())
def test_libarchive_reads_the_same(session_dir: Path, model: Model) -> None:
    with tempfile.TemporaryDirectory(dir=session_dir) as name:
        tree = Path(name)
        build(tree, model)
        seen = observe(tree)
        first = {node.links for node in seen.values()}

        entries = list(libarchive_entries(packed(tree)))

    assert [path.removeprefix(b"./").rstrip(b"/") for path, *_ in entries] == _in_order(seen)
    for path, mode, uid, gid, size, content in entries:
        node = seen[path.removeprefix(b"./").rstrip(b"/")]
        assert (stat.S_IMODE(mode), uid, gid) == (node.mode, node.uid, node.gid)
        if node.kind == stat.S_IFREG and path in first:
            whole = content.ljust(size, b"\0")  # it gives nothing of a hole at the end
            assert (size, hashlib.md5(whole).digest()) == (node.size, node.digest)


def _in_order(paths: Iterable[bytes]) -> list[bytes]:
    return sorted(paths, key=lambda path: path.split(b"/") if path else [])


def test_names_of_users_and_further_times_are_not_in_it(shm_dir: Path) -> None:
    build(shm_dir, {b"": directory(), b"f": file(b"x", mtime_ns=1)})

    with tarfile.open(fileobj=io.BytesIO(packed(shm_dir))) as tar:
        pax = tar.getmember("f").pax_headers

    assert set(pax) == {"mtime"}


def test_values_that_do_not_fit_a_header_are_in_records(shm_dir: Path) -> None:
    facts = {"uid": 2**31, "gid": 3_000_000, "mtime_ns": 2**34 * 10**9}
    build(shm_dir, {b"": directory(), b"n" * 101: symlink(b"t" * 101, **facts)})

    with tarfile.open(fileobj=io.BytesIO(packed(shm_dir))) as tar:
        (member,) = [member for member in tar if member.issym()]

    assert set(member.pax_headers) == {"path", "linkpath", "uid", "gid", "mtime"}
    assert (member.uid, member.gid, member.mtime) == (2**31, 3_000_000, 2**34)


def test_sockets_are_left_out(shm_dir: Path) -> None:
    os.mknod(shm_dir / "socket", stat.S_IFSOCK | 0o600)
    (shm_dir / "file").touch()

    with tarfile.open(fileobj=io.BytesIO(packed(shm_dir))) as tar:
        assert tar.getnames() == [".", "file"]


def test_a_file_of_holes_takes_no_room(shm_dir: Path) -> None:
    build(shm_dir, {b"": directory(), b"h": Node("file", content=((1 << 30, b"x"),), size=2 << 30)})

    assert len(packed(shm_dir)) < 20_000


def test_a_file_without_holes_is_not_sparse(disk_dir: Path) -> None:
    (disk_dir / "f").write_bytes(os.urandom(100_000))
    with (disk_dir / "f").open("rb") as opened:
        os.fsync(opened.fileno())
        assert data_extents(opened.fileno(), 100_000) is None


def test_access_times_stay(ext4_dir: Path) -> None:
    (ext4_dir / "f").write_text("x")
    os.utime(ext4_dir / "f", ns=(5, 10**18))

    packed(ext4_dir)

    assert (ext4_dir / "f").stat().st_atime_ns == 5


def test_trees_deeper_than_a_path_may_be_long_are_packed_and_unpacked(shm_dir: Path) -> None:
    from .archives import unpack_into

    source, target = shm_dir / "source", shm_dir / "target"
    source.mkdir()
    target.mkdir()
    at = os.open(source, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("dir", dir_fd=at)
        below = os.open("dir", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(os.open("f", os.O_WRONLY | os.O_CREAT, dir_fd=at))
    os.close(at)
    try:
        raw = packed(source)
        unpack_into(target, raw)

        assert packed(target) == raw
    finally:
        subprocess.run(["rm", "-rf", source, target], check=True)
