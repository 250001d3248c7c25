"""K: what a driver declares is true, and what it can do it declares, where that can be told."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import subprocess
import tempfile
from pathlib import Path

from ....errors import NotSupported, StowageError
from ....linux.files import remove_tree
from ....model import Kind
from ....options import Options, parse_options
from ..case import Case
from ..operations import Create, Link, Mkdir, Rename, SetXattr, Write
from ..registry import prop
from ..subject import Subject, assert_same
from ..tree import observe

_FICLONE = 0x40049409


def _options(subject: Subject) -> Options:
    declared = getattr(subject.handle.driver, "options", ())
    return parse_options(subject.name, declared, (), scope="snapshot")


def _attach(subject: Subject, key: str) -> int:
    """Attach by the driver alone, without the core's leases."""
    info = subject.stat(key)
    chain = (
        []
        if info.parent is None
        else [subject.directory(one.name) for one in subject.layers.chain(info.parent)]
    )
    return subject.handle.attach(subject.directory(key), chain, info.kind, _options(subject))


def _lower_child(subject: Subject) -> None:
    """An active ``key`` above a layer with a file, a hard link and a directory with a file."""
    subject.prepare("work")
    subject.done(
        "work",
        Create(b"file", b"old"),
        Link(b"link", source=b"file"),
        Mkdir(b"dir"),
        Create(b"dir/inner"),
    )
    subject.commit("layer", "work")
    subject.prepare("key", "layer")


@prop(
    "K1",
    "hardlinks_kept: writing through one name of a parent's file shows under the other",
    once=True,
)
def hardlinks_kept(case: Case) -> None:
    subject = case.subject
    _lower_child(subject)
    subject.done("key", Write(b"file", b"new"))
    seen = subject.tree("key")
    shared = seen[b"link"].extents == seen[b"file"].extents
    assert shared == case.capabilities.hardlinks_kept, _said("hardlinks_kept", shared)


@prop("K2", "dir_rename: a parent's directory can be renamed, else that is EXDEV", once=True)
def dir_rename(case: Case) -> None:
    subject = case.subject
    _lower_child(subject)
    (number,) = subject.perform("key", Rename(b"dir", target=b"moved"))
    assert number in (0, errno.EXDEV), f"it is {errno.errorcode.get(number, number)}"
    assert (number == 0) == case.capabilities.dir_rename, _said("dir_rename", number == 0)
    names = subject.tree("key").keys()
    there = b"moved/inner" if number == 0 else b"dir/inner"
    assert there in names, f"there are {sorted(names)}"
    assert len(names) == 5, f"there are {sorted(names)}"
    subject.done("key", Mkdir(b"own"), Create(b"own/x"), Rename(b"own", target=b"own moved"))


@prop(
    "K3",
    "fresh_read_descriptor: what was opened before the first write sees what is written",
    once=True,
)
def fresh_read_descriptor(case: Case) -> None:
    subject = case.subject
    _lower_child(subject)
    with subject.attached("key") as root:
        reading = os.open("file", os.O_RDONLY | os.O_CLOEXEC, dir_fd=root)
        try:
            Write(b"file", b"new").perform(root)
            fresh = os.pread(reading, 10, 0) == b"new"
        finally:
            os.close(reading)
        again = os.open("file", os.O_RDONLY | os.O_CLOEXEC, dir_fd=root)
        try:
            assert os.pread(again, 10, 0) == b"new", "not even a new descriptor sees it"
        finally:
            os.close(again)
    declared = case.capabilities.fresh_read_descriptor
    assert fresh == declared, _said("fresh_read_descriptor", fresh)


@prop("K4", "stable_inodes: a file's device and inode stay when it is first written to", once=True)
def stable_inodes(case: Case) -> None:
    subject = case.subject
    _lower_child(subject)
    with subject.attached("key") as root:
        before = [os.stat(name, dir_fd=root) for name in ("file", "dir")]
        Write(b"file", b"new").perform(root)
        Create(b"dir/new").perform(root)
        SetXattr(b"dir", "trusted.x", b"1").perform(root)
        after = [os.stat(name, dir_fd=root) for name in ("file", "dir")]
    stable = [(one.st_dev, one.st_ino) for one in before] == [
        (one.st_dev, one.st_ino) for one in after
    ]
    assert stable == case.capabilities.stable_inodes, _said("stable_inodes", stable)


@prop(
    "K5",
    "exclusive_upper: the kernel refuses to mount an active snapshot twice",
    once=True,
    machine="mounts",
)
def exclusive_upper(case: Case) -> None:
    subject = case.subject
    subject.prepare("key")
    first = _attach(subject, "key")
    try:
        os.close(_attach(subject, "key"))
    except StowageError:
        exclusive = True
    else:
        exclusive = False
    finally:
        os.close(first)
    assert exclusive == case.capabilities.exclusive_upper, _said("exclusive_upper", exclusive)
    subject.done("key", Create(b"usable"))


@prop("K6", "native_diff: the driver gives a tree of what a plain snapshot changed", once=True)
def native_diff(case: Case) -> None:
    subject = case.subject
    _lower_child(subject)
    subject.done("key", Create(b"new"))
    parents = [subject.directory("layer")]
    tree = subject.handle.diff_tree(subject.directory("key"), parents)
    assert (tree is not None) == case.capabilities.native_diff, _said("native_diff", bool(tree))
    if tree is not None:
        assert tree.path.is_dir(), f"{tree.path} is no directory"
        assert tree.path.is_relative_to(subject.storage_root), f"{tree.path} is elsewhere"


@prop("K7", "native_apply: the driver gives a tree to unpack a pristine snapshot into", once=True)
def native_apply(case: Case) -> None:
    subject = case.subject
    subject.prepare("key")
    tree = subject.handle.apply_tree(subject.directory("key"), [])
    assert (tree is not None) == case.capabilities.native_apply, _said("native_apply", bool(tree))


