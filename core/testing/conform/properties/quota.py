"""Q: limits of snapshots. U: what they are said to occupy."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from hypothesis import strategies as st

from ....errors import InvalidArgument
from ....model import Kind, Usage
from ..case import Case
from ..footprint import assert_footprint, footprint
from ..operations import Create, Mkdir, Unlink, Write
from ..registry import prop

MIB = 1 << 20
_LIMIT = 32 * MIB
_FULL = (errno.ENOSPC, errno.EDQUOT)
_SLACK = 4 * MIB
"""What a file system may keep for itself of a limit that it is made for."""


def _fill(root: int, name: str, size: int) -> tuple[int, int]:
    """Write *size* bytes to a file; return how many were taken and the errno that ended it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, 0o644, dir_fd=root)
    except OSError as error:  # not even a name fits
        return 0, error.errno or 0
    done = 0
    block = os.urandom(64 << 10)
    try:
        while done < size:
            done += os.write(descriptor, block[: size - done])
        os.fsync(descriptor)
    except OSError as error:
        return done, error.errno or 0
    finally:
        os.close(descriptor)
    return done, 0


@prop(
    "Q0",
    "A driver that claims no limits refuses them as an unknown option, and makes nothing",
    lacks="quota_size",
)
def unclaimed(case: Case) -> None:
    subject = case.subject
    try:
        subject.prepare("key", options=["size=32M"])
    except InvalidArgument as error:
        said = str(error)
    else:
        raise AssertionError("a limit of size is accepted, though quota_size is not claimed")
    assert "size" in said, f"it does not name the option: {said}"
    assert subject.names() == [], f"made: {subject.names()}"


