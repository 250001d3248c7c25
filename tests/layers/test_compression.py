"""Decompression by content (D18), and what is wrong with a stream (D11)."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from stowage.errors import InvalidArchive
from stowage.layers.compression import decompressed

SKIPPABLE = b"\x53\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"hello"


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


def gzipped(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzipped,
    "zstd": zstd,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}
SEVERAL: dict[str, Callable[[bytes, bytes], bytes]] = {
    "gzip members": lambda one, other: gzipped(one) + gzipped(other),
    "gzip padded with zeros": lambda one, other: gzipped(one + other) + bytes(1000),
    "zstd frames": lambda one, other: zstd(one) + zstd(other),
    "zstd skippable frames": lambda one, other: (
        SKIPPABLE + zstd(one) + SKIPPABLE + zstd(other) + SKIPPABLE
    ),
    "zstd without checksum or size": lambda one, other: zstandard.ZstdCompressor(
        write_content_size=False
    ).compress(one + other),
    "xz streams": lambda one, other: lzma.compress(one) + bytes(8) + lzma.compress(other),
    "bzip2 streams": lambda one, other: bz2.compress(one) + bz2.compress(other),
    "plain": lambda one, other: one + other,
}
CONTENTS = zlib.compress(b"tar" * 50) * 400 + bytes(400_000)
kinds = pytest.mark.parametrize("kind", COMPRESS)


def read(raw: bytes) -> bytes:
    return decompressed(io.BytesIO(raw)).read()


@pytest.mark.parametrize("several", SEVERAL.values(), ids=SEVERAL.keys())
@pytest.mark.parametrize("cut", [0, 1, 70_000])
def test_all_parts_of_a_stream_count(several: Callable[[bytes, bytes], bytes], cut: int) -> None:
    assert read(several(CONTENTS[:cut], CONTENTS[cut:])) == CONTENTS


@kinds
@given(data=st.data())
def test_a_stream_that_is_cut_off_is_refused(kind: str, data: st.DataObject) -> None:
    raw = COMPRESS[kind](CONTENTS)
    cut = data.draw(st.integers(6, len(raw) - 1))

    with pytest.raises(InvalidArchive):
        read(raw[:cut])


@kinds
@given(data=st.data())
def test_a_flipped_bit_never_gives_other_contents(kind: str, data: st.DataObject) -> None:
    """All four carry checksums; a bit that means nothing (a time in gzip) may go unnoticed."""
    raw = bytearray(COMPRESS[kind](CONTENTS))
    at = data.draw(st.integers(6, len(raw) - 1))
    raw[at] ^= 1 << data.draw(st.integers(0, 7))

    try:
        assert read(bytes(raw)) == CONTENTS
    except InvalidArchive:
        pass


@kinds
def test_junk_behind_a_stream_is_refused(kind: str) -> None:
    with pytest.raises(InvalidArchive, match=f"(?i)something else follows the {kind}"):
        read(COMPRESS[kind](CONTENTS) + b"more than zeros")


@kinds
def test_the_head_of_one_kind_on_the_body_of_another_is_refused(kind: str) -> None:
    other = COMPRESS["xz" if kind == "gzip" else "gzip"](CONTENTS)

    with pytest.raises(InvalidArchive):
        read(COMPRESS[kind](CONTENTS)[:10] + other)


@kinds
def test_a_bomb_is_given_out_in_pieces(kind: str) -> None:
    """24 MiB of zeros become a few kilobytes; reading 4 KiB of them takes few more."""
    import tracemalloc

    raw = COMPRESS[kind](bytes(24 << 20))
    tracemalloc.start()
    try:
        assert decompressed(io.BytesIO(raw)).read(4096) == bytes(4096)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 12 << 20


class _Trickle:
    """Gives one byte at a time and has only ``read``, like a slow socket."""

    def __init__(self, raw: bytes) -> None:
        self._raw = io.BytesIO(raw)

    def read(self, size: int = -1) -> bytes:
        return self._raw.read(min(size, 1))


@pytest.mark.parametrize("kind", [*COMPRESS, "plain"])
def test_a_stream_may_come_byte_by_byte(kind: str) -> None:
    contents = CONTENTS[:2000]
    raw = COMPRESS[kind](contents) if kind != "plain" else contents

    stream = decompressed(_Trickle(raw))  # type: ignore[arg-type]  # as BinaryIO

    assert b"".join(iter(lambda: stream.read(512), b"")) == contents
