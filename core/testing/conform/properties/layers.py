"""L: the life of snapshots and the graph that they make."""

from __future__ import annotations

import errno
import os

from hypothesis import strategies as st

from ....errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    StowageError,
)
from ....linux.files import remove_tree
from ....model import Kind
from ....options import parse_options
from ..archives import archive, directory, file, whiteout
from ..case import Case
from ..footprint import assert_footprint, footprint
from ..model import ModelTree
from ..operations import Chmod, Create, Mkdir, SetXattr, Symlink, Truncate, Unlink, Utime, Write
from ..registry import prop
from ..strategies import label_sets


@prop("L1", "After prepare a snapshot is there and listed; before it and after remove it is not")
def create_then_exists(case: Case) -> None:
    subject = case.subject
    key = case.draw(st.sampled_from(["a", "box", "x" * 64, "with space", "ünï"]))
    parent = None
    if case.maybe():
        parent, _ = case.chain(most=2, operations=2)
    before = subject.names()
    kind = case.one_of(Kind.ACTIVE, Kind.VIEW)

    made = subject.prepare(key, parent) if kind is Kind.ACTIVE else subject.view(key, parent)

    assert (made.name, made.kind, made.parent) == (key, kind, parent), f"made {made}"
    assert subject.names() == sorted([*before, key]), f"listed: {subject.names()}"
    assert subject.stat(key).kind is kind
    subject.remove(key)
    assert subject.names() == before, f"listed after remove: {subject.names()}"


@prop("L2", "A new base is an empty directory 0755 of 0:0 without attributes, whatever the umask")
def empty_layer_is_empty(case: Case) -> None:
    subject = case.subject
    umask = case.one_of(0o022, 0o077, 0o000, 0o777)
    before = os.umask(umask)
    try:
        subject.prepare("base")
    finally:
        os.umask(before)

    case.shows("base", ModelTree(subject.traits))


@prop("L3", "A new child shows what its parent shows, its root's own attributes included")
def child_sees_parent(case: Case) -> None:
    name, trees = case.chain()
    kind = case.one_of("prepare", "view")
    getattr(case.subject, kind)("child", name)

    case.shows("child", trees[-1])


@prop("L4", "What is done in a child changes nothing in its parent, in views and in siblings")
def child_isolated(case: Case) -> None:
    subject = case.subject
    name, trees = case.chain(most=2)
    parent = trees[-1]
    for key in ("one", "two"):
        subject.prepare(key, name)
    subject.view("look", name)
    models = {key: parent.child() for key in ("one", "two")}

    case.edit("one", models["one"], least=1)
    case.edit("two", models["two"])

    case.shows("one", models["one"])
    for key in (name, "look"):
        case.shows(key, parent)


_BELOW = (Create(b"file", b"kept"), Mkdir(b"dir"))
_WRITES = (
    Create(b"new"),
    Mkdir(b"new"),
    Symlink(b"new"),
    Write(b"file", b"changed"),
    Truncate(b"file", 0),
    Unlink(b"file"),
    Chmod(b"file", 0o600),
    Utime(b"file", 1),
    SetXattr(b"file", "trusted.x", b"1"),
    Create(b"dir/new"),
)


@prop("L5", "A committed layer cannot be written to: every change is EROFS", needs="ro_enforced")
def freeze(case: Case) -> None:
    subject = case.subject
    subject.prepare("work")
    subject.done("work", *_BELOW)
    subject.commit("layer", "work")
    before = subject.tree("layer")
    if case.maybe():
        subject.prepare("child", "layer")

    done = subject.perform("layer", *_WRITES)

    failed = {repr(op): number for op, number in zip(_WRITES, done, strict=True)}
    wrong = {op: number for op, number in failed.items() if number != errno.EROFS}
    assert not wrong, f"not EROFS: {wrong}"
    subject.shows("layer", before)