@prop(
    "Q1",
    "Below its limit a snapshot takes what is written, above it says ENOSPC or EDQUOT",
    needs="quota_size",
    weight=0.1,
)
def limit_enforced(case: Case) -> None:
    subject = case.subject
    parent = None
    if case.maybe():
        parent, _ = case.chain(most=1, operations=3)
    subject.prepare("key", parent, options=[f"size={_LIMIT}"])
    with subject.attached("key") as root:
        done, failed = _fill(root, "fits", _LIMIT // 2)
        assert not failed, f"{errno.errorcode[failed]} after {done} of {_LIMIT} bytes"
        done, failed = _fill(root, "too much", _LIMIT)
        assert failed in _FULL, f"{done + _LIMIT // 2} bytes fit into {_LIMIT} ({failed})"
        size = os.stat("too much", dir_fd=root).st_size
        assert size <= done + (64 << 10), f"a file of {size} bytes, of which {done} were written"
        os.unlink("too much", dir_fd=root)
        os.mkdir("usable", dir_fd=root)


@prop("Q2", "What is deleted can be written again", needs="quota_size", weight=0.1)
def delete_frees(case: Case) -> None:
    subject = case.subject
    subject.prepare("key", options=[f"size={_LIMIT}"])
    for _ in range(3):
        with subject.attached("key") as root:
            done, failed = _fill(root, "file", _LIMIT * 3 // 4)
            assert not failed, f"{errno.errorcode[failed]} after {done} bytes"
            os.unlink("file", dir_fd=root)


@prop(
    "Q3",
    "A limit is a snapshot's own, not its sibling's, and holds after the root is reopened",
    needs="quota_size",
    weight=0.1,
)
def quota_not_shared(case: Case) -> None:
    subject = case.subject
    for key in ("one", "two"):
        subject.prepare(key, options=[f"size={_LIMIT}"])
    subject.prepare("free")
    with subject.attached("one") as root:
        _, failed = _fill(root, "file", 2 * _LIMIT)
        assert failed in _FULL, "no limit"
    if case.maybe():
        subject.reopen()
    for key, size in (("two", _LIMIT // 2), ("free", 2 * _LIMIT)):
        with subject.attached(key) as root:
            done, failed = _fill(root, "file", size)
            assert not failed, f"{key!r}: {errno.errorcode[failed]} after {done} bytes"
    with subject.attached("one") as root:
        _, failed = _fill(root, "more", _SLACK)
        assert failed in _FULL, "the limit does not hold any more"


@prop(
    "Q4",
    "A removed snapshot gives its limit back: nothing is left of it",
    needs="quota_size",
    weight=0.1,
)
def quota_released(case: Case) -> None:
    subject = case.subject
    subject.prepare("first", options=[f"size={_LIMIT}"])
    subject.remove("first")
    subject.drain()
    before = footprint(subject.root)
    for number in range(case.draw(st.integers(1, 4))):
        subject.prepare(f"key{number}", options=[f"size={_LIMIT}"])
        if case.maybe():
            with subject.attached(f"key{number}") as root:
                _fill(root, "file", MIB)
    for name in subject.names():
        subject.remove(name)
    subject.drain()
    assert_footprint(before, subject.root)


@prop(
    "Q5",
    "Above its limit of inodes a snapshot makes no more files",
    needs="quota_inodes",
    weight=0.1,
)
def inode_limit(case: Case) -> None:
    subject = case.subject
    subject.prepare("key", options=["inodes=500"])
    failed = 0
    with subject.attached("key") as root:
        for number in range(1000):
            try:
                os.mkdir(f"d{number}", dir_fd=root)
            except OSError as error:
                failed = error.errno or 0
                break
        assert failed in _FULL, "a thousand directories fit into 500 inodes"
        assert number >= 250, f"only {number} fit into 500 inodes"
        os.rmdir("d0", dir_fd=root)
        os.mkdir("again", dir_fd=root)


@prop(
    "Q6",
    "A size that is none, too small or negative is refused by name, and nothing is made",
    needs="quota_size",
)
def size_validated(case: Case) -> None:
    subject = case.subject
    wrong = case.one_of("0", "-1", "x", "", "1", "10X", "1e3", "-5G")
    try:
        subject.prepare("key", options=[f"size={wrong}"])
    except InvalidArgument as error:
        said = str(error)
    else:
        raise AssertionError(f"size={wrong} is accepted")
    assert "size" in said, f"it does not name the option: {said}"
    assert subject.names() == [], f"made: {subject.names()}"


# --- usage -------------------------------------------------------------------------------------


def _occupied(directory: Path) -> int:
    """What lies below a directory, each file once, as blocks on disk."""
    seen: dict[tuple[int, int], int] = {}
    for above, names, files in os.walk(directory):
        for name in (".", *names, *files):
            facts = os.lstat(os.path.join(above, name))
            seen[facts.st_dev, facts.st_ino] = facts.st_blocks * 512
    return sum(seen.values())


def _valid(usage: Usage, what: str) -> None:
    assert usage.size_bytes >= 0, f"{what} occupies {usage}"
    assert usage.inodes >= 0, f"{what} occupies {usage}"


@prop("U1", "Usage is never negative; the root occupies the sum of its layers, shared ones once")
def usage_additive(case: Case) -> None:
    subject = case.subject
    name, trees = case.chain()
    subject.prepare("work", name)
    victims = trees[-1].paths("file")
    if victims:  # less than its parent
        subject.done("work", Unlink(case.one_of(*victims)))
    _valid(subject.usage("work"), "a snapshot that deleted a file")
    subject.commit("less", "work")
    for key in ("one", "two"):
        subject.view(key, "less")
        _valid(subject.usage(key), "a view")
    total = 0
    for info in subject.walk("kind==committed"):
        usage = subject.usage(info.name)
        _valid(usage, repr(info.name))
        total += usage.size_bytes
    assert subject.layers.df().size_bytes == total, "the total is not the sum of the layers"


@prop("U2", "Looking, mounting and labelling change no usage")
def usage_of_nothing(case: Case) -> None:
    subject = case.subject
    name, trees = case.chain(most=2, operations=4)
    subject.prepare("key", name)
    case.edit("key", trees[-1].child())
    before = subject.usage("key")

    subject.tree("key")
    subject.label("key", {"a": "b"})
    if case.maybe():
        subject.reopen()
    after = subject.usage("key")

    assert after == before, f"usage was {before} and is {after}"


@prop(
    "U3", "What a committed layer occupies is frozen: children, views and reopening do not move it"
)
def usage_frozen(case: Case) -> None:
    subject = case.subject
    name, trees = case.chain(most=2, operations=4)
    before = subject.usage(name)
    subject.prepare("child", name)
    case.edit("child", trees[-1].child())
    subject.view("look", name)
    subject.reopen()
    assert subject.usage(name) == before, f"usage was {before} and is {subject.usage(name)}"
    assert subject.stat(name).usage == before, "the record says something else"


@prop("U4", "A child is not charged with what its parents occupy, only with what it takes itself")
def usage_excludes_parents(case: Case) -> None:
    subject = case.subject
    subject.prepare("work")
    subject.done("work", Create(b"big", os.urandom(4 * MIB)))
    subject.commit("parent", "work")
    usage = subject.usage("parent").size_bytes
    assert usage >= 4 * MIB * 7 // 8, f"4 MiB are said to be {usage} bytes"
    before = _occupied(subject.storage_root)
    subject.prepare("child", "parent")
    subject.done("child", Create(b"small", b"x" * 5000))
    taken = _occupied(subject.storage_root) - before

    said = subject.usage("child").size_bytes

    assert said <= max(taken, 0) + MIB, f"it takes {taken} bytes and is said to occupy {said}"
    assert said >= 4096, f"a file of 5000 bytes is said to occupy {said}"


@prop("U5", "What is recorded at commit is what was counted just before")
def usage_persisted(case: Case) -> None:
    subject = case.subject
    parent = None
    if case.maybe():
        parent, _ = case.chain(most=2, operations=4)
    subject.prepare("work", parent)
    for number in range(case.draw(st.integers(0, 5))):
        subject.done(
            "work",
            Mkdir(b"dir%d" % number),
            Create(b"dir%d/file" % number, os.urandom(case.one_of(0, 1, 4096, 70_000))),
        )
    counted = subject.usage("work")
    subject.commit("layer", "work")
    recorded = subject.usage("layer")
    assert recorded == counted, f"counted {counted}, recorded {recorded}"
    assert subject.stat("layer").kind is Kind.COMMITTED


@prop("U6", "What is written counts: usage grows by what a file takes, and shrinks when it goes")
def usage_grows(case: Case) -> None:
    subject = case.subject
    size = case.one_of(MIB, 3 * MIB)
    subject.prepare("key")
    empty = subject.usage("key")
    subject.done("key", Create(b"file"), Write(b"file", os.urandom(size)))
    full = subject.usage("key")
    grown = full.size_bytes - empty.size_bytes
    assert size * 7 // 8 <= grown <= size + MIB, f"{size} bytes were written, usage grew by {grown}"
    subject.done("key", Unlink(b"file"))
    left = subject.usage("key").size_bytes
    assert left <= empty.size_bytes + MIB, f"it was deleted, and {left} bytes are left"
