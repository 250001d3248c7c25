"""conmon's log, read back."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stowage.containers import log_tail
from stowage.containers.log_entries import LogEntry, parse_time_ns
from stowage.containers.logs import read_log

TIME = "2026-11-24T04:18:18.123456789+00:00"

entries = st.lists(
    st.tuples(
        st.sampled_from(["stdout", "stderr"]),
        st.booleans(),
        st.binary(max_size=20).filter(lambda text: b"\n" not in text),
    ),
    max_size=12,
)


def written(path: Path, rows: list[tuple[str, bool, bytes]]) -> None:
    with open(path, "wb") as file:
        for stream, full, text in rows:
            file.write(f"{TIME} {stream} {'F' if full else 'P'} ".encode() + text + b"\n")


@settings(max_examples=50, deadline=None)
@given(rows=entries)
def test_every_byte_comes_back_in_order(
    tmp_path_factory: object, rows: list[tuple[str, bool, bytes]]
) -> None:
    path = tmp_path_factory.mktemp("log") / "ctr.log"  # type: ignore[attr-defined]  # pytest's
    written(path, rows)
    expected = [(stream, text + (b"\n" if full else b"")) for stream, full, text in rows]

    assert [(entry.stream, entry.text) for entry in read_log(path)] == expected


@settings(max_examples=150, deadline=None)
@given(rows=entries, count=st.integers(0, 6), block=st.sampled_from([1, 30, 100, 1 << 16]))
def test_tail_counts_lines_and_keeps_their_parts(
    tmp_path_factory: object, rows: list[tuple[str, bool, bytes]], count: int, block: int
) -> None:
    """The model: lines as lists of entries, by their first entry. The end of the file is read
    in blocks of any size."""
    path = tmp_path_factory.mktemp("log") / "ctr.log"  # type: ignore[attr-defined]  # pytest's
    written(path, rows)
    lines: list[list[int]] = []
    opened: dict[str, list[int]] = {}
    for number, (stream, full, _) in enumerate(rows):
        if stream not in opened:
            opened[stream] = []
            lines.append(opened[stream])
        opened[stream].append(number)
        if full:
            del opened[stream]
    kept = [number for line in (lines[-count:] if count else []) for number in line]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_tail, "_BLOCK_BYTES", block)
        found = [entry.text.rstrip(b"\n") for entry in read_log(path, tail=count)]

    assert found == [rows[number][2].rstrip(b"\n") for number in kept]


def test_since_and_until_are_by_nanoseconds(tmp_path: Path) -> None:
    path = tmp_path / "ctr.log"
    path.write_text(
        "".join(f"2026-11-24T04:18:18.00000000{n}Z stdout F {n}\n" for n in range(1, 6))
    )
    second = parse_time_ns("2026-11-24T04:18:18.000000002Z")

    found = [entry.text for entry in read_log(path, since_ns=second, until_ns=second + 2)]
    assert found == [b"2\n", b"3\n", b"4\n"]


def test_times_are_exact() -> None:
    assert parse_time_ns("1970-01-01T00:00:01.000000001Z") == 1_000_000_001
    assert parse_time_ns("1970-01-01T01:00:00.5+01:00") == 500_000_000
    assert LogEntry(TIME, "stdout", b"").time_ns % 1_000_000_000 == 123456789


def test_a_missing_log_is_empty_and_junk_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "ctr.log"
    assert list(read_log(path)) == []
    path.write_bytes(b"junk\n\n" + f"{TIME} stdout F ok\n{TIME} stdout F half".encode())

    assert [entry.text for entry in read_log(path)] == [b"ok\n"]


def test_following_gives_what_is_written_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "ctr.log"
    path.write_text(f"{TIME} stdout F first\n")
    going_on = True

    def write() -> None:
        nonlocal going_on
        with open(path, "a") as file:
            file.write(f"{TIME} stdout F sec")
            file.flush()
            time.sleep(0.1)
            file.write("ond\n")
        going_on = False

    thread = threading.Thread(target=write)
    thread.start()
    texts = [entry.text for entry in read_log(path, follow=lambda: going_on)]
    thread.join()

    assert texts == [b"first\n", b"second\n"]


def test_the_tail_of_a_large_log_is_found_from_its_end(tmp_path: Path) -> None:
    """What lies before is not even looked at: here it is no log."""
    path = tmp_path / "ctr.log"
    with open(path, "wb") as file:
        file.write(b"\xff" * 1_000_000 + b"\n")
        file.writelines(f"{TIME} stdout F {n}\n".encode() for n in range(5000))

    assert [entry.text for entry in read_log(path, tail=2)] == [b"4998\n", b"4999\n"]
    with open(path, "rb") as opened:
        found = log_tail.find_tail(opened, 2)
    assert found is not None
    assert found[0] > 1_000_000
