"""Decompression told by content: gzip, zstd, xz, bzip2 or plain, never by a name.

All of a stream counts: several members (gzip), frames (zstd, skippable ones too) or streams (xz,
bzip2) one after the other give the joined contents. A stream that ends early, fails its checksum
or goes on with something else is an :class:`~stowage.errors.InvalidArchive`; only zeros after the
last gzip member are padding (gzip(1)). What one read can make the decompressor expand to is
bounded, so a bomb costs time and not memory.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import BinaryIO, Protocol, cast

from ..errors import InvalidArchive

_CHUNK = 1 << 16
_XZ_MEMORY_LIMIT = 512 << 20
"""Most memory an xz stream may ask for (``xz -9`` needs 65 MiB)."""


class Source:
    """The compressed bytes, with a look ahead."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._chunk = b""
        self._at = 0

    def peek(self, size: int) -> bytes:
        """Return the next *size* bytes without taking them; fewer only at the end."""
        while len(self._chunk) - self._at < size:
            more = self._stream.read(_CHUNK)
            if not more:
                break
            self._chunk = self._chunk[self._at :] + more
            self._at = 0
        return self._chunk[self._at : self._at + size]

    def take(self, size: int) -> bytes:
        """Return the next *size* bytes.

        Raises:
            EOFError: if there are fewer.
        """
        taken = self.peek(size)
        if len(taken) < size:
            raise EOFError
        self._at += size
        return taken

    def skip(self, size: int) -> None:
        """Pass over *size* bytes; EOFError if there are fewer."""
        while size:
            here = self.read()
            if not here:
                raise EOFError
            self.push_back(here[size:])
            size -= min(size, len(here))

    def push_back(self, unused: bytes) -> None:
        """Give back the end of what the last read returned."""
        if unused:
            self._chunk = unused + self._chunk[self._at :]
            self._at = 0

    def read(self) -> bytes:
        """Return some bytes; none at the end."""
        if self._at < len(self._chunk):
            taken = self._chunk[self._at :]
            self._chunk, self._at = b"", 0
            return taken
        return self._stream.read(_CHUNK)

    def readinto(self, buffer: memoryview) -> int:
        """Read straight into *buffer*; 0 at the end."""
        if self._at < len(self._chunk):
            ready = self._chunk[self._at : self._at + len(buffer)]
            self._at += len(ready)
        elif readinto := getattr(self._stream, "readinto", None):
            return cast(int, readinto(buffer)) or 0
        else:
            ready = self._stream.read(len(buffer))
        buffer[: len(ready)] = ready
        return len(ready)


class Part(Protocol):
    """One member, frame or stream on its way (the standard library's decompressor objects)."""

    def feed(self, source: Source, size: int) -> bytes | None:
        """Return at most about *size* more bytes (perhaps none yet), or None once it is whole."""


class _Plain(io.RawIOBase):
    def __init__(self, source: Source) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # any buffer
        return self._source.readinto(memoryview(buffer).cast("B"))


class _Decompressed(io.RawIOBase):
    """The contents of part after part until the source ends."""

    def __init__(
        self, source: Source, kind: str, magic: tuple[bytes, ...], begin: Callable[[], Part]
    ) -> None:
        self._source = source
        self._kind = kind
        self._magic = magic
        self._begin = begin
        self._part: Part | None = begin()
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # any buffer
        target = memoryview(buffer).cast("B")
        while not self._left:
            if self._part is None:
                return 0
            more = self._advance(len(target))
            if more is not None:
                self._left = memoryview(more)
        size = min(len(target), len(self._left))
        target[:size] = self._left[:size]
        self._left = self._left[size:]
        return size

    def _advance(self, size: int) -> bytes | None:
        assert self._part is not None
        try:
            more = self._part.feed(self._source, max(size, _CHUNK))
        except EOFError:
            raise InvalidArchive(
                f"The {self._kind} stream ends too early",
                details="it was cut off on the way",
            ) from None
        if more is None:
            self._part = self._next_part()
        return more

    def _next_part(self) -> Part | None:
        if self._kind == "xz":
            self._skip_stream_padding()
        start = self._source.peek(max(map(len, self._magic)))
        if not start:
            return None
        if is_magic(start, self._magic):
            return self._begin()
        if self._kind == "gzip" and not start.strip(b"\0"):
            self._only_zeros_follow()
            return None
        raise InvalidArchive(f"Something else follows the {self._kind} stream")

    def _skip_stream_padding(self) -> None:
        """xz-file-format, 2.2: zeros, a multiple of four."""
        while self._source.peek(4) == b"\0\0\0\0":
            self._source.take(4)

    def _only_zeros_follow(self) -> None:
        while chunk := self._source.read():
            if chunk.strip(b"\0"):
                raise InvalidArchive("Something else follows the gzip stream")