@prop(
    "L6", "Every change through a view is EROFS, and the view stays as it is", needs="ro_enforced"
)
def view_readonly(case: Case) -> None:
    subject = case.subject
    subject.prepare("work")
    subject.done("work", *_BELOW)
    subject.commit("layer", "work")
    if case.maybe():  # seen through one more layer
        subject.prepare("work", "layer")
        subject.done("work", Create(b"dir/above"))
        subject.commit("layer2", "work")
        subject.view("look", "layer2")
    else:
        subject.view("look", "layer")
    before = subject.tree("look")

    with subject.attached("look") as root:
        done = {repr(op): op.attempt(root) for op in _WRITES}

    wrong = {op: errno.errorcode.get(number, number) for op, number in done.items()
             if number != errno.EROFS}  # fmt: skip
    assert not wrong, f"not EROFS: {wrong}"
    subject.shows("look", before)


@prop("L7", "A name or key that is taken is refused as AlreadyExists, and nothing changes")
def dup_key(case: Case) -> None:
    subject = case.subject
    name, trees = case.chain(most=2, operations=3)
    subject.prepare("active", name)
    subject.view("look", name)
    taken = case.one_of(name, "active", "look")
    before = [subject.stat(one) for one in subject.names()]
    how = case.one_of("prepare", "view", "commit")

    if how == "commit":
        subject.refused(AlreadyExists, "commit", taken, "active")
    else:
        subject.refused(AlreadyExists, how, taken, case.one_of(None, name))

    assert [subject.stat(one) for one in subject.names()] == before, "a record changed"
    for one in (name, "active", "look"):
        case.shows(one, trees[-1])


@prop(
    "L8", "A parent that is missing is NotFound, one not committed InvalidArgument; nothing stays"
)
def missing_parent(case: Case) -> None:
    subject = case.subject
    subject.prepare("active")
    subject.drain()
    before = footprint(subject.root)
    how = case.one_of("prepare", "view")
    parent, kind = case.one_of(("nobody", NotFound), ("active", InvalidArgument))

    subject.refused(kind, how, "child", parent)

    assert subject.names() == ["active"], f"listed: {subject.names()}"
    subject.drain()
    assert_footprint(before, subject.root)


@prop("L9", "A layer with children cannot be removed: FailedPrecondition, and nothing changes")
def remove_with_children(case: Case) -> None:
    subject = case.subject
    name, trees = case.chain(operations=3)
    how = case.one_of("prepare", "view")
    getattr(subject, how)("child", name)
    victim = case.one_of(*[f"layer{number}" for number in range(1, len(trees) + 1)])
    before = [subject.stat(one) for one in subject.names()]

    subject.refused(FailedPrecondition, "remove", victim)

    assert [subject.stat(one) for one in subject.names()] == before, "a record changed"
    for number, tree in enumerate(trees, 1):
        case.shows(f"layer{number}", tree)
    case.shows("child", trees[-1])


@prop("L10", "Removing, committing or showing what is not there is NotFound on every driver")
def remove_missing(case: Case) -> None:
    subject = case.subject
    subject.prepare("gone")
    subject.remove("gone")
    method, arguments = case.one_of(
        ("remove", ("gone",)), ("commit", ("layer", "gone")), ("tree", ("gone",)),
        ("usage", ("gone",)), ("mount", ("gone",)), ("label", ("gone", {"a": "b"})),
        ("diff", ("gone",)), ("stat", ("gone",)), ("changes", ("gone",)),
    )  # fmt: skip

    subject.refused(NotFound, method, *arguments)

    assert subject.names() == [], f"listed: {subject.names()}"


@prop("L11", "A removed key can be used again at once, and what is there is fresh")
def remove_reuse(case: Case) -> None:
    subject = case.subject
    first, second = (ModelTree(subject.traits) for _ in range(2))
    subject.prepare("key")
    case.edit("key", first, least=1)
    if case.maybe():
        subject.mount("key")
        subject.unmount("key")
    subject.remove("key")

    subject.prepare("key")

    case.shows("key", second)
    case.edit("key", second)


@prop("L12", "After removal and clean-up nothing is left: no file, mount, device or descriptor",
      weight=0.5)  # fmt: skip
