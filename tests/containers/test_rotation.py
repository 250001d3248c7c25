"""Logs that begin anew at a size, while somebody writes and somebody reads."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stowage.containers import rotator
from stowage.containers.log_config import LogConfig
from stowage.containers.log_files import LogFiles, rotated, rotated_numbers
from stowage.containers.model import ContainerRecord
from stowage.containers.rotation import rotating_directory
from stowage.containers.rotator import Wish, rotate
from stowage.errors import FailedPrecondition

from .boxes import Boxes, until

SMALL = LogConfig("json-file", {"max-size": "4k", "max-file": "3"})
WRITER = "i=0; while [ $i -lt 1200 ]; do i=$((i+1)); echo line-$i; {pause}; done; echo last"


def rotators(boxes: Boxes) -> list[int]:
    """The processes that rotate for this root."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = entry.joinpath("cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"stowage.containers.rotator" in words and os.fsencode(boxes.root) in words[-2]:
            found.append(int(entry.name))
    return found


def log_of(boxes: Boxes, record: ContainerRecord) -> Path:
    return boxes.context.files(record.id).log


def numbers(boxes: Boxes, record: ContainerRecord) -> list[int]:
    texts = (entry.text for entry in boxes.containers.logs(record.id))
    return [int(text[5:]) for text in texts if text.startswith(b"line-")]


def contiguous(found: list[int]) -> bool:
    return found == list(range(found[0], found[0] + len(found)))


def writer(boxes: Boxes, tail: str = "") -> ContainerRecord:
    script = WRITER.format(pause="[ $((i % 20)) = 0 ] && sleep 0.02") + tail
    return boxes.start("sh", "-c", script, log=SMALL)


def test_no_line_is_lost_or_doubled_and_the_oldest_go(boxes: Boxes) -> None:
    record = writer(boxes)
    followed = [entry.text for entry in boxes.containers.logs(record.id, follow=True)]
    boxes.containers.wait(record.id)
    log = log_of(boxes, record)
    kept = numbers(boxes, record)

    files = [number for number in range(5) if rotated(log, number).exists()]
    assert files in ([0, 1, 2], [1, 2, 3])  # it may have ended just when its log began anew
    assert kept[-1] == 1200
    assert contiguous(kept)
    assert len(kept) < 1200
    lines = re.findall(rb"line-(\d+)$", b"".join(
        rotated(log, number).read_bytes() for number in reversed(files)), re.MULTILINE)  # fmt: skip
    assert [int(line) for line in lines] == kept
    seen = [int(text[5:]) for text in followed if text.startswith(b"line-")]
    assert seen == list(range(1, 1201))
    until(lambda: not rotators(boxes), "the rotator to end with the last container")


def test_a_killed_rotator_is_found_and_started_by_the_next_command(boxes: Boxes) -> None:
    record = writer(boxes, "; while :; do echo more; sleep 0.02; done")
    until(lambda: rotators(boxes), "the rotator")
    (first,) = rotators(boxes)
    os.kill(first, signal.SIGKILL)
    until(lambda: not rotators(boxes), "its end")
    before = log_of(boxes, record).stat().st_ino
    boxes.open()
    until(lambda: log_of(boxes, record).exists() and log_of(boxes, record).stat().st_ino != before,
          "a rotation")  # fmt: skip

    assert len(rotators(boxes)) == 1
    boxes.open()
    assert len(rotators(boxes)) == 1
    boxes.containers.remove(record.id, force=True)
    until(lambda: not rotators(boxes), "the rotator to end")
    assert not os.listdir(rotating_directory(boxes.context))


def test_a_wish_of_a_container_that_is_gone_is_forgotten(boxes: Boxes) -> None:
    directory = rotating_directory(boxes.context)
    directory.mkdir(exist_ok=True)
    for name in ("a" * 64, f".{'b' * 64}"):
        (directory / name).write_text("{}")
    boxes.open()

    assert not os.listdir(directory)


def test_no_file_too_many_is_kept_of_a_container_that_ended_meanwhile(tmp_path: Path) -> None:
    """Nobody begins the log anew then."""
    log = tmp_path / "ctr.log"
    for number in range(4):
        rotated(log, number).write_text(f"{number}..")
    rotate(Wish(log, tmp_path / "gone", 3, 3))

    assert rotated_numbers(log) == [1, 2, 3]
    assert not log.exists()


