"""The journal, read while others write to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stowage.store import events
from stowage.store.events import read_events
from stowage.store.metastore import Metastore, record_event


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Metastore]:
    store = Metastore(tmp_path / "metadata.db")
    yield store
    store.close()


def record(store: Metastore, *actions: str) -> None:
    for action in actions:
        with store.transaction() as tx:
            record_event(tx, "container", action, "id", {"name": "web"})


def actions(store: Metastore, **bounds: int) -> list[str]:
    return [event.action for event in read_events(store, **bounds)]


def test_the_past_is_told_in_order_between_two_times(store: Metastore) -> None:
    record(store, "create")
    middle = time.time_ns()
    record(store, "start", "die")
    after = time.time_ns()
    record(store, "destroy")

    assert actions(store, since_ns=0, until_ns=time.time_ns()) == [
        "create", "start", "die", "destroy",
    ]  # fmt: skip
    assert actions(store, since_ns=middle, until_ns=after) == ["start", "die"]
    assert actions(store, until_ns=time.time_ns()) == []


@pytest.mark.parametrize("watched", [True, False])
def test_what_another_connection_records_is_told_as_it_happens(
    store: Metastore, watched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not watched:

        def none_left() -> None:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(events, "Inotify", none_left)
    else:
        monkeypatch.setattr(events, "_LONGEST_WAIT_SECONDS", 60.0)
    record(store, "before")
    found: list[str] = []
    ready = threading.Event()

    def listen() -> None:
        reader = read_events(store, since_ns=0)
        for event in reader:
            found.append(event.action)
            ready.set()
            if event.action == "last":
                reader.close()  # type: ignore[attr-defined]  # a generator
                return

    listener = threading.Thread(target=listen)
    listener.start()
    assert ready.wait(20)
    other = Metastore(store.path)
    record(other, "one", "two", "last")
    other.close()
    listener.join(20)

    assert found == ["before", "one", "two", "last"]


def test_it_ends_at_a_time_to_come(store: Metastore) -> None:
    record(store, "old")
    assert actions(store, until_ns=time.time_ns() + 200_000_000) == []