def remove_reclaims(case: Case) -> None:
    subject = case.subject
    before = case.untouched()

    name, trees = case.chain(operations=5)
    subject.prepare("active", name)
    case.edit("active", trees[-1].child())
    subject.view("look", name)
    if case.maybe():
        subject.mount("active")
        subject.unmount("active")
    if case.maybe():
        subject.apply_diff(subject.prepare("copy").name, of=name, parent=None)
    for info in reversed(subject.walk()):
        subject.remove(info.name)
    subject.drain()

    assert_footprint(before, subject.root)


@prop("L13", "The list is complete, and parents come before their children")
def list_complete_and_ordered(case: Case) -> None:
    subject = case.subject
    made: dict[str, tuple[Kind, str | None]] = {}
    for number in range(case.draw(st.integers(1, 8))):
        committed = [name for name, (kind, _) in made.items() if kind is Kind.COMMITTED]
        parent = case.one_of(None, *committed)
        kind = case.one_of(Kind.ACTIVE, Kind.COMMITTED, Kind.VIEW)
        name = f"n{number}"
        if kind is Kind.VIEW:
            subject.view(name, parent)
        elif kind is Kind.ACTIVE:
            subject.prepare(name, parent)
        else:
            subject.prepare("work", parent)
            subject.commit(name, "work")
        made[name] = (kind, parent)

    listed = subject.walk()

    assert {info.name: (info.kind, info.parent) for info in listed} == made, f"listed: {listed}"
    names = [info.name for info in listed]
    late = [i.name for i in listed if i.parent and names.index(i.parent) > names.index(i.name)]
    assert not late, f"listed before their parents: {late}"
    filtered = {info.name for info in subject.walk("kind==committed")}
    assert filtered == {name for name, (kind, _) in made.items() if kind is Kind.COMMITTED}
    for info in reversed(listed):  # an order in which all can be removed
        subject.remove(info.name)


DEEP = 128


@prop("L14", "A chain of 128 layers, or as deep as the driver says, shows all of them", once=True)
def chain_depth(case: Case) -> None:
    """Most layers come as archives, which is what a mount for each would take minutes for."""
    subject = case.subject
    most = case.capabilities.max_depth
    deep = 40 if case.brief else DEEP
    depth = min(deep, most) if most else deep
    tree = ModelTree(subject.traits)
    parent: str | None = None
    for number in range(depth):
        name, members, program = f"file{number}", [file(f"file{number}", b"new")], []
        program += [Create(name.encode(), b"new"), Mkdir(b"dir%d" % number)]
        members.append(directory(f"dir{number}"))
        if number % 3 == 2:
            program.append(Unlink(b"file%d" % (number - 2)))
            members.append(whiteout(f"file{number - 2}"))
        if number % 5 == 4:
            program.append(Write(b"file%d" % (number - 1), b"again"))
            members.append(file(f"file{number - 1}", b"again"))
        tree.all_of(program)
        if number % 16 == 15:
            subject.prepare("work", parent)
            subject.done("work", *program)
            parent = subject.commit(f"layer{number}", "work").name
        else:
            parent = subject.add_layer(archive(members), parent).name
    subject.view("look", parent)
    subject.prepare("top", parent)

    case.shows("look", tree)
    case.shows("top", tree)
    subject.done("top", *(program := [Write(b"file1", b"from the top"), Create(b"new")]))
    case.shows("top", tree.child().all_of(program))


@prop("L14b", "One layer more than the driver says is NotSupported, and leaves nothing", once=True,
      needs="max_depth")  # fmt: skip
def too_deep(case: Case) -> None:
    """On the driver itself: to make so many layers one upon the other would take a minute."""
    handle, root = case.subject.handle, case.subject.storage_root
    most = case.capabilities.max_depth
    stack = [root / f"deep{number}" for number in range(most + 3)]
    *layers, fits, over = stack
    options = parse_options(
        handle.name, getattr(handle.driver, "options", ()), (), scope="snapshot"
    )
    for place in stack:
        place.mkdir()
    try:
        for place in layers:
            handle.prepare(place, (), Kind.ACTIVE, options)
            handle.seal(place, ())
        handle.prepare(fits, layers[:most], Kind.ACTIVE, options)
        os.close(handle.attach(fits, layers[:most], Kind.ACTIVE, options))
        try:
            handle.prepare(over, layers, Kind.ACTIVE, options)
            os.close(handle.attach(over, layers, Kind.ACTIVE, options))
        except StowageError:
            return
        raise AssertionError(f"{len(layers)} parents work, though max_depth is {most}")
    finally:
        for place in stack:
            handle.destroy(place)
            remove_tree(place)


