"""C: kills, full disks and the checker. Kills happen in another process; see ``..victims``."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import strategies as st

from ....layers.check import CheckKind
from ...disks import loop_mounted
from ..archives import archive, directory, file, opaque, whiteout
from ..case import Case
from ..footprint import footprint
from ..operations import Create, Mkdir
from ..registry import prop
from ..runner import NotApplicable
from ..subject import Subject, assert_same

_KILLS = st.integers(1, 60)


def _assert_sound(subject: Subject) -> None:
    """No finding, and nothing in the trash that cannot go."""
    found = [str(finding) for finding in subject.layers.check(full=True)]
    assert not found, f"check says: {found}"
    subject.drain()


def _assert_swept(subject: Subject) -> None:
    """Once all is removed and collected, no snapshot's directory, lock or recipe is left."""
    for info in reversed(subject.walk()):
        subject.remove(info.name)
    subject.layers.gc(lambda info: False)
    subject.drain()
    subject.reopen()
    left = [
        thing
        for thing in footprint(subject.root)
        if thing.startswith(("mount ", "loop ", "file data/trash/", "file data/recipes/"))
        or _is_snapshot(thing, subject)
    ]
    assert not left, f"left behind: {sorted(left)[:12]}"


def _is_snapshot(thing: str, subject: Subject) -> bool:
    prefix = f"file data/storage/{subject.name}/"
    return thing.startswith(prefix) and thing.removeprefix(prefix).split("/")[0].isdigit()


@prop(
    "C1", "A layer that was being added when its process was killed is absent, or whole", weight=0.8
)
def add_killed(case: Case) -> None:
    subject = case.subject
    members = [directory("d"), file("d/f", b"x" * 9000), file("g"), whiteout("old"), opaque("dir")]
    data = archive(members)
    parent = None
    if case.maybe():
        subject.prepare("work")
        subject.done("work", Create(b"old"), Mkdir(b"dir"), Create(b"dir/old"))
        parent = subject.commit("base", "work").name
    subject.prepare("work", parent)
    subject.apply("work", data)
    whole = subject.tree("work")
    subject.remove("work")
    names = subject.names()
    at = case.draw(_KILLS)

    fate = subject.elsewhere(("add_layer", data, parent), faults=f"effect=*:n={at}:kill")

    assert not fate.error, fate.error
    made = [name for name in subject.names() if name not in names]
    assert len(made) <= 1, f"made: {made}"
    assert made or not fate.finished, "it was added, and is not there"
    for name in made:
        assert_same(whole, subject.tree(name), repr(name), ("mtime_ns",))
        assert subject.export(name) == data, "the archive is not what it was"
    _assert_sound(subject)
    if not made:
        subject.add_layer(data, parent)
    _assert_swept(subject)


@prop(
    "C3",
    "A removal that was interrupted is finished by the next who opens the root, or undone",
    weight=0.6,
)
def remove_killed(case: Case) -> None:
    subject = case.subject
    name, trees = case.chain(most=2, operations=4)
    subject.prepare("key", name)
    tree = trees[-1].child()
    case.edit("key", tree)
    at = case.draw(_KILLS)
    then_drain = [("drain",)] if case.maybe() else []

    fate = subject.elsewhere(("remove", "key"), *then_drain, faults=f"effect=*:n={at}:kill")

    assert not fate.error, fate.error
    if "key" in subject.names():
        assert not fate.finished, "it was removed, and is there"
        case.shows("key", tree)
    _assert_sound(subject)
    case.shows(name, trees[-1])
    _assert_swept(subject)


@prop(
    "C4",
    "A commit that was interrupted leaves the snapshot active or committed, never both",
    weight=0.8,
)
def commit_killed(case: Case) -> None:
    subject = case.subject
    name, trees = case.chain(most=2, operations=4)
    subject.prepare("key", name)
    tree = trees[-1].child()
    case.edit("key", tree)
    at = case.draw(_KILLS)

    fate = subject.elsewhere(("commit", "mine", "key"), faults=f"effect=*:n={at}:kill")

    assert not fate.error, fate.error
    there = {"key", "mine"} & set(subject.names())
    assert len(there) == 1, f"of key and name there is {there}"
    (one,) = there
    assert one == "mine" or not fate.finished, "it was committed, and is active"
    case.shows(one, tree)
    if one == "key":
        case.edit("key", tree, most=3)
        subject.commit("mine", "key")
    case.shows("mine", tree)
    _assert_sound(subject)
    _assert_swept(subject)


