"""What a pool is stored on: two files, one for data and one for metadata."""

from __future__ import annotations

import os
from typing import Protocol

from stowage import effect
from stowage.linux.files import punch_hole


class Medium(Protocol):
    """A flat array of bytes that outlives us, as a disk does.

    What was written is certain to be there after a power cut only once ``sync`` has returned;
    until then any part of it may be, in any order. Every method raises OSError.
    """

    @property
    def size_bytes(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes:
        """Return *length* bytes; zeros where nothing was ever written."""
        ...

    def write(self, offset: int, contents: bytes) -> None: ...

    def discard(self, offset: int, length: int) -> None:
        """Make that range read as zeros, and give its space back where that can be done."""
        ...

    def sync(self) -> None: ...

    def grow(self, size_bytes: int) -> None:
        """Make it *size_bytes* large, which is not less than it is."""
        ...

    def close(self) -> None: ...


class FileMedium:
    """A sparse file, as Docker's loopback files were."""

    def __init__(self, path: str | os.PathLike[str], *, read_only: bool = False) -> None:
        self._descriptor = os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)

    @property
    def size_bytes(self) -> int:
        return os.fstat(self._descriptor).st_size

    @property
    def allocated_bytes(self) -> int:
        """What the file occupies on its own file system."""
        return os.fstat(self._descriptor).st_blocks * 512

    def read(self, offset: int, length: int) -> bytes:
        contents = os.pread(self._descriptor, length, offset)
        while len(contents) < length:
            more = os.pread(self._descriptor, length - len(contents), offset + len(contents))
            if not more:  # past the end
                return contents.ljust(length, b"\0")
            contents += more
        return contents

    def write(self, offset: int, contents: bytes) -> None:
        with effect("pool.write", offset=offset, length=len(contents)):
            written = os.pwrite(self._descriptor, contents, offset)
            while written < len(contents):
                rest = memoryview(contents)[written:]
                written += os.pwrite(self._descriptor, rest, offset + written)

    def discard(self, offset: int, length: int) -> None:
        if not punch_hole(self._descriptor, offset, length):
            for start in range(offset, offset + length, _PIECE):
                self.write(start, bytes(min(_PIECE, offset + length - start)))

    def sync(self) -> None:
        with effect("pool.sync", descriptor=self._descriptor):
            os.fdatasync(self._descriptor)

    def grow(self, size_bytes: int) -> None:
        with effect("pool.grow", size_bytes=size_bytes):
            os.ftruncate(self._descriptor, size_bytes)
            os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


_PIECE = 1 << 20
