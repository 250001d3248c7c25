"""M: mounts, and what happens around them."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from pathlib import Path

from hypothesis import strategies as st

from ....errors import Busy, NotFound
from ....linux.mountinfo import read_mountinfo
from ....linux.namespaces import CLONE_FS, CLONE_NEWNS, unshare
from ....model import Kind
from ..case import Case
from ..footprint import assert_footprint, footprint
from ..operations import Create, Write
from ..registry import prop
from ..subject import assert_model
from ..tree import observe


def _mounted_below(root: Path) -> list[str]:
    return [entry.target for entry in read_mountinfo() if entry.target.startswith(f"{root}/")]


def _is_mounted(place: Path) -> bool:
    """As the mount table says: a bind mount has its file system's own device number."""
    return any(entry.target == str(place) for entry in read_mountinfo())


@prop("M1", "Users of a mount share its place; it is unmounted when the last one leaves, once",
      machine="mounts")  # fmt: skip
def refcount(case: Case) -> None:
    subject, layers = case.subject, case.subject.layers
    subject.prepare("one")
    subject.prepare("other")
    elsewhere = subject.mount("other")
    count = case.draw(st.integers(1, 4))
    with ExitStack() as users:
        places = {users.enter_context(layers.mounted("one")) for _ in range(count)}
        assert len(places) == 1, f"mounted at {places}"
        (place,) = places
        stays = case.maybe()
        if stays:
            assert subject.mount("one") == place, "a further user is given another place"
        assert _is_mounted(place), f"{place} is no mount point"

    if stays:
        assert _is_mounted(place), "unmounted though one user is left"
        subject.unmount("one")
    assert not _is_mounted(place), "still mounted though nobody uses it"
    subject.refused(NotFound, "unmount", "one")
    assert _is_mounted(elsewhere), "somebody else's mount was taken down"
    subject.unmount("other")
    assert _mounted_below(subject.root) == [], "mounts are left"


@prop("M2", "Mounting and unmounting any number of times changes nothing", machine="mounts")
def get_put_preserves(case: Case) -> None:
    subject = case.subject
    name, trees = case.chain(most=2, operations=4)
    tree = trees[-1].child()
    subject.prepare("key", name)
    case.edit("key", tree)

    for _ in range(case.draw(st.integers(1, 3))):
        place = subject.mount("key")
        root = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            seen = observe(root)
        finally:
            os.close(root)
        assert_model(tree, seen, f"'key', mounted at {place}")
        subject.unmount("key")

    case.shows("key", tree)


@prop("M3", "A parent, its child and a sibling, mounted at once, stay apart", machine="mounts")
def mounted_together(case: Case) -> None:
    subject = case.subject
    name, trees = case.chain(most=2, operations=4)
    subject.prepare("child", name)
    subject.prepare("sibling", name)
    subject.view("look", name)
    child, sibling = trees[-1].child(), trees[-1].child()
    with (
        subject.attached("child") as one,
        subject.attached("sibling") as two,
        subject.attached("look", read_only=True) as three,
    ):
        for root, tree in ((one, child), (two, sibling), (one, child)):
            for operation in case.program(tree, most=4):
                operation.attempt(root)
        seen = observe(three)

    case.shows("child", child)
    case.shows("sibling", sibling)
    assert seen == subject.tree("look"), "what the view showed changed while others were written to"
    case.shows("look", trees[-1])


@prop("M4", "After a process died with a snapshot mounted, it can be used, mounted and removed",
      machine="mounts", weight=0.2)  # fmt: skip
def crash_unmounted(case: Case) -> None:
    subject = case.subject
    subject.prepare("key")
    subject.done("key", Create(b"before"))
    call = case.one_of(("mount", "key"), ("tree", "key"))

    fate = subject.elsewhere(call)

    assert fate.finished, f"could not be mounted elsewhere: {fate.error}"
    if call[0] == "mount":
        subject.unmount("key")
    assert list(subject.tree("key")) == [b"", b"before"], "the contents changed"
    subject.mount("key")
    subject.unmount("key")
    subject.remove("key")
    subject.drain()
    assert _mounted_below(subject.root) == [], "mounts are left"


@prop("M5", "Removing what is mounted or attached is Busy, changes nothing, and works later")
def busy(case: Case) -> None:
    subject = case.subject
    subject.prepare("key")
    subject.done("key", Create(b"file", b"kept"))
    before = subject.stat("key")
    how = case.one_of("remove", "commit")
    arguments = ("key",) if how == "remove" else ("layer", "key")

    with subject.attached("key") as root:
        error = subject.refused(Busy, how, *arguments)
        assert str(os.getpid()) in str(error), f"it does not say who has it: {error}"
        Write(b"file", b"more").perform(root)

    assert subject.stat("key") == before, "the record changed"
    getattr(subject, how)(*arguments)


@prop("M5b", "Unmounting while a process works in the mount is Busy and says who; later it works",
      machine="mounts", weight=0.2)  # fmt: skip
def busy_mount(case: Case) -> None:
    subject = case.subject
    subject.prepare("key")
    place = subject.mount("key")
    (place / "file").touch()
    held = os.open(place / "file", os.O_RDONLY | os.O_CLOEXEC)
    try:
        error = subject.refused(Busy, "unmount", "key")
        assert str(os.getpid()) in str(error), f"it does not say who has it: {error}"
        subject.refused(Busy, "remove", "key")
    finally:
        os.close(held)

    subject.unmount("key")
    assert b"file" in subject.tree("key"), "what was written through the mount is gone"
    subject.remove("key")


@prop("M6", "Saying the mounts of a snapshot changes nothing and says the same each time")
def mounts_idempotent(case: Case) -> None:
    subject = case.subject
    name, trees = case.chain(operations=3)
    subject.prepare("active", name)
    subject.view("look", name)
    subject.drain()
    before = footprint(subject.root)

    for key in ("active", "look"):
        first = subject.layers.mounts(key)
        assert subject.layers.mounts(key) == first, f"the mounts of {key!r} are not always the same"
        kind = subject.stat(key).kind
        for mount in first:
            assert mount.read_only == (kind is not Kind.ACTIVE), f"{key!r}: {mount}"

    assert_footprint(before, subject.root)
    case.shows("active", trees[-1])


@prop("M7", "A copy of a mount in another mount namespace keeps no snapshot from being removed",
      machine="mounts", weight=0.2)  # fmt: skip
def leaked_namespace(case: Case) -> None:
    subject = case.subject
    subject.prepare("key")
    subject.done("key", Create(b"file"))
    subject.mount("key")
    copied, over = threading.Event(), threading.Event()

    def hold() -> None:
        unshare(CLONE_FS | CLONE_NEWNS)
        copied.set()
        over.wait()

    holder = threading.Thread(target=hold, daemon=True)
    holder.start()
    try:
        assert copied.wait(30), "no mount namespace could be made"
        subject.unmount("key")
        subject.remove("key")
        subject.drain()
    finally:
        over.set()
        holder.join()
    assert subject.names() == [], f"listed: {subject.names()}"
