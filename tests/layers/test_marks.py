"""Extended attributes that some overlay would take for its marks: content, wherever they lie.

``trusted.overlay.*`` is content to a full tree and to an overlay with ``userxattr``, and so is
``user.overlay.*`` to any other; in the tree of an overlay its own are escaped, and nothing that
an archive asks for becomes one that the kernel obeys.
"""

from __future__ import annotations

import io
import os
import struct
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stowage.layers.diff import pack_comparison, pack_tree
from stowage.layers.tree import Tree
from stowage.layers.unpack import unpack
from stowage.model import WhiteoutForm

from .archives import Entry, archive, folder, hard, root_of, unpack_into
from .trees import observe

pytestmark = pytest.mark.requires_root

TRUSTED = "trusted.overlay."
NAMES = [
    f"{prefix}{mark}"
    for prefix in (TRUSTED, "user.overlay.")
    for mark in ("opaque", "redirect", "metacopy", "overlay.opaque")
]
ROWS = [(1, 7, -1), (4, 5, -1), (32, 5, -1)]
DEFAULT_ACL = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *row) for row in ROWS)


def marked(*names: str) -> dict[str, str]:
    return {f"SCHILY.xattr.{name}": "y" for name in names}


def layer(path: Path, *entries: Entry, lower: Path | None = None, xattrs: bool = False) -> None:
    """Unpack into a tree of changes as an overlay's layer."""
    path.mkdir(exist_ok=True)
    opener: Callable[[], int] | None = None
    if lower is not None:
        opener = lambda: os.open(lower, os.O_RDONLY | os.O_DIRECTORY)  # noqa: E731
    with root_of(path) as root:
        tree = Tree(root, WhiteoutForm.OVERLAY, TRUSTED, xattrs, opener)
        unpack(io.BytesIO(archive(entries)), tree)


@contextmanager
def overlaid(place: Path, lowers: list[Path], *, upper: bool = False) -> Iterator[Path]:
    """The kernel's view of some layers, the topmost first."""
    for name in ("merged", "none", "upper", "work"):
        (place / name).mkdir(exist_ok=True)
    options = f"lowerdir={':'.join(map(str, [*lowers, place / 'none']))}"
    if upper:
        options += f",upperdir={place}/upper,workdir={place}/work"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "o", place / "merged"], check=True)
    try:
        yield place / "merged"
    finally:
        subprocess.run(["umount", place / "merged"], check=True)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layered", [False, True])
def test_what_is_packed_can_be_unpacked(shm_dir: Path, layered: bool, name: str) -> None:
    """One setfattr(1) in a container must not keep it from being committed."""
    one, other = shm_dir / "one", shm_dir / "other"
    entries = [folder(b"d", pax=marked(name)), Entry(b"f", pax=marked(name))]
    out = io.BytesIO()
    if layered:
        layer(one, *entries)
        with root_of(one) as root:
            pack_tree(Tree(root, WhiteoutForm.OVERLAY, TRUSTED), out)
    else:
        one.mkdir()
        unpack_into(one, entries)
        with root_of(one) as root:
            pack_comparison(None, root, out, sealed_ns=None)
    other.mkdir()
    unpack_into(other, out.getvalue())

    seen = observe(other)
    assert seen[b"d"].xattrs == seen[b"f"].xattrs == ((name, b"y"),)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        assert tar.getmember("d").pax_headers[f"SCHILY.xattr.{name}"] == "y"


def test_no_mark_of_an_archive_is_one_to_the_kernel(shm_dir: Path) -> None:
    base, top = shm_dir / "base", shm_dir / "top"
    layer(base, Entry(b"d/hidden", data=b"x"), folder(b"e"))
    layer(
        top,
        folder(b"d", pax=marked(*NAMES)),
        Entry(b"e/f", data=b"own", pax=marked(*NAMES)),
    )
    with overlaid(shm_dir, [top, base]) as merged:
        seen = observe(merged)

    assert seen.keys() == {b"", b"d", b"d/hidden", b"e", b"e/f"}
    assert {name for name, _ in seen[b"d"].xattrs} == set(NAMES)
    assert {name for name, _ in seen[b"e/f"].xattrs} == set(NAMES)