@prop(
    "K8",
    "ro_enforced: where it is not claimed, a view can be written to",
    lacks="ro_enforced",
    once=True,
)
def ro_not_enforced(case: Case) -> None:
    subject = case.subject
    subject.prepare("work")
    subject.commit("layer", "work")
    subject.view("look", "layer")
    with subject.attached("look") as root:
        number = Create(b"new").attempt(root)
    assert number != errno.EROFS, "a view refuses writes, though ro_enforced is not claimed"


@prop(
    "K9",
    "reflink: a file can be cloned within a snapshot, or a child shares its parent's blocks",
    needs="reflink",
    once=True,
)
def reflink(case: Case) -> None:
    """Where it is claimed a copy must cost next to nothing somewhere: by FICLONE in the mount, or
    in how a child is made."""
    subject = case.subject
    subject.prepare("work")
    subject.done("work", Create(b"file", os.urandom(8 << 20)))
    with subject.attached("work") as root:
        source = os.open("file", os.O_RDONLY | os.O_CLOEXEC, dir_fd=root)
        target = os.open("clone", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=root)
        try:
            fcntl.ioctl(target, _FICLONE, source)
            cloned = True
        except OSError:
            cloned = False
        finally:
            os.close(source)
            os.close(target)
    if cloned:
        return
    subject.commit("layer", "work")
    before = _free(subject.root)
    subject.prepare("child", "layer")
    subject.done("child", Write(b"file", b"x"))
    os.sync()
    taken = before - _free(subject.root)
    assert taken < 4 << 20, f"reflink is claimed, and changing a byte of 8 MiB takes {taken} bytes"


def _free(path: Path) -> int:
    facts = os.statvfs(path)
    return facts.f_bfree * facts.f_frsize


@prop(
    "K10",
    "acl_enforced: a POSIX ACL lets in whom it names, and nobody else",
    once=True,
    needs="acl_enforced",
    machine="mounts",
)
def acl_enforced(case: Case) -> None:
    subject = case.subject
    subject.prepare("work")
    subject.done("work", Create(b"file", b"secret", mode=0o600), Create(b"other", mode=0o600))
    subject.done("work", SetXattr(b"file", "system.posix_acl_access", _acl(1234)))
    subject.commit("layer", "work")
    subject.prepare("key", "layer")
    for key in ("layer", "key"):
        with subject.attached(key, read_only=key == "layer") as root:
            assert _readable(root, "file", 1234), f"{key}: the user that the ACL names is refused"
            assert not _readable(root, "file", 4321), f"{key}: another user is let in"
            assert not _readable(root, "other", 1234), f"{key}: a file without ACL lets it in"


def _acl(user: int) -> bytes:
    """user::rw-, user:USER:r--, group::---, mask::r--, other::--- (linux/posix_acl_xattr.h)."""
    nobody = 0xFFFFFFFF
    entries = [(1, 6, nobody), (2, 4, user), (4, 0, nobody), (16, 4, nobody), (32, 0, nobody)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def _readable(root: int, name: str, uid: int) -> bool:
    """Whether a user without privileges may open a file; asked by a shell of theirs."""
    done = subprocess.run(
        ["/bin/sh", "-c", ': < "/proc/self/fd/$0/$1"', str(root), name],
        user=uid,
        group=uid,
        extra_groups=[],
        pass_fds=[root],
        cwd="/",
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


@prop(
    "K11",
    "host_root: a directory of the host can be a snapshot's parent, else NotSupported",
    once=True,
)
def host_root(case: Case) -> None:
    subject = case.subject
    with tempfile.TemporaryDirectory(dir=subject.root.parent) as scratch:
        place = Path(scratch)
        (place / "of the host").write_text("here")
        try:
            subject.layers.prepare("key", host_root=place)
        except NotSupported:
            works = False
        else:
            works = True
            subject.done("key", Create(b"new"))
            assert {b"of the host", b"new"} <= subject.tree("key").keys(), "the host does not show"
            assert os.listdir(place) == ["of the host"], "the host was written to"
            subject.remove("key")
    assert works == case.capabilities.host_root, _said("host_root", works)


@prop(
    "K12",
    "clone_active: an active snapshot's copy is what it was at that instant, and its own",
    needs="clone_active",
    weight=0.4,
)
def clone_active(case: Case) -> None:
    subject = case.subject
    name, trees = case.chain(most=2, operations=4)
    subject.prepare("key", name)
    tree = trees[-1].child()
    case.edit("key", tree, least=1)
    parents = [subject.directory(one.name) for one in subject.layers.chain(name)]
    copy = subject.storage_root / "copy"
    copy.mkdir()
    try:
        subject.handle.clone(subject.directory("key"), copy, parents)
        case.edit("key", tree.copy())
        root = subject.handle.attach(copy, parents, Kind.ACTIVE, _options(subject), read_only=True)
        try:
            assert_same(tree.frozen(), observe(root), "the copy")
        finally:
            os.close(root)
    finally:
        subject.handle.destroy(copy)
        remove_tree(copy)


@prop(
    "D17",
    "A diff of mapped ids, unmapped, is that of the ids: nobody may claim remap_ids yet",
    once=True,
    needs="remap_ids",
)
def idmap_neutral(case: Case) -> None:
    """The contract has no hook by which ids could be mapped, so the claim cannot be true."""
    raise AssertionError("remap_ids is claimed, and the contract has no hook for it")


def _said(name: str, can: bool) -> str:
    if can:
        return f"the driver can do it, and does not claim {name}"
    return f"the driver claims {name}, and cannot do it"
