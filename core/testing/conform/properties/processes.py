"""X: threads and processes beside each other (recorded histories are in ``concurrency``)."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from typing import Any

from ....errors import AlreadyExists, FailedPrecondition, NotFound, StowageError
from ..archives import archive, file
from ..case import Case
from ..operations import Create, Mkdir
from ..registry import prop


def _together(*works: Callable[[], object]) -> list[BaseException | None]:
    """Run each on a thread, all at once; return what each raised."""
    raised: list[BaseException | None] = [None] * len(works)
    barrier = threading.Barrier(len(works))

    def run(number: int, work: Callable[[], object]) -> None:
        barrier.wait()
        try:
            work()
        except BaseException as error:  # noqa: BLE001  # looked at by the property
            raised[number] = error

    threads = [
        threading.Thread(target=run, args=(number, work)) for number, work in enumerate(works)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


@prop(
    "X2",
    "While an archive is being unpacked, or a diff written, others work undisturbed",
    weight=0.4,
)
def long_operation(case: Case) -> None:
    """The long one waits in the middle for the others to be done."""
    subject = case.subject
    name, _ = case.chain(most=2, operations=3)
    for key in ("busy", "idle"):
        subject.prepare(key, name)
    stream = _Stuck(archive([file(f"f{number}", b"x" * 2000) for number in range(50)]))
    how = case.one_of("apply", "diff")

    def work() -> None:
        if how == "apply":
            subject.layers.apply("busy", stream)
        else:
            subject.layers.diff(name, stream, parent=None)

    def others() -> None:
        try:
            assert stream.begun.wait(_PATIENCE_SECONDS), f"{how} never began"
            subject.layers.prepare("new", name)
            subject.layers.commit("layer", "idle")
            subject.layers.remove("new")
            assert not stream.over.is_set()
        finally:
            stream.over.set()

    for error in _together(work, others):
        if error is not None:
            raise error
    assert not stream.gave_up, f"others waited until the {how} was over"


_PATIENCE_SECONDS = 60


class _Stuck(io.BytesIO):
    """A stream that stops at its first read or write until it is told that all is over."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.begun, self.over = threading.Event(), threading.Event()
        self.gave_up = False

    def _wait(self) -> None:
        self.begun.set()
        self.gave_up |= not self.over.wait(_PATIENCE_SECONDS)

    def read(self, size: int | None = -1) -> bytes:
        self._wait()
        return super().read(size)

    def readinto(self, buffer: Any) -> int:
        self._wait()
        return super().readinto(buffer)

    def write(self, data: Any) -> int:
        self._wait()
        return super().write(data)


@prop("X3", "What a process held when it was killed holds nobody up", weight=0.3)
def killed_holder(case: Case) -> None:
    subject = case.subject
    name, _ = case.chain(most=2, operations=3)
    subject.prepare("key", name)
    subject.done("key", Create(b"file"))

    fate = subject.elsewhere(("hold", case.one_of("key", name)), beside=case.maybe())

    assert fate.finished, f"it could not be held elsewhere: {fate.error}"
    subject.done("key", Mkdir(b"dir"))
    assert {b"file", b"dir"} <= subject.tree("key").keys(), "the contents are not what they were"
    subject.remove("key")
    subject.drain()


@prop(
    "X4",
    "What one process makes, another sees at once, without opening the root anew",
    needs="multi_process",
    weight=0.3,
)
def two_processes(case: Case) -> None:
    subject = case.subject
    subject.prepare("mine")

    fate = subject.elsewhere(
        ("done", "mine", Create(b"from elsewhere")),
        ("prepare", "theirs"),
        ("done", "theirs", Create(b"file")),
        ("commit", "layer", "theirs"),
        beside=True,
    )

    assert fate.finished, fate.error
    assert subject.names() == ["layer", "mine"], f"listed: {subject.names()}"
    assert b"from elsewhere" in subject.tree("mine"), "what they wrote is not there"
    subject.prepare("child", "layer")
    assert b"file" in subject.tree("child"), "the layer that they made does not show"


@prop(
    "X5",
    "Of a removal and a new child at once exactly one wins; of two commits, two keys, too",
    weight=0.6,
)
def races(case: Case) -> None:
    subject, layers = case.subject, case.subject.layers
    subject.prepare("work")
    subject.commit("layer", "work")
    race = case.one_of("remove and child", "two keys", "two names", "two removals")
    if race == "remove and child":
        works = [lambda: layers.remove("layer"), lambda: layers.prepare("child", "layer")]
        lost: tuple[type[StowageError], ...] = (NotFound, FailedPrecondition)
    elif race == "two keys":
        works = [lambda: layers.prepare("key", "layer"), lambda: layers.view("key", "layer")]
        lost = (AlreadyExists,)
    elif race == "two names":
        for key in ("one", "two"):
            subject.prepare(key)
        works = [lambda: layers.commit("name", "one"), lambda: layers.commit("name", "two")]
        lost = (AlreadyExists,)
    else:
        works = [lambda: layers.remove("layer"), lambda: layers.remove("layer")]
        lost = (NotFound, FailedPrecondition)

    raised = _together(*works)

    losers = [error for error in raised if error is not None]
    assert len(losers) == 1, f"{race}: {[repr(error) for error in raised]}"
    assert isinstance(losers[0], lost), f"{race}: {losers[0]!r}"
    for name in subject.names():
        subject.tree(name)
    found = subject.layers.check()
    assert not found, f"check says: {[str(one) for one in found]}"


@prop("X6", "Usage, diff and changes of what is removed meanwhile are right or NotFound, no more")
def removed_meanwhile(case: Case) -> None:
    """The c/storage comment "LOCKING BUG": a size that was computed outside of the lock."""
    subject, layers = case.subject, case.subject.layers
    case.layer("layer", most=10)
    before = subject.usage("layer")
    diff = subject.diff("layer")
    seen: list[object] = []

    def look() -> None:
        out = io.BytesIO()
        seen.append(layers.usage("layer"))
        layers.diff("layer", out)
        seen.append(out.getvalue())

    raised = _together(look, lambda: layers.remove("layer"), look)

    assert raised[1] is None or isinstance(raised[1], FailedPrecondition), repr(raised[1])
    for error in (raised[0], raised[2]):
        assert error is None or isinstance(error, (NotFound, FailedPrecondition)), repr(error)
    assert all(one in (before, diff) for one in seen), "a wrong answer"
