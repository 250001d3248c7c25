"""An archive read by a process of its own gives what one read here gives: trees, digests, recipes,
errors; and neither side outlives the other."""

from __future__ import annotations

import gzip
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stowage.errors import InvalidArchive, StowageError, Unavailable
from stowage.layers import apart, reading
from stowage.layers.apart_reader import RING_BYTES
from stowage.layers.diff import pack_tree
from stowage.layers.recipe import reassemble
from stowage.layers.tree import Tree
from stowage.layers.unpack import Unpacked, UnpackLimits, unpack

from .archives import Entry, archive, folder, hard, root_of, sym
from .trees import Model, build, differences, models, observe

pytestmark = pytest.mark.requires_root

Opened = Callable[[bytes], BinaryIO]


@pytest.fixture(autouse=True)
def _always_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "APART_BYTES", 512)


def _in_memory(raw: bytes) -> BinaryIO:
    return io.BytesIO(raw)


def _in_a_file(raw: bytes) -> BinaryIO:
    """Not at its beginning, and partly read by the one who looked at it before."""
    descriptor = os.memfd_create("archive")
    with os.fdopen(os.dup(descriptor), "wb") as out:
        out.write(b"before" + raw)
    os.lseek(descriptor, 0, os.SEEK_SET)
    file = os.fdopen(descriptor, "rb")
    assert file.read(6) == b"before"
    return file


def _unpack(
    directory: Path, stream: BinaryIO, limits: UnpackLimits | None = None
) -> tuple[Unpacked, bytes]:
    recipe = io.BytesIO()
    with stream, root_of(directory) as root:
        unpacked = unpack(stream, Tree(root), recipe=recipe, limits=limits or UnpackLimits())
    return unpacked, recipe.getvalue()


def _here(directory: Path, raw: bytes) -> tuple[Unpacked, bytes]:
    before, reading.APART_BYTES = reading.APART_BYTES, sys.maxsize >> 1
    try:
        return _unpack(directory, io.BytesIO(raw))
    finally:
        reading.APART_BYTES = before


def _directories(parent: Path, *names: str) -> Iterator[Path]:
    for name in names:
        directory = parent / name
        directory.mkdir()
        yield directory


@pytest.mark.parametrize("opened", [_in_memory, _in_a_file])
@given(model=models(), compress=st.booleans())
@settings(max_examples=8)
def test_the_tree_the_digest_and_the_recipe_are_the_same(
    session_dir: Path, opened: Opened, model: Model, compress: bool
) -> None:
    with tempfile.TemporaryDirectory(dir=session_dir) as path:
        source, one, other = _directories(Path(path), "source", "one", "other")
        build(source, model)
        packed = io.BytesIO()
        with root_of(source) as root:
            pack_tree(Tree(root), packed)
        raw = packed.getvalue()
        given_raw = gzip.compress(raw) if compress else raw

        apart_ = _unpack(one, opened(given_raw))

        assert apart_ == _here(other, raw)
        assert differences(observe(one), observe(other)) == []


