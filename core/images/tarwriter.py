"""Writing a tar archive whose bytes depend on the names and contents alone."""

from __future__ import annotations

import tarfile
from typing import BinaryIO

_BLOCK = 512
_COPY_BYTES = 1 << 20


class TarWriter:
    """Writes plain files and directories to *out*, which need not be able to seek.

    Every entry is 0:0 and of 1970; names that are long and sizes from 8 GiB on use a PAX header.
    """

    def __init__(self, out: BinaryIO) -> None:
        self._out = out

    def directory(self, name: str, mode: int = 0o755) -> None:
        """Add a directory."""
        self._header(name, 0, tarfile.DIRTYPE, mode)

    def link(self, name: str, target: str) -> None:
        """Add a symbolic link."""
        self._header(name, 0, tarfile.SYMTYPE, 0o777, target)

    def file(self, name: str, contents: bytes, mode: int = 0o644) -> None:
        """Add a file with these contents."""
        self._header(name, len(contents), tarfile.REGTYPE, mode)
        self._out.write(contents)
        self._pad(len(contents))

    def stream(self, name: str, size_bytes: int, source: BinaryIO) -> None:
        """Add a file with the next *size_bytes* of *source*.

        Raises:
            EOFError: if there are fewer.
        """
        self._header(name, size_bytes, tarfile.REGTYPE, 0o644)
        left = size_bytes
        while left:
            block = source.read(min(left, _COPY_BYTES))
            if not block:
                raise EOFError(f"{name}: {left} bytes are missing")
            self._out.write(block)
            left -= len(block)
        self._pad(size_bytes)

    def close(self) -> None:
        """Write the end of the archive; *out* stays open."""
        self._out.write(bytes(2 * _BLOCK))

    def _header(self, name: str, size_bytes: int, kind: bytes, mode: int, target: str = "") -> None:
        member = tarfile.TarInfo(name)
        member.type, member.mode, member.size, member.linkname = kind, mode, size_bytes, target
        self._out.write(member.tobuf(tarfile.PAX_FORMAT))

    def _pad(self, size_bytes: int) -> None:
        self._out.write(bytes(-size_bytes % _BLOCK))
