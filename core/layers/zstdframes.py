"""Zstandard frames, fed block by block (RFC 8878, section 3.1).

The library's own stream reader takes the end of the input in the middle of a frame for the end of
the contents, and its one-shot object may expand 64 KiB of input to gigabytes. Walking the block
headers bounds each step to one block (128 KiB) and knows when a frame is whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InvalidArchive

if TYPE_CHECKING:
    from .compression import Source

_MAGIC = b"\x28\xb5\x2f\xfd"
_WINDOW_LIMIT = 128 << 20
_RAW, _RLE, _COMPRESSED, _RESERVED = range(4)


class ZstdFrame:
    """One frame; a skippable one gives nothing."""

    def __init__(self) -> None:
        self._engine: _Engine | None = None
        self._checksum = False

    def feed(self, source: Source, size: int) -> bytes | None:
        """Return what the next block holds; None once the frame is whole."""
        if self._engine is None:
            magic = source.take(4)
            if magic != _MAGIC:
                source.skip(int.from_bytes(source.take(4), "little"))
                return None
            return self._begin(source, magic)
        if self._engine.eof:
            return None
        return self._block(source)

    def _begin(self, source: Source, magic: bytes) -> bytes:
        import zstandard

        self._engine = zstandard.ZstdDecompressor(max_window_size=_WINDOW_LIMIT).decompressobj()
        descriptor = source.take(1)
        flags = descriptor[0]
        self._checksum = bool(flags & 0x04)
        single_segment = flags >> 5 & 1
        size_field = (single_segment, 2, 4, 8)[flags >> 6]
        rest = (1 - single_segment) + (0, 1, 2, 4)[flags & 3] + size_field
        return self._decompress(magic + descriptor + source.take(rest))

    def _block(self, source: Source) -> bytes:
        header = source.take(3)
        number = int.from_bytes(header, "little")
        last, kind, size = number & 1, number >> 1 & 3, number >> 3
        if kind == _RESERVED:
            raise InvalidArchive("The zstd stream is damaged", details="reserved block type")
        body = source.take(1 if kind == _RLE else size)
        if last and self._checksum:
            body += source.take(4)
        contents = self._decompress(header + body)
        if last:
            assert self._engine is not None
            if not self._engine.eof:
                raise InvalidArchive("The zstd stream is damaged", details="unfinished frame")
        return contents

    def _decompress(self, raw: bytes) -> bytes:
        import zstandard

        assert self._engine is not None
        try:
            return self._engine.decompress(raw)
        except zstandard.ZstdError as error:
            raise InvalidArchive("The zstd stream is damaged", details=str(error)) from error


if TYPE_CHECKING:
    import zstandard

    _Engine = zstandard.ZstdDecompressionObj
