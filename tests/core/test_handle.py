"""A handle holds one driver, checks it against the specs and lets observers see each call."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from stowage.errors import DriverFailed, NoSpace, NotFound, StowageError
from stowage.handle import StorageHandle, validate
from stowage.hookspecs import hookimpl
from stowage.model import Kind, Mount, StorageProbe, Usage
from stowage.options import Options


class Minimal:
    """A driver with only the hooks that it must have."""

    name = "minimal"
    api_version = 1
    options = ()

    def __init__(self, *ignored: object) -> None:
        self.prepared: list[Path] = []

    @hookimpl
    def storage_probe(self) -> StorageProbe:
        return StorageProbe()

    @hookimpl
    def storage_prepare(self, directory: Path) -> None:  # fewer arguments than the spec
        self.prepared.append(directory)

    @hookimpl
    def storage_mounts(self, directory: Path) -> Sequence[Mount]:
        return (Mount("bind", str(directory)),)


def prepare(handle: StorageHandle, directory: Path = Path("/x")) -> None:
    handle.prepare(directory, (), Kind.ACTIVE, Options({}))


def test_a_driver_may_take_fewer_arguments_than_the_spec() -> None:
    driver = Minimal()

    prepare(StorageHandle(driver, "tests 1"))

    assert driver.prepared == [Path("/x")]


def test_a_hook_that_is_not_implemented_gives_none() -> None:
    handle = StorageHandle(Minimal(), "tests 1")

    assert handle.usage(Path("/x"), ()) is None


def test_a_misspelt_hook_is_refused_by_name() -> None:
    class Misspelt(Minimal):
        @hookimpl
        def storage_usages(self) -> Usage:
            return Usage(0, 0)

    with pytest.raises(DriverFailed, match="storage_usages"):
        StorageHandle(Misspelt(), "tests 1")


def test_an_unknown_argument_is_refused_by_name() -> None:
    class Greedy(Minimal):
        @hookimpl
        def storage_seal(self, directory: Path, colour: str) -> None:
            pass

    with pytest.raises(DriverFailed, match="colour"):
        StorageHandle(Greedy(), "tests 1")


def test_a_hook_without_the_mark_is_refused_by_name() -> None:
    class Unmarked(Minimal):
        def storage_seal(self, directory: Path) -> None:
            pass

    with pytest.raises(DriverFailed, match="not marked @hookimpl: storage_seal"):
        StorageHandle(Unmarked(), "tests 1")


def test_a_driver_without_mounts_is_refused() -> None:
    class Rootless:
        name, api_version, options = "rootless", 1, ()

        @hookimpl
        def storage_probe(self) -> StorageProbe:
            return StorageProbe()

        @hookimpl
        def storage_prepare(self) -> None:
            pass

    with pytest.raises(DriverFailed, match="storage_mounts or storage_attach"):
        validate("storage", Rootless(), "tests 1")


def test_an_os_error_of_a_driver_becomes_the_class_of_its_errno() -> None:
    class Full(Minimal):
        @hookimpl
        def storage_seal(self, directory: Path) -> None:
            raise OSError(errno.ENOSPC, "full", str(directory))

    with pytest.raises(NoSpace) as caught:
        StorageHandle(Full(), "tests 1").seal(Path("/x"), ())

    assert caught.value.errno == errno.ENOSPC
    assert isinstance(caught.value.__cause__, OSError)


def test_a_root_that_cannot_be_made_read_only_is_closed(tmp_path: Path) -> None:
    served: list[int] = []

    class Serving(Minimal):
        @hookimpl
        def storage_attach(self) -> int:  # a plain directory: mount_setattr(2) refuses it
            served.append(os.open(tmp_path, os.O_PATH | os.O_CLOEXEC))
            return served[0]

    with pytest.raises(StowageError, match="minimal"):
        StorageHandle(Serving(), "tests 1").attach(tmp_path, (), Kind.VIEW, Options({}))

    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(served[0])


def test_a_foreign_exception_names_the_driver_its_owner_and_the_hook() -> None:
    class Buggy(Minimal):
        @hookimpl
        def storage_seal(self, directory: Path) -> None:
            raise ZeroDivisionError("oops")

    with pytest.raises(
        DriverFailed, match=r"'minimal' of tests 1 failed in storage_seal"
    ) as caught:
        StorageHandle(Buggy(), "tests 1").seal(Path("/x"), ())

    assert caught.value.details == "ZeroDivisionError: oops"


def test_a_probe_that_raises_is_a_finding_and_not_an_exception() -> None:
    class Doubtful(Minimal):
        @hookimpl
        def storage_probe(self) -> StorageProbe:
            raise RuntimeError("no idea")

    probe = StorageHandle(Doubtful(), "tests 1").probe

    assert not probe.ok
    assert "no idea" in probe.findings[0].reason
    assert probe.findings[0].remedy == "report it to tests 1"


class Recorder:
    """An observer that writes down what it sees."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    @hookimpl
    @contextmanager
    def observer_call(
        self, driver: str, hook: str, arguments: Mapping[str, object]
    ) -> Iterator[None]:
        self.seen.append(f"before {driver}.{hook} {sorted(arguments)}")
        try:
            yield
        except BaseException as error:
            self.seen.append(f"failed {type(error).__name__}")
            raise
        self.seen.append("after")


def test_an_observer_sees_before_and_after_a_call() -> None:
    recorder = Recorder()

    StorageHandle(Minimal(), "tests 1", [recorder]).seal(Path("/x"), ())

    assert recorder.seen == ["before minimal.storage_seal ['directory', 'parents']", "after"]


def test_an_observer_sees_a_failure() -> None:
    class Failing(Minimal):
        @hookimpl
        def storage_seal(self, directory: Path) -> None:
            raise NotFound("thing", "x")

    recorder = Recorder()
    with pytest.raises(NotFound):
        StorageHandle(Failing(), "tests 1", [recorder]).seal(Path("/x"), ())

    assert recorder.seen[-1] == "failed NotFound"


def test_an_observer_can_take_the_place_of_a_call() -> None:
    class Refuser:
        @hookimpl
        @contextmanager
        def observer_call(self) -> Iterator[None]:
            raise OSError(errno.EIO, "injected")
            yield

    driver = Minimal()
    with pytest.raises(Exception, match="storage_prepare"):
        prepare(StorageHandle(driver, "tests 1", [Refuser()]))

    assert driver.prepared == []


def test_two_handles_do_not_hear_each_other() -> None:
    one, two = Minimal(), Minimal()
    prepare(StorageHandle(one, "tests 1"))
    StorageHandle(two, "tests 1")

    assert (len(one.prepared), len(two.prepared)) == (1, 0)


def test_the_logger_argument_is_a_plain_logger() -> None:
    assert Minimal(Path("/x"), Options({}), logging.getLogger("x")).prepared == []
