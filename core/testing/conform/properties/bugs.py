"""B: the bug classes that no suite of the field caught (reference: Docker's, containerd's and
Podman's trackers; the threads are named)."""

from __future__ import annotations

import io
import os
import struct
import threading

from hypothesis import strategies as st

from ....errors import InvalidArchive, NotSupported
from ...faults import inject
from ..archives import archive, directory, file, hardlink, names_in, symlink, whiteout
from ..case import Case
from ..footprint import assert_footprint
from ..model import ModelTree
from ..operations import (
    Chown,
    Create,
    Link,
    Mkdir,
    Operation,
    Rmdir,
    SetXattr,
    Symlink,
    Truncate,
    Unlink,
    Utime,
    Write,
)
from ..registry import prop
from ..subject import Subject

MIB = 1 << 20


def _layer(subject: Subject, name: str, parent: str | None, *operations: Operation) -> str:
    """Make a committed layer by *operations*, which must succeed."""
    subject.prepare(f"{name}-key", parent)
    subject.done(f"{name}-key", *operations)
    return subject.commit(name, f"{name}-key").name


def _names(subject: Subject, key: str) -> set[bytes]:
    return set(subject.tree(key)) - {b""}


@prop(
    "B1",
    "Layers unpacked at the same time keep their whiteouts (containerd#13030, #13388)",
    weight=0.4,
)
def parallel_unpack(case: Case) -> None:
    subject = case.subject
    count = case.draw(st.integers(2, 4))
    base = _layer(subject, "base", None, *(Create(b"f%d" % n, b"old") for n in range(count)))
    archives = [archive([whiteout(f"f{n}"), file(f"new{n}")]) for n in range(count)]
    made: dict[int, str] = {}
    raised: list[BaseException] = []

    def add(number: int) -> None:
        try:
            stream = io.BytesIO(archives[number])
            made[number] = subject.layers.add_layer(stream, base).name
        except BaseException as error:  # noqa: BLE001  # raised again below
            raised.append(error)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]
    every = {b"f%d" % number for number in range(count)}
    for number, name in made.items():
        expected = every - {b"f%d" % number} | {b"new%d" % number}
        assert _names(subject, name) == expected, f"layer {number}: {_names(subject, name)}"


@prop(
    "B2",
    "A directory deleted and made again stays empty, any depth, any number of layers"
    " (moby#42662, fuse-overlayfs#136, #138, #306)",
)
def opaque_lost(case: Case) -> None:
    subject = case.subject
    depth = case.draw(st.integers(1, 4))
    path = b"/".join([b"d"] * depth)
    program: list[Operation] = [Mkdir(path[: 2 * n + 1]) for n in range(depth)]
    name = _layer(
        subject,
        "l0",
        None,
        *program,
        Create(path + b"/old"),
        Mkdir(path + b"/sub"),
        Create(path + b"/sub/older"),
    )
    for number in range(1, case.draw(st.integers(2, 4))):
        below = sorted(one for one in _names(subject, name) if one.startswith(path + b"/"))
        gone = [
            Rmdir(one) if subject.tree(name)[one].kind == "directory" else Unlink(one)
            for one in reversed(below)
        ]
        name = _layer(
            subject,
            f"l{number}",
            name,
            *gone,
            Rmdir(path),
            Mkdir(path),
            Create(path + b"/new%d" % number),
        )
        left = {one for one in _names(subject, name) if one.startswith(path + b"/")}
        assert left == {path + b"/new%d" % number}, f"in layer {number} there is {left}"
    subject.prepare("copy", subject.stat(name).parent)
    subject.apply_diff("copy", of=name)
    subject.same("copy", name)


@prop(
    "B3",
    "Rewriting with the same size again and again, however fast, loses no layer's content"
    " (moby#8242, #21555)",
    weight=0.4,
)
def same_size_same_second(case: Case) -> None:
    subject = case.subject
    name = _layer(subject, "l0", None, Create(b"file", b"0000"), Utime(b"file", 5 * 10**9))
    for number in range(1, 9):
        name = _layer(
            subject,
            f"l{number}",
            name,
            Write(b"file", b"%04d" % number),
            Utime(b"file", 5 * 10**9 + case.one_of(0, number)),
        )
    parent = None
    for number in range(9):
        copied = subject.add_layer(subject.diff(f"l{number}"), parent)
        parent = copied.name
        extents = subject.tree(parent)[b"file"].extents
        assert extents == ((0, b"%04d" % number),), f"layer {number} holds {extents}"