def test_one_process_rotates_for_all_and_none_where_nothing_is_bounded(boxes: Boxes) -> None:
    boxes.start("sleep", "60")
    assert not rotators(boxes)
    for _ in range(2):
        boxes.start("sleep", "60", log=SMALL)
    until(lambda: len(rotators(boxes)) == 1, "one rotator to be left")


def test_a_rotation_that_was_killed_halfway_is_finished(boxes: Boxes) -> None:
    """conmon writes on to the renamed file until it is told to begin anew."""
    record = writer(boxes)
    files = boxes.context.files(record.id)
    wish = Wish(files.log, files.bundle / "ctl", 1, 3)
    until(lambda: rotators(boxes), "the rotator")
    os.kill(rotators(boxes)[0], signal.SIGKILL)
    until(lambda: not rotators(boxes), "its end")
    if files.log.exists():
        files.log.rename(rotated(files.log, 7))
    time.sleep(0.1)
    assert not files.log.exists()
    rotate(wish)
    assert files.log.exists()
    boxes.containers.wait(record.id)

    kept = numbers(boxes, record)
    assert kept[-1] == 1200
    assert contiguous(kept)


def test_a_container_that_runs_again_writes_on(boxes: Boxes) -> None:
    record = boxes.start("echo", "again", log=SMALL)
    boxes.containers.wait(record.id)
    boxes.containers.start(record.id)
    boxes.containers.wait(record.id)

    assert [entry.text for entry in boxes.containers.logs(record.id)] == [b"again\n"] * 2


def test_following_ends_when_the_container_is_removed(boxes: Boxes) -> None:
    record = boxes.start("sh", "-c", "echo up; sleep 60", log=SMALL)
    entries = boxes.containers.logs(record.id, follow=True)
    assert next(entries).text == b"up\n"
    thread = threading.Thread(
        target=boxes.containers.remove, args=(record.id,), kwargs={"force": True}
    )
    thread.start()
    assert list(entries) == []
    thread.join()


def test_what_keeps_no_log_cannot_be_read(boxes: Boxes) -> None:
    record = boxes.start("echo", "unseen", log=LogConfig("none"))
    boxes.containers.wait(record.id)
    with pytest.raises(FailedPrecondition) as error:
        boxes.containers.logs(record.id)

    assert error.value.brief == "configured logging driver does not support reading"
    assert not log_of(boxes, record).exists()


# --- the files, without a container ---------------------------------------------------------------


@pytest.fixture
def instant_reopen(monkeypatch: pytest.MonkeyPatch) -> None:
    def reopened(wish: Wish) -> bool:
        wish.log.touch()
        return True

    monkeypatch.setattr(rotator, "_told_to_reopen", reopened)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.sampled_from(["write", "rotate", "read", "half"]), max_size=25))
def test_a_reader_gets_every_byte_once_whatever_happens_meanwhile(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    """A writer with an open file, as conmon; *half* is a rotation before the file is made anew."""
    log = tmp_path_factory.mktemp("log") / "ctr.log"
    written, got = b"", b""
    with open(log, "ab", buffering=0) as first:
        file = first
        opened = [first]
        reader = LogFiles(log)
        for number, step in enumerate(steps):
            if step == "write":
                file.write(b"%d " % number)
                written += b"%d " % number
            elif step == "read":
                got += b"".join(reader.chunks())
            elif log.exists():
                for old in reversed(rotated_numbers(log)):
                    rotated(log, old).rename(rotated(log, old + 1))
                log.rename(rotated(log, 1))
            if step == "rotate" and not log.exists():
                file = open(log, "ab", buffering=0)  # noqa: SIM115  # closed below
                opened.append(file)
        got += b"".join(reader.chunks())
        reader.close()
        for one in opened:
            one.close()

    assert got == written


@pytest.mark.usefixtures("instant_reopen")
@pytest.mark.parametrize("most", [1, 2, 5])
def test_so_many_files_are_kept(tmp_path: Path, most: int) -> None:
    log = tmp_path / "ctr.log"
    wish = Wish(log, tmp_path / "ctl", 3, most)
    for number in range(8):
        with open(log, "a") as file:
            file.write(f"{number}..")
        rotate(wish)

    assert [rotated(log, n).read_text() for n in rotated_numbers(log)] == [
        f"{8 - n}.." for n in range(1, most)
    ]
    assert log.read_text() == ""