class _Limited:
    """A decompressor of the standard library with ``max_length`` (lzma, bz2)."""

    def __init__(self, decompressor: _HasMaxLength, failures: tuple[type[Exception], ...]) -> None:
        self._decompressor = decompressor
        self._failures = failures

    def feed(self, source: Source, size: int) -> bytes | None:
        engine = self._decompressor
        if engine.eof:
            source.push_back(engine.unused_data)
            return None
        chunk = b""
        if engine.needs_input:
            chunk = source.read()
            if not chunk:
                raise EOFError
        try:
            return engine.decompress(chunk, size)
        except self._failures as error:
            raise InvalidArchive("The compressed stream is damaged", details=str(error)) from error


class _HasMaxLength(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = ...) -> bytes: ...


class _Gzip:
    """One member, its CRC and length checked by zlib."""

    def __init__(self) -> None:
        import zlib

        self._engine = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        self._error = zlib.error

    def feed(self, source: Source, size: int) -> bytes | None:
        engine = self._engine
        if engine.eof:
            source.push_back(engine.unused_data)
            return None
        chunk = engine.unconsumed_tail or source.read()
        try:
            if chunk:
                return engine.decompress(chunk, size)
        except self._error as error:
            raise InvalidArchive("The gzip stream is damaged", details=str(error)) from error
        raise EOFError


def _xz() -> Part:
    import lzma

    engine = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_LIMIT)
    return _Limited(engine, (lzma.LZMAError, MemoryError))


def _bzip2() -> Part:
    import bz2

    return _Limited(bz2.BZ2Decompressor(), (OSError, ValueError))


def _zstd() -> Part:
    from .zstdframes import ZstdFrame

    return ZstdFrame()


_SKIPPABLE = tuple(bytes([0x50 + low]) + b"\x2a\x4d\x18" for low in range(16))
_KINDS: tuple[tuple[str, tuple[bytes, ...], Callable[[], Part]], ...] = (
    ("gzip", (b"\x1f\x8b\x08",), _Gzip),
    ("zstd", (b"\x28\xb5\x2f\xfd", *_SKIPPABLE), _zstd),
    ("xz", (b"\xfd7zXZ\0",), _xz),
    ("bzip2", (b"BZh",), _bzip2),
)


def is_magic(start: bytes, magic: tuple[bytes, ...]) -> bool:
    return start.startswith(magic)


def is_compressed(start: bytes) -> bool:
    """Tell whether a stream that begins with these (six or more) bytes is compressed."""
    return any(is_magic(start, magic) for _, magic, _ in _KINDS)


def decompressed(stream: BinaryIO) -> BinaryIO:
    """Return a stream of what *stream* holds, decompressed if it is compressed.

    *stream* is read from where it stands to its end and stays the caller's to close.

    Raises:
        InvalidArchive: at once or while reading, for a compressed stream that is cut off,
            damaged, or followed by something else.
    """
    source = Source(stream)
    start = source.peek(6)
    for kind, magic, begin in _KINDS:
        if is_magic(start, magic):
            return cast(BinaryIO, _Decompressed(source, kind, magic, begin))
    return cast(BinaryIO, _Plain(source))


def peeked(stream: BinaryIO, size: int) -> tuple[bytes, BinaryIO]:
    """Return the first *size* bytes of a stream (fewer if it is shorter), and all of it anew."""
    source = Source(stream)
    return source.peek(size), cast(BinaryIO, _Plain(source))