@prop(
    "B4",
    "A sparse file stays sparse: in children, when changed, in archives and out of them"
    " (moby#5419, #28920, golang/go#13548)",
    weight=0.3,
)
def sparse_explosion(case: Case) -> None:
    subject = case.subject
    size = case.one_of(64, 1024) * MIB
    at = case.draw(st.integers(0, size // 4096 - 1)) * 4096
    name = _layer(
        subject,
        "layer",
        None,
        Create(b"sparse"),
        Truncate(b"sparse", size),
        Write(b"sparse", b"x" * 4096, offset=at),
    )
    subject.prepare("child", name)
    subject.done("child", Write(b"sparse", b"y", offset=at))
    data = subject.diff(name)
    assert len(data) < MIB, f"a file with 4 KiB of data takes an archive of {len(data)} bytes"
    subject.prepare("copy")
    subject.apply("copy", data)
    for key in (name, "child", "copy"):
        node = subject.tree(key)[b"sparse"]
        assert node.size == size, f"{key!r} has {node.size} bytes"
        assert node.allocated <= MIB, f"in {key!r} it takes {node.allocated} bytes"


def _capability(rootid: int | None = None) -> bytes:
    """CAP_NET_RAW, permitted and effective; revision 2, or 3 with a root id (capability(7))."""
    bits = 1 << 13
    if rootid is None:
        return struct.pack("<5I", 0x02000001, bits, bits, 0, 0)
    return struct.pack("<6I", 0x03000001, bits, bits, 0, 0, rootid)


@prop(
    "B5",
    "File capabilities and attributes survive, also where the owner is set in the same layer"
    " (moby#42655, buildah#3294, containers/storage#217)",
    machine="mounts",
)
def capability_loss(case: Case) -> None:
    subject = case.subject
    value = _capability()
    extra = case.one_of("user.note", "trusted.note")
    name = _layer(
        subject,
        "layer",
        None,
        Create(b"ping", b"#!", mode=0o755),
        Chown(b"ping", 7, 7),
        SetXattr(b"ping", "security.capability", value),
        SetXattr(b"ping", extra, b"1"),
    )
    subject.prepare("copy")
    subject.apply_diff("copy", of=name)
    subject.prepare("child", name)
    subject.done("child", Create(b"other"))
    for key in (name, "copy", "child"):
        node = subject.tree(key)[b"ping"]
        held = dict(node.xattrs)
        assert held.get("security.capability") == value, f"in {key!r} it has {held}"
        assert held.get(extra) == b"1", f"in {key!r} it has {held}"
        assert (node.uid, node.gid) == (7, 7), f"in {key!r} it is {node.uid}:{node.gid}'s"
    subject.done("child", Chown(b"ping", 8, 8))
    held = dict(subject.tree("child")[b"ping"].xattrs)
    assert "security.capability" not in held, "a new owner keeps the file's capabilities"
    assert held.get(extra) == b"1", f"a new owner took {extra}"


@prop(
    "B6",
    "A hard link made in a child to its parent's file is one file there, and in the diff"
    " (containerd#674, moby#16774, podman#16673)",
)
def cross_layer_links(case: Case) -> None:
    subject = case.subject
    base = _layer(subject, "base", None, Create(b"file", b"content"), Mkdir(b"dir"))
    link = case.one_of(b"link", b"dir/link")
    name = _layer(subject, "layer", base, Link(link, source=b"file"))
    subject.prepare("copy", base)
    subject.apply_diff("copy", of=name)
    for key in (name, "copy"):
        seen = subject.tree(key)
        one, other = seen[b"file"], seen[link]
        assert one.group == other.group, f"in {key!r} they are two files"
        assert one.extents == other.extents == ((0, b"content"),), f"in {key!r}: {one}, {other}"
    subject.prepare("child", name)
    subject.done("child", Chown(b"file", 9, 9))
    seen = subject.tree("child")
    assert seen[b"file"].uid == 9
    if case.capabilities.hardlinks_kept:
        assert seen[link].uid == 9, "changed through one name, it is another file's owner"


@prop(
    "B8",
    "Limits made and removed over and over leave none behind, and meet no other's"
    " (moby#34701, #42832)",
    needs="quota_size",
    weight=0.1,
)
def quota_collisions(case: Case) -> None:
    subject = case.subject
    for _ in range(3):
        subject.prepare("limited", options=["size=32M"])
        subject.remove("limited")
        subject.drain()
        subject.prepare("free")
        subject.done("free", Create(b"file", os.urandom(40 * MIB)))
        subject.remove("free")
        subject.drain()
        if case.maybe():
            subject.reopen()


@prop("B9", "A layer that only deletes occupies next to nothing, and never less (podman#7406)")
def negative_usage(case: Case) -> None:
    subject = case.subject
    base = _layer(
        subject, "base", None, Create(b"big", os.urandom(2 * MIB)), Mkdir(b"d"), Create(b"d/f")
    )
    programs: list[list[Operation]] = [
        [Unlink(b"big")], [Unlink(b"d/f"), Rmdir(b"d")], [Truncate(b"big", 0)]
    ]  # fmt: skip
    gone = case.one_of(*programs)
    name = _layer(subject, "layer", base, *gone)
    usage = subject.usage(name)
    assert usage.size_bytes >= 0, f"it occupies {usage}"
    assert usage.inodes >= 0, f"it occupies {usage}"


@prop(
    "B10",
    "Neither a long path of the root nor many layers overflow what the kernel takes"
    " (containerd#2497, buildkit#4810, util-linux#1992)",
    once=True,
    weight=0.2,
)
def option_length(case: Case) -> None:
    outer = case.subject
    for length in (120,) if case.brief else (40, 120):
        place = outer.root / ("p" * length) / "a:b,c\\d" / ("q" * length)
        place.mkdir(parents=True)
        with Subject.open(outer.driver, on=place, options=outer.options) as subject:
            subject.log = outer.log
            most = subject.capabilities.max_depth
            parent: str | None = None
            deep = 25 if case.brief else 45
            depth = min(deep, most) if most else deep
            for number in range(depth):
                parent = subject.add_layer(archive([file(f"f{number}")]), parent).name
            subject.prepare("top", parent)
            assert len(_names(subject, "top")) == depth, "layers are missing"


@prop(
    "B11",
    "One removal that cannot be finished stops no other, and is finished later"
    " (containerd#3923, #9465)",
    weight=0.4,
)
def one_bad_removal(case: Case) -> None:
    subject = case.subject
    before = case.untouched()
    for key in ("one", "two", "three"):
        subject.prepare(key)
        subject.done(key, Mkdir(b"dir"), Create(b"dir/file"))
    subject.shut()
    at = case.draw(st.integers(1, 6))
    step = case.one_of("trash.lock", "file.unlink", "file.rmdir")
    with inject(f"effect={step}:n={at}:errno=EIO"):
        subject.open_again()
        for key in ("one", "two", "three"):
            subject.remove(key)
        subject.layers.drain(20)
    subject.drain()
    assert subject.names() == [], f"left: {subject.names()}"
    assert_footprint(before, subject.root)


@prop(
    "B12",
    "What an interrupted pull or removal left is gone after the next start"
    " (moby#21925, #38344, containerd#10548, podman#14003)",
    weight=0.4,
)
def leaks_after_interruption(case: Case) -> None:
    subject = case.subject
    before = case.untouched()
    data = archive([directory("d"), *(file(f"d/{n}", b"x" * 3000) for n in range(20))])
    at = case.draw(st.integers(1, 120))
    fate = subject.elsewhere(("add_layer", data), faults=f"effect=*:n={at}:kill")
    assert not fate.error, fate.error
    for info in reversed(subject.walk()):
        subject.remove(info.name)
    subject.drain()
    subject.reopen()
    assert_footprint(before, subject.root)


@prop(
    "B13",
    "A layer's files are synced to the disk before its name is published"
    " (containerd#10457, #8973, podman#8005, #23504)",
    once=True,
)
def synced_before_published(case: Case) -> None:
    outer = case.subject
    with Subject.open(
        outer.driver, on=outer.root, options=outer.options, sync="filesystem"
    ) as subject:
        subject.log = outer.log
        subject.prepare("work")
        subject.done("work", Create(b"file", b"x" * 10_000))
        with inject() as seen:
            subject.commit("layer", "work")
    synced = [name for name in seen.counts if "sync" in name]
    assert synced, f"nothing was synced; the steps were {sorted(seen.counts)}"


@prop("B14", "The traversals of the field stay inside (CVE-2018-15664, CVE-2019-14271)")
def tar_traversal(case: Case) -> None:
    subject = case.subject
    outside = subject.root / "precious"
    outside.mkdir(exist_ok=True)
    (outside / "file").write_bytes(b"precious")
    up = "../" * 12
    target = str(outside)
    members = case.one_of(
        [symlink("x", target), file("x/file", b"owned")],
        [symlink("x", up + target.lstrip("/")), file("x/new", b"owned")],
        [directory("x"), symlink("x", target), file("x/new", b"owned")],
        [symlink("etc", target), symlink("etc/file", "/etc/passwd"), file("etc/file", b"owned")],
        [symlink("a", "b"), symlink("b", target), hardlink("stolen", "a/file")],
        [file(up + target.lstrip("/") + "/new", b"owned")],
        [symlink("x", target), whiteout("x/file")],
    )
    subject.prepare("key")
    try:
        subject.apply("key", archive(members))
    except InvalidArchive:
        pass
    assert sorted(os.listdir(outside)) == ["file"], f"outside there is {os.listdir(outside)}"
    assert (outside / "file").read_bytes() == b"precious", "a file outside was changed"
    stolen = [
        path for path, node in subject.tree("key").items() if node.extents == ((0, b"precious"),)
    ]
    assert not stolen, f"a file outside was read into {stolen}"


@prop(
    "B17",
    "The checker finds nothing after layers were added, removed and collected in any order"
    " (podman#25101)",
    weight=0.6,
)
def false_alarms(case: Case) -> None:
    subject = case.subject
    name, _ = case.chain(operations=3)
    for _ in range(case.draw(st.integers(1, 5))):
        how = case.one_of("add", "remove", "collect", "half written")
        if how == "add":
            subject.add_layer(archive([file(f"f{case.draw(st.integers(0, 3))}")]), name)
        elif how == "remove":
            leaves = [
                info.name
                for info in subject.walk()
                if info.name != name and not any(one.parent == info.name for one in subject.walk())
            ]
            if leaves:
                subject.remove(case.one_of(*leaves))
        elif how == "collect":
            subject.layers.gc(lambda info: True)
        else:
            subject.elsewhere(
                ("add_layer", archive([file("g")]), name),
                faults=f"effect=*:n={case.draw(st.integers(1, 40))}:kill",
            )
        found = subject.layers.check(full=True)
        assert not found, f"after {how}: {[str(one) for one in found]}"


@prop(
    "B19", "A user's file that looks like a whiteout is kept, or refused: it never deletes anything"
)
def reserved_names(case: Case) -> None:
    subject = case.subject
    base = _layer(
        subject, "base", None, Create(b"victim", b"kept"), Mkdir(b"dir"), Create(b"dir/victim")
    )
    subject.prepare("key", base)
    path = case.one_of(b".wh.victim", b"dir/.wh..wh..opq", b"dir/.wh.victim", b".wh..wh.plnk")
    (number,) = subject.perform("key", Create(path, b"mine"))
    seen = _names(subject, "key")
    assert {b"victim", b"dir/victim"} <= seen, f"there are {sorted(seen)}"
    assert (path in seen) == (number == 0), (
        f"made with errno {number}, and there are {sorted(seen)}"
    )
    try:
        subject.commit("layer", "key")
    except NotSupported as error:
        said = str(error)
        subject.done("key", Unlink(path))
        subject.commit("layer", "key")
    else:
        said = ""
    assert not said or path.rpartition(b"/")[2].decode() in said, f"it is not named: {said}"
    subject.prepare("child", "layer")
    assert {b"victim", b"dir/victim"} <= _names(subject, "child"), "a lower file is gone in a child"


@prop(
    "B20",
    "Names of archives that no text can hold, long ones and deep ones come through",
    weight=0.4,
)
def odd_names(case: Case) -> None:
    subject = case.subject
    part = case.one_of(b"\xff\xfe", b"n" * 255, b"a\nb", b"-rf", b" ", "é".encode("latin-1"), b"*")
    depth = min(case.one_of(1, 3, 20), 3000 // len(part))  # what one system call takes
    tree = ModelTree(subject.traits)
    program: list[Operation] = []
    path = b""
    for _ in range(depth):
        path = path + b"/" + part if path else part
        program.append(Mkdir(path))
    program += [Create(path + b"/file", b"deep"), Symlink(path + b"/link", part)]
    tree.all_of(program)
    name = _layer(subject, "layer", None, *program)
    subject.prepare("copy")
    subject.apply_diff("copy", of=name)
    case.shows(name, tree)
    case.shows("copy", tree)
    held = names_in(subject.diff(name))
    assert len(held) >= depth + 2, f"the archive holds {held}"