@pytest.mark.parametrize("opened", [_in_memory, _in_a_file])
def test_a_payload_larger_than_the_shared_buffers_comes_through(
    shm_dir: Path, opened: Opened
) -> None:
    large = os.urandom(1 << 20) * (RING_BYTES // (1 << 20) + 3)
    entries = [Entry(b"before", data=b"x"), Entry(b"large", data=large), Entry(b"after", data=b"y")]
    raw = archive(entries)

    _, recipe = _unpack(shm_dir, opened(raw))

    assert (shm_dir / "large").read_bytes() == large
    assert (shm_dir / "after").read_bytes() == b"y"
    out = io.BytesIO()
    with root_of(shm_dir) as root:
        reassemble(io.BytesIO(recipe), root, out)
    assert out.getvalue() == raw


def test_files_behind_a_symlink_and_replaced_ones_are_found_again(shm_dir: Path) -> None:
    raw = archive(
        [
            folder(b"usr/lib"),
            sym(b"lib", b"usr/lib"),
            *(Entry(b"lib/f%d" % number, data=b"%d" % number * 300) for number in range(40)),
            Entry(b"lib/f7", data=b"again"),
            hard(b"lib/g", b"usr/lib/f8"),
        ]
    )

    _, recipe = _unpack(shm_dir, io.BytesIO(raw))

    out = io.BytesIO()
    with root_of(shm_dir) as root:
        reassemble(io.BytesIO(recipe), root, out)
    assert out.getvalue() == raw


def _broken() -> Iterator[tuple[str, bytes]]:
    files = [Entry(b"f%d" % number, data=os.urandom(5_000)) for number in range(200)]
    raw = archive(files)
    yield "cut off in a payload", raw[:700_000]
    yield "cut off between members", raw[: 200 * 512]
    yield "junk in a header", raw[: 10 * 5_632] + b"j" * 512 + raw[10 * 5_632 + 512 :]
    yield "a compressed one cut off", gzip.compress(raw)[:-100_000]
    yield "a compressed one damaged", gzip.compress(raw)[:-8] + bytes(8)
    yield "out of itself", archive([*files, Entry(b"../f")])
    yield "a mark in a mark", archive([*files, Entry(b".wh.a/b")])


@pytest.mark.parametrize(("what", "raw"), list(_broken()))
def test_what_is_wrong_is_said_in_the_same_words(shm_dir: Path, what: str, raw: bytes) -> None:
    one, other, third = _directories(shm_dir, "one", "other", "third")
    with pytest.raises(StowageError) as here:
        _here(one, raw)

    for directory, opened in ((other, _in_memory), (third, _in_a_file)):
        with pytest.raises(StowageError) as there:
            _unpack(directory, opened(raw))
        assert (type(there.value), str(there.value)) == (type(here.value), str(here.value)), what


def test_limits_hold(shm_dir: Path) -> None:
    raw = archive([Entry(b"f%d" % number, data=b"x" * 5_000) for number in range(200)])
    for limits in (UnpackLimits(entries=199), UnpackLimits(size_bytes=999_999)):
        with (
            tempfile.TemporaryDirectory(dir=shm_dir) as path,
            pytest.raises(InvalidArchive, match="holds more than"),
        ):
            _unpack(Path(path), io.BytesIO(raw), limits)
    with pytest.raises(InvalidArchive, match="goes on for more than"):
        _unpack(shm_dir, io.BytesIO(raw + bytes(1 << 22)), UnpackLimits(size_bytes=1 << 21))


class _Failing(io.RawIOBase):
    def __init__(self, raw: bytes, error: Exception) -> None:
        self._raw = io.BytesIO(raw)
        self._error = error

    def read(self, size: int = -1) -> bytes:
        if more := self._raw.read(size):
            return more
        raise self._error


def test_what_the_stream_raises_is_raised(shm_dir: Path) -> None:
    raw = archive([Entry(b"f%d" % number, data=b"x" * 5_000) for number in range(200)])

    with pytest.raises(Unavailable, match="gone"):
        _unpack(shm_dir, cast(BinaryIO, _Failing(raw[:500_000], Unavailable("gone"))))


def test_a_process_that_is_killed_is_an_error(
    shm_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: apart._Process) -> None:
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()

    monkeypatch.setattr(apart._Process, "has_message", killed)

    with pytest.raises(Unavailable, match="killed"):
        _unpack(shm_dir, io.BytesIO(archive([Entry(b"f", data=bytes(1 << 20))])))


def test_the_process_ends_with_the_one_who_unpacks(shm_dir: Path) -> None:
    script = (
        "import os, sys\n"
        "from stowage.layers import apart, reading\n"
        "from stowage.layers.tree import Tree\n"
        "from stowage.layers.unpack import unpack\n"
        "reading.APART_BYTES = 512\n"
        "first = apart._Process.receive\n"
        "def receive(self):\n"
        "    message = first(self)\n"
        "    print(self._process.pid, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
        "apart._Process.receive = receive\n"
        "unpack(sys.stdin.buffer, Tree(os.open(sys.argv[1], os.O_RDONLY)))\n"
    )
    raw = archive([Entry(b"large", data=bytes(RING_BYTES + (1 << 20)))])

    done = subprocess.run(
        [sys.executable, "-c", script, str(shm_dir)], input=raw, capture_output=True, check=False
    )

    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    process = Path("/proc") / done.stdout.decode().strip()
    deadline = time.monotonic() + 10
    while process.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not process.exists()


@pytest.mark.parametrize("opened", [_in_memory, _in_a_file])
def test_no_descriptor_is_left_open(shm_dir: Path, opened: Opened) -> None:
    before = set(os.listdir("/proc/self/fd"))

    _unpack(shm_dir, opened(archive([Entry(b"f", data=bytes(1 << 20))])))

    assert set(os.listdir("/proc/self/fd")) == before
