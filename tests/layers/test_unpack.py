"""What unpacking makes of members: kinds, attributes, replacement, links, sparse files, limits."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import struct
import subprocess
import tarfile
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowage.errors import InvalidArchive, NoSpace, NotSupported
from stowage.layers.tree import Tree
from stowage.layers.unpack import UnpackLimits, unpack

from .archives import MTIME, Entry, archive, folder, hard, root_of, sym, unpack_into
from .trees import Model, build, differences, models, observe

pytestmark = pytest.mark.requires_root


def test_the_diff_id_is_of_the_uncompressed_archive(shm_dir: Path) -> None:
    raw = archive([Entry(b"a", data=b"x" * 700_000)]) + bytes(10_240)

    unpacked = unpack_into(shm_dir, gzip.compress(raw))

    assert unpacked.diff_id == "sha256:" + hashlib.sha256(raw).hexdigest()
    assert (unpacked.size_bytes, unpacked.entries) == (len(raw), 1)


def test_every_kind_gets_its_attributes_whatever_the_umask(shm_dir: Path) -> None:
    kinds = [
        folder(b"d", 0o1777, uid=7, gid=8),
        Entry(b"d/f", data=b"data", mode=0o6755, uid=70_000, gid=2**31, mtime=MTIME + 0.5),
        Entry(b"d/none", mode=0),
        Entry(b"fifo", tarfile.FIFOTYPE, mode=0o622),
        Entry(b"null", tarfile.CHRTYPE, mode=0o666, device=(1, 3)),
        Entry(b"disk", tarfile.BLKTYPE, mode=0o660, device=(7, 300)),
        sym(b"s", b"/no/where"),
    ]
    before = os.umask(0o077)
    try:
        unpack_into(shm_dir, kinds)
    finally:
        os.umask(before)

    seen = observe(shm_dir)
    formats = {
        tarfile.DIRTYPE: stat.S_IFDIR, tarfile.REGTYPE: stat.S_IFREG,
        tarfile.FIFOTYPE: stat.S_IFIFO, tarfile.CHRTYPE: stat.S_IFCHR,
        tarfile.BLKTYPE: stat.S_IFBLK, tarfile.SYMTYPE: stat.S_IFLNK,
    }  # fmt: skip
    for entry in kinds:
        found = seen[entry.name]
        assert found.kind == formats[entry.type]
        assert (found.uid, found.gid, found.mode) == (entry.uid, entry.gid, entry.mode)
        assert found.mtime_ns == int(entry.mtime * 1_000_000_000)
        assert found.device == os.makedev(*entry.device)
        assert found.target == entry.link


@pytest.mark.parametrize(
    ("written", "nanoseconds"),
    [
        ("1700000000.123456789", 1_700_000_000_123_456_789),
        ("1700000000.1234567899", 1_700_000_000_123_456_789),
        ("-1.5", -1_500_000_000),
        ("-0.25", -250_000_000),
        ("8589934592.5", 8_589_934_592_500_000_000),
    ],
)
def test_times_keep_nanoseconds_before_1970_and_after_2038(
    shm_dir: Path, written: str, nanoseconds: int
) -> None:
    unpack_into(
        shm_dir, [Entry(b"f", pax={"mtime": written}), folder(b"d", pax={"mtime": written})]
    )

    assert observe(shm_dir)[b"f"].mtime_ns == nanoseconds
    assert observe(shm_dir)[b"d"].mtime_ns == nanoseconds


CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)  # v2, cap_net_raw


def test_file_capabilities_survive_the_owner(disk_dir: Path) -> None:
    """chown(2) drops them, so they are set after it (moby PR 42934)."""
    value = CAPABILITY.decode("latin-1").encode("latin-1").decode("utf-8", "surrogateescape")
    unpack_into(
        disk_dir,
        [Entry(b"ping", uid=1, mode=0o4755, pax={"SCHILY.xattr.security.capability": value})],
    )

    assert os.getxattr(disk_dir / "ping", "security.capability") == CAPABILITY
    assert (disk_dir / "ping").stat().st_mode & 0o7777 == 0o4755


def test_acls_as_text_become_the_kernels(ext4_dir: Path) -> None:
    text = "user::rw-,user:joe:r-x:1000,group::r--,mask::r-x,other::---"
    unpack_into(
        ext4_dir,
        [Entry(b"f", mode=0o650, pax={"SCHILY.acl.access": text}),
         folder(b"d", pax={"SCHILY.acl.default": text})],
    )  # fmt: skip

    rows = [(1, 6, -1), (2, 5, 1000), (4, 4, -1), (16, 5, -1), (32, 0, -1)]
    expected = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *row) for row in rows)
    assert os.getxattr(ext4_dir / "f", "system.posix_acl_access") == expected
    assert os.getxattr(ext4_dir / "d", "system.posix_acl_default") == expected


def test_an_acl_of_somebody_without_a_number_is_refused(shm_dir: Path) -> None:
    with pytest.raises(InvalidArchive, match="ACL"):
        unpack_into(shm_dir, [Entry(b"f", pax={"SCHILY.acl.access": "user:joe:rw-"})])


def test_a_default_acl_of_a_directory_is_not_inherited(ext4_dir: Path) -> None:
    """What an archive says of a file is all that it has."""
    (ext4_dir / "d").mkdir()
    rows = [(1, 7, -1), (2, 7, 1000), (4, 5, -1), (16, 7, -1), (32, 5, -1)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *row) for row in rows)
    os.setxattr(ext4_dir / "d", "system.posix_acl_default", acl)

    unpack_into(ext4_dir, [Entry(b"d/f"), folder(b"d/sub")])

    assert os.listxattr(ext4_dir / "d/f") == os.listxattr(ext4_dir / "d/sub") == []
    assert os.getxattr(ext4_dir / "d", "system.posix_acl_default") == acl


def test_an_archive_cannot_make_a_file_immutable(shm_dir: Path) -> None:
    unpack_into(shm_dir, [Entry(b"f", pax={"SCHILY.fflags": "schg,uchg,immutable"})])

    (shm_dir / "f").write_bytes(b"still writable")


# --- replacing --------------------------------------------------------------------------------


def test_a_directory_over_a_directory_changes_attributes_only(shm_dir: Path) -> None:
    (shm_dir / "d").mkdir()
    (shm_dir / "d/kept").write_text("x")
    os.setxattr(shm_dir / "d", "user.old", b"1")

    unpack_into(shm_dir, [folder(b"d", 0o700, uid=5)])

    seen = observe(shm_dir)
    assert (seen[b"d"].mode, seen[b"d"].uid, seen[b"d"].xattrs) == (0o700, 5, ())
    assert b"d/kept" in seen


@pytest.mark.parametrize("old", [folder(b"x"), Entry(b"x", data=b"1"), sym(b"x", b"y"),
                                 Entry(b"x", tarfile.FIFOTYPE)])  # fmt: skip
@pytest.mark.parametrize("new", [folder(b"x"), Entry(b"x", data=b"2"), sym(b"x", b"z"),
                                 hard(b"x", b"other")])  # fmt: skip
@pytest.mark.parametrize("together", [True, False])
def test_anything_else_is_removed_and_made_anew(
    shm_dir: Path, old: Entry, new: Entry, together: bool
) -> None:
    first = [Entry(b"other", data=b"o"), old]
    if old.type == tarfile.DIRTYPE and new.type != tarfile.DIRTYPE:
        first += [folder(b"x/deep"), Entry(b"x/deep/file")]
    if together:
        unpack_into(shm_dir, [*first, new])
    else:
        unpack_into(shm_dir, first)
        unpack_into(shm_dir, [new])

    found = observe(shm_dir)
    assert set(found) == {b"", b"other", b"x"}
    assert found[b"x"].target == (new.link if new.type == tarfile.SYMTYPE else b"")
    if new.type == tarfile.LNKTYPE:
        assert found[b"x"].links == found[b"other"].links == b"other"


def test_a_directory_that_is_not_described_keeps_its_time(shm_dir: Path) -> None:
    (shm_dir / "d").mkdir()
    os.utime(shm_dir / "d", ns=(1, 2))

    unpack_into(shm_dir, [Entry(b"d/f"), Entry(b"new/f")])

    seen = observe(shm_dir)
    assert seen[b"d"].mtime_ns == 2
    assert (seen[b"new"].mode, seen[b"new"].uid, seen[b"new"].mtime_ns) == (0o755, 0, 0)


def test_members_below_a_symlink_go_where_it_leads_inside(shm_dir: Path) -> None:
    unpack_into(
        shm_dir,
        [folder(b"usr"), folder(b"usr/lib"), sym(b"lib", b"/usr/lib"), Entry(b"lib/a"),
         sym(b"deep", b"not/there/yet"), Entry(b"deep/b"), hard(b"lib/c", b"lib/a")],
    )  # fmt: skip

    seen = observe(shm_dir)
    assert {b"usr/lib/a", b"not/there/yet/b", b"usr/lib/c"} < set(seen)
    assert seen[b"usr/lib/c"].links == b"usr/lib/a"


# --- formats ----------------------------------------------------------------------------------


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_all_formats_mean_the_same(shm_dir: Path, format: int) -> None:
    long = b"directory/" * 9 + b"name" * 20
    entries = [Entry(long, data=b"1"), hard(b"h", long[:90] + long[90:]), Entry(b"plain")]
    if format == tarfile.USTAR_FORMAT:
        entries.pop(1)  # a link of 170 bytes does not fit

    unpack_into(shm_dir, archive(entries, format))

    assert long in observe(shm_dir)


@pytest.mark.parametrize("size", [255, 4095, 4096, 20_000])
def test_names_as_long_as_they_come(shm_dir: Path, size: int) -> None:
    name = (b"d" * 99 + b"/") * (size // 100) + b"n" * (size % 100 or 100)
    name = name[:size].rstrip(b"/").ljust(size, b"n")

    unpack_into(shm_dir, [Entry(name, data=b"here")])

    with root_of(shm_dir) as root:
        *parents, last = name.split(b"/")
        at = os.dup(root)
        for parent in parents:
            below = os.open(parent, os.O_RDONLY, dir_fd=at)
            os.close(at)
            at = below
        assert os.stat(last, dir_fd=at).st_size == 4
        os.close(at)
    subprocess.run(["rm", "-rf", shm_dir / name[:50].decode()], check=True)


@pytest.mark.parametrize(
    "name", [b"\xff\xfe\xfd", b"n\nl", b"-rf", b"a\\b", b"a:b,c", b" ", b"\x01"]
)
@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_are_bytes(shm_dir: Path, name: bytes, format: int) -> None:
    long = b"d/" * 60 + name

    unpack_into(shm_dir, archive([Entry(name), sym(b"s", name), Entry(long)], format))

    assert {name, long} < set(observe(shm_dir))
    assert observe(shm_dir)[b"s"].target == name


def gnu_tar(directory: Path, *arguments: str) -> bytes:
    return subprocess.run(
        ["tar", "-C", directory, "--numeric-owner", *arguments, "-cf", "-", "."],
        check=True,
        stdout=subprocess.PIPE,
    ).stdout


SPARSE = ["--format=gnu", "--format=pax --sparse-version=0.0", "--format=pax --sparse-version=0.1",
          "--format=pax --sparse-version=1.0"]  # fmt: skip


@pytest.mark.parametrize("options", SPARSE)
@pytest.mark.parametrize("holes", [1, 3, 60])
def test_sparse_files_stay_sparse(shm_dir: Path, options: str, holes: int) -> None:
    source, target = shm_dir / "source", shm_dir / "target"
    source.mkdir()
    target.mkdir()
    with (source / "f").open("wb") as out:
        for number in range(holes):
            out.seek(65_536 * (2 * number + 1))
            out.write(bytes([number + 1]) * 5000)
        out.truncate(65_536 * (2 * holes + 1))
    (source / "empty").touch()
    os.truncate(source / "empty", 1 << 22)

    unpack_into(target, gnu_tar(source, "--sparse", *options.split()))

    one, other = observe(source), observe(target)
    for name in (b"f", b"empty"):
        assert (one[name].digest, one[name].holes) == (other[name].digest, other[name].holes)


@given(models())
def test_what_gnu_tar_packs_comes_out_the_same(session_dir: Path, model: Model) -> None:
    with tempfile.TemporaryDirectory(dir=session_dir) as place:
        source, target = Path(place, "source"), Path(place, "target")
        source.mkdir()
        target.mkdir()
        build(source, model)
        raw = gnu_tar(source, "--format=pax", "--sparse", "--xattrs", "--xattrs-include=*")

        unpack_into(target, raw)

        assert differences(observe(target), observe(source)) == []


# --- limits and damage ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "said"),
    [(UnpackLimits(entries=2), "2 entries"), (UnpackLimits(size_bytes=1000), "1000 bytes")],
)
def test_a_limit_is_named_when_it_is_passed(shm_dir: Path, limits: UnpackLimits, said: str) -> None:
    with pytest.raises(InvalidArchive, match=said):
        unpack_into(shm_dir, [Entry(b"%d" % n, data=b"x" * 600) for n in range(3)], limits)


def test_zeros_without_end_are_a_bomb_too(shm_dir: Path) -> None:
    raw = gzip.compress(archive([Entry(b"a")]) + bytes(50 << 20))

    with pytest.raises(InvalidArchive, match="at its end"):
        unpack_into(shm_dir, raw, UnpackLimits(size_bytes=1 << 20))


WHOLE = archive([folder(b"d"), Entry(b"d/f", data=b"x" * 1500), sym(b"s", b"t"),
                 Entry(b"e", pax={"SCHILY.xattr.user.k": "v"})])  # fmt: skip


@given(cut=st.integers(0, WHOLE.rstrip(b"\0").__len__()))
def test_a_truncated_archive_is_refused(session_dir: Path, cut: int) -> None:
    with pytest.raises(InvalidArchive):
        _unpack_fresh(session_dir, WHOLE[:cut])


@given(junk=st.binary(max_size=3000))
def test_junk_is_refused(session_dir: Path, junk: bytes) -> None:
    with pytest.raises(InvalidArchive):
        _unpack_fresh(session_dir, junk + b"!" * 512)


@given(at=st.integers(0, len(WHOLE) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_harmless(session_dir: Path, at: int, bit: int) -> None:
    raw = bytearray(WHOLE)
    raw[at] ^= 1 << bit

    try:
        _unpack_fresh(session_dir, bytes(raw))
    except (InvalidArchive, NotSupported):  # no file system keeps an attribute "tser.k"
        pass


@given(field=st.sampled_from([(100, 8), (108, 8), (116, 8), (124, 12), (136, 12), (156, 1),
                              (257, 8), (329, 8), (337, 8), (345, 155)]),
       value=st.binary(min_size=1, max_size=12))  # fmt: skip
def test_a_field_with_any_value_is_refused_or_harmless(
    session_dir: Path, field: tuple[int, int], value: bytes
) -> None:
    """With a right checksum, so that the parser itself meets it."""
    raw = bytearray(archive([Entry(b"f", data=b"x" * 10)]))
    start, size = field
    raw[start : start + size] = value[:size].ljust(size, b"\0")
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw[:512])

    try:
        _unpack_fresh(session_dir, bytes(raw))
    except InvalidArchive:
        pass


@given(pax=st.binary(max_size=200))
def test_any_pax_header_is_refused_or_harmless(session_dir: Path, pax: bytes) -> None:
    raw = bytearray(archive([Entry(b"f", pax={"comment": "x" * max(len(pax) - 14, 1)})]))
    raw[512 : 512 + len(pax)] = pax

    try:
        _unpack_fresh(session_dir, bytes(raw))
    except (InvalidArchive, NotSupported):
        pass


def _unpack_fresh(base: Path, raw: bytes) -> None:
    with tempfile.TemporaryDirectory(dir=base) as place:
        unpack_into(Path(place), raw, UnpackLimits(size_bytes=1 << 24))


def test_a_full_disk_is_said_and_leaves_no_thread(shm_dir: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "small", shm_dir], check=True)
    try:
        with pytest.raises(NoSpace):
            unpack_into(shm_dir, [Entry(b"f", data=os.urandom(3 << 20))])
    finally:
        subprocess.run(["umount", shm_dir], check=True)

    assert not [thread for thread in threading.enumerate() if "stowage" in thread.name]


def test_an_error_of_the_stream_itself_is_not_blamed_on_the_archive(shm_dir: Path) -> None:
    class Broken(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise OSError(5, "Input/output error")

    with root_of(shm_dir) as root, pytest.raises(Exception, match="Input/output") as caught:
        unpack(Broken(), Tree(root))  # type: ignore[arg-type]  # as BinaryIO
    assert not isinstance(caught.value, InvalidArchive)
