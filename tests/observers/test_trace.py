"""The trace shows each call and effect once, with its time, indented, failures marked."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stowage.effects import effect, observe
from stowage.observers.trace import TraceObserver


@contextmanager
def observing(observer: TraceObserver) -> Iterator[None]:
    remove = observe(lambda name, facts: observer.observer_effect(name, facts))
    try:
        yield
    finally:
        remove()


def test_effects_inside_a_call_are_indented_and_timed() -> None:
    lines: list[str] = []
    observer = TraceObserver(lines.append)

    with (
        observing(observer),
        observer.observer_call("overlay", "storage_prepare", {"directory": Path("/x"), "a": None}),
        effect("file.rename", source=b"a"),
    ):
        pass

    assert [re.sub(r"[\d.]+ ms", "N ms", line) for line in lines] == [
        "  file.rename source=b'a' N ms\n",
        "overlay storage_prepare directory=/x N ms\n",
    ]


def test_a_failure_is_marked_and_passes_through() -> None:
    lines: list[str] = []

    with (
        observing(TraceObserver(lines.append)),
        pytest.raises(OSError, match="full"),
        effect("file.write"),
    ):
        raise OSError(28, "full")

    assert lines[0].endswith(" ms ! OSError: [Errno 28] full\n")


def test_long_values_are_cut() -> None:
    lines: list[str] = []

    with observing(TraceObserver(lines.append)), effect("e", text="x" * 1000):
        pass

    assert len(lines[0]) < 150


def test_threads_are_indented_apart() -> None:
    lines: list[str] = []
    observer = TraceObserver(lines.append)

    def other() -> None:
        with effect("inner"):
            pass

    with observing(observer), effect("outer"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    assert lines[0].startswith("inner")


def test_lines_go_to_the_file_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOWAGE_TRACE_FILE", str(tmp_path / "trace"))

    with observing(TraceObserver()), effect("e", path="\udcff"):
        pass

    assert re.fullmatch(r"\d+ e path=.* ms\n", (tmp_path / "trace").read_text())


def test_lines_go_to_standard_error_without_it(capsys: pytest.CaptureFixture[str]) -> None:
    with observing(TraceObserver()), effect("e"):
        pass

    assert capsys.readouterr().err.startswith("e ")