@prop(
    "C4b",
    "A snapshot that was being made is absent or whole, and its key is free or taken",
    weight=0.6,
)
def prepare_killed(case: Case) -> None:
    subject = case.subject
    name, trees = case.chain(most=2, operations=4)
    at = case.draw(_KILLS)
    verb = case.one_of("prepare", "view")

    fate = subject.elsewhere((verb, "key", name), faults=f"effect=*:n={at}:kill")

    assert not fate.error, fate.error
    if "key" not in subject.names():
        assert not fate.finished, "it was made, and is not there"
        getattr(subject, verb)("key", name)
    case.shows("key", trees[-1])
    _assert_sound(subject)
    _assert_swept(subject)


@prop("C1b", "Recovery itself may be killed at any step, any number of times", weight=0.4)
def recovery_killed(case: Case) -> None:
    subject = case.subject
    name, trees = case.chain(most=2, operations=4)
    subject.prepare("key", name)
    tree = trees[-1].child()
    case.edit("key", tree)
    at = case.draw(_KILLS)
    calls = case.one_of((("remove", "key"), ("drain",)), (("commit", "mine", "key"),))
    subject.elsewhere(*calls, faults=f"effect=*:n={at}:kill")
    for _ in range(case.draw(st.integers(1, 3))):
        again = case.draw(_KILLS)
        subject.elsewhere(("drain",), faults=f"effect=*:n={again}:kill", while_opening=True)
    case.shows(name, trees[-1])
    for one in {"key", "mine"} & set(subject.names()):
        case.shows(one, tree)
    _assert_sound(subject)
    _assert_swept(subject)


@prop(
    "C5",
    "With no byte free on the disk a layer can be removed, and that frees its bytes",
    once=True,
    machine=("mounts", "ext4"),
    weight=0.2,
)
def full_disk(case: Case) -> None:
    outer = case.subject
    scratch = Path(tempfile.mkdtemp(prefix="stowage-full-", dir=outer.root))
    try:
        with (
            loop_mounted("ext4", scratch, size_bytes=96 << 20) as disk,
            Subject.open(outer.driver, on=disk, options=outer.options) as subject,
        ):
            if not subject.handle.probe.ok:
                raise NotApplicable("the driver does not work on ext4, which is filled here")
            subject.log = outer.log
            subject.prepare("work")
            subject.done("work", Create(b"big", os.urandom(8 << 20)))
            subject.commit("layer", "work")
            subject.prepare("other", "layer")
            _use_up(disk)

            subject.remove("other")
            subject.remove("layer")
            subject.drain()

            assert subject.names() == [], f"left: {subject.names()}"
            facts = os.statvfs(disk)
            free = facts.f_bfree * facts.f_frsize
            assert free >= 7 << 20, f"{free} bytes are free after 8 MiB were removed"
            subject.prepare("again")
            subject.done("again", Create(b"file", b"fits"))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _use_up(disk: Path) -> None:
    block = bytes(1 << 20)
    with open(disk / "filler", "wb", buffering=0) as filler:
        while block:
            try:
                filler.write(block)
            except OSError:
                block = block[: len(block) // 2]


@prop("C6", "The checker finds nothing in a sound root, whatever was done in it")
def no_false_positives(case: Case) -> None:
    subject = case.subject
    name, trees = case.chain(operations=5)
    subject.prepare("active", name)
    case.edit("active", trees[-1].child())
    subject.view("look", name)
    if case.maybe():
        subject.add_layer(subject.diff(name), None)
    if case.maybe():
        subject.mount("active")
        found = subject.layers.check(full=True)
        subject.unmount("active")
        assert not found, f"while it is mounted: {[str(one) for one in found]}"
    if case.maybe():
        subject.reopen()

    found = subject.layers.check(full=True)

    assert not found, f"check says: {[str(one) for one in found]}"


@prop(
    "C6b",
    "The checker finds a snapshot whose directory is gone, and one that nobody knows",
    weight=0.3,
)
def finds_damage(case: Case) -> None:
    subject = case.subject
    name, _ = case.chain(most=2, operations=3)
    damage = case.one_of("lost", "stray", "recipe")
    if damage == "lost":
        victim, kind = subject.directory(name), CheckKind.LAYER_MISSING
        subject.handle.destroy(victim)
        shutil.rmtree(victim, ignore_errors=True)
    elif damage == "stray":
        victim, kind = subject.storage_root / "999999", CheckKind.LAYER_UNACCOUNTED
        victim.mkdir()
    else:
        diff_id = subject.stat(name).diff_id
        assert diff_id is not None
        victim, kind = subject.layout.recipe(diff_id), CheckKind.LAYER_DATA_MISSING
        victim.unlink()

    found = subject.layers.check()

    assert kind in {finding.kind for finding in found}, f"{damage}: {[str(one) for one in found]}"
    case.spoiled()