@prop("L15", "Closing the root and opening it again changes neither records, contents nor status",
      weight=0.5)  # fmt: skip
def reopen(case: Case) -> None:
    subject = case.subject
    name, trees = case.chain(operations=4)
    subject.prepare("active", name, labels=case.draw(label_sets()))
    active = trees[-1].child()
    case.edit("active", active)
    subject.view("look", name)
    before = (
        [subject.stat(one) for one in subject.names()],
        {one: subject.layers.metadata(one) for one in subject.names()},
        subject.handle.status(),
        subject.capabilities,
        subject.usage(name),
    )

    subject.reopen()

    after = (
        [subject.stat(one) for one in subject.names()],
        {one: subject.layers.metadata(one) for one in subject.names()},
        subject.handle.status(),
        subject.capabilities,
        subject.usage(name),
    )
    for what, one, other in zip(
        ("records", "metadata", "status", "capabilities", "usage"), before, after, strict=True
    ):
        assert one == other, f"{what} changed: {one} became {other}"
    case.shows("active", active)
    case.shows("look", trees[-1])
    case.edit("active", active)


@prop("L16", "Closing twice is nothing; a root that is closed can be opened by the next", once=True)
def close_twice(case: Case) -> None:
    subject = case.subject
    subject.prepare("key")
    subject.done("key", Create(b"file"))
    subject.handle.close()
    subject.handle.close()
    subject.shut()
    subject.shut()

    subject.reopen()

    assert list(subject.tree("key")) == [b"", b"file"], "the contents did not survive closing"


@prop("L17", "Every path in metadata exists and lies under the root while the snapshot does")
def metadata_paths_exist(case: Case) -> None:
    subject = case.subject
    name, _ = case.chain(operations=3)
    subject.prepare("active", name)
    subject.view("look", name)
    subject.prepare("base")
    for key in subject.names():
        for fact, value in subject.layers.metadata(key).items():
            for path in value.split(":") if value.startswith("/") else ():
                assert os.path.lexists(path), f"{fact} of {key}: {path} does not exist"
                inside = path.startswith(f"{subject.root}/")
                assert inside, f"{fact} of {key}: {path} is not under the root"


@prop("L18", "A commit whose name is taken leaves the snapshot active and usable")
def commit_atomic(case: Case) -> None:
    subject = case.subject
    name, trees = case.chain(most=2, operations=3)
    tree = trees[-1].child()
    subject.prepare("work", name)
    case.edit("work", tree)

    subject.refused(AlreadyExists, "commit", name, "work")

    assert subject.stat("work").kind is Kind.ACTIVE, "it is not active any more"
    case.shows("work", tree)
    case.edit("work", tree)
    subject.commit("mine", "work")
    assert "work" not in subject.names(), "the key is still there"
    case.shows("mine", tree)


@prop("L19", "Labels are set, replaced, updated by field path, and survive what happens around")
def labels(case: Case) -> None:
    subject = case.subject
    first, second, third = (case.draw(label_sets()) for _ in range(3))

    def kept(given: dict[str, str]) -> dict[str, str]:
        return {key: value for key, value in given.items() if value}

    subject.prepare("key", labels=first)
    assert dict(subject.stat("key").labels) == kept(first)
    subject.label("key", second)
    assert dict(subject.stat("key").labels) == kept(second)
    key, value = case.one_of(("a", "new"), ("b.c", "new"), ("a", ""))
    subject.label("key", {key: value, "other": "ignored"}, f"labels.{key}")
    assert dict(subject.stat("key").labels) == kept({**second, key: value})
    subject.refused(InvalidArgument, "label", "key", {"a": "b"}, "parent")
    subject.commit("layer", "key", labels=third)
    assert dict(subject.stat("layer").labels) == kept(third), "a commit replaces the labels"