def test_a_file_that_is_copied_up_for_a_link_gets_no_marks(shm_dir: Path) -> None:
    """The merged tree shows the names as they were in the archive of the layer below."""
    base, top = shm_dir / "base", shm_dir / "top"
    trusted = [name for name in NAMES if name.startswith(TRUSTED)]
    layer(
        base,
        Entry(b"f", data=b"x", pax=marked(*trusted)),
        Entry(b"fifo", tarfile.FIFOTYPE, pax=marked(*trusted)),
        Entry(b"l", tarfile.SYMTYPE, link=b"f", pax=marked(*trusted)),
    )
    names = [b"f", b"fifo", b"l"]
    with overlaid(shm_dir, [base]) as merged:
        layer(top, *(hard(b"new-" + name, name) for name in names), lower=merged)

    raw = observe(top)
    with overlaid(shm_dir, [top, base]) as merged:
        seen = observe(merged)
    for name in names:
        assert all(key.startswith(f"{TRUSTED}overlay.") for key, _ in raw[b"new-" + name].xattrs)
        assert {key for key, _ in seen[b"new-" + name].xattrs} == set(trusted)


def test_a_directory_keeps_its_nested_marks_in_the_next_layer(shm_dir: Path) -> None:
    base, top = shm_dir / "base", shm_dir / "top"
    layer(base, folder(b"./", pax=marked(NAMES[1])), folder(b"d", pax=marked(*NAMES)))
    with overlaid(shm_dir, [base]) as merged:
        layer(top, Entry(b"d/new"), lower=merged)

    with overlaid(shm_dir, [top, base]) as merged:
        seen = observe(merged)
    assert {name for name, _ in seen[b"d"].xattrs} == set(NAMES)
    assert seen[b""].xattrs == ((NAMES[1], b"y"),)


def test_nested_marks_of_a_directory_that_was_copied_up_are_no_change(shm_dir: Path) -> None:
    base = shm_dir / "base"
    layer(base, folder(b"d", pax=marked(*NAMES)), Entry(b"d/f"))
    with overlaid(shm_dir, [base], upper=True) as merged:
        (merged / "d/f").write_bytes(b"new")
    out = io.BytesIO()
    with overlaid(shm_dir, [base]) as merged, root_of(shm_dir / "upper") as root:
        lower = lambda: os.open(merged, os.O_RDONLY | os.O_DIRECTORY)  # noqa: E731
        pack_tree(Tree(root, WhiteoutForm.OVERLAY, TRUSTED, lower=lower), out)

    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        headers = tar.getmember("d").pax_headers
        assert {f"SCHILY.xattr.{name}" for name in NAMES} <= headers.keys()
        assert tar.getmember("d/f").size == 3


def test_a_directorys_real_mark_outlives_new_attributes(shm_dir: Path) -> None:
    """What the archive does not ask for any more is the nested one."""
    layer(shm_dir / "top", folder(b"d", pax=marked(f"{TRUSTED}opaque")))
    os.setxattr(shm_dir / "top/d", f"{TRUSTED}opaque", b"y")

    layer(shm_dir / "top", folder(b"d"))

    assert os.listxattr(shm_dir / "top/d") == [f"{TRUSTED}opaque"]


def test_a_directory_is_not_given_back_a_mark_from_before(ext4_dir: Path) -> None:
    """One with a default ACL gets its attributes again in the end, but not those."""
    directory = ext4_dir / "top/d"
    directory.mkdir(parents=True)
    os.setxattr(directory, "system.posix_acl_default", DEFAULT_ACL)
    os.setxattr(directory, f"{TRUSTED}opaque", b"x")

    layer(ext4_dir / "top", Entry(b"d/.wh..wh..opq"), Entry(b"d/f"), xattrs=True)

    assert os.getxattr(directory, f"{TRUSTED}opaque") == b"y"
    assert os.getxattr(directory, "system.posix_acl_default") == DEFAULT_ACL
