"""The process that reads an archive for :mod:`~.apart`; it ends when its pipes do.

It is given the descriptors of the shared buffers and of the pipe on which they are given back,
whether a recipe is wanted, and how many bytes may follow the archive (-1: any). The archive is in
the descriptor *file* from an offset on, or comes by standard input; messages go to standard
output, each a length and a tuple by :mod:`marshal`.
"""

from __future__ import annotations

import gc
import io
import marshal
import mmap
import os
import sys
from struct import Struct
from typing import Any, BinaryIO, cast

from ..errors import StowageError
from .compression import decompressed
from .reading import members_of
from .recipe_format import RecipeWriter
from .tape import BUFFER_BYTES, Tape
from .tarreader import Member

BUFFERS = 48
RING_BYTES = BUFFERS * BUFFER_BYTES
HEADER = Struct("<I")


class PartOfFile(io.RawIOBase):
    """A regular file from an offset on, whatever the position of the descriptor."""

    def __init__(self, descriptor: int, offset: int) -> None:
        self._descriptor = descriptor
        self._offset = offset

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # any buffer; its type has a name only from 3.12 on
        size = os.preadv(self._descriptor, [buffer], self._offset)
        self._offset += size
        return size


class _Messages:
    """The pipe to who unpacks."""

    def __init__(self, descriptor: int) -> None:
        self._pipe = os.fdopen(descriptor, "wb", buffering=0)

    def send(self, *message: Any) -> None:
        body = marshal.dumps(message)
        left = memoryview(HEADER.pack(len(body)) + body)
        while left:
            left = left[self._pipe.write(left) :]

    def write(self, data: bytes) -> int:
        """Send a piece of the recipe."""
        self.send("recipe", data)
        return len(data)


class _SharedTape(Tape):
    """A tape whose buffers are handed over before they are digested."""

    def __init__(
        self,
        stream: BinaryIO,
        recipe: RecipeWriter | None,
        ring: mmap.mmap,
        credits: int,
        messages: _Messages,
    ) -> None:
        super().__init__(decompressed(stream), recipe)
        whole = memoryview(ring)
        self._views = [whole[at : at + BUFFER_BYTES] for at in range(0, RING_BYTES, BUFFER_BYTES)]
        self._free = list(range(BUFFERS - 1, -1, -1))
        self._credits = credits
        self._messages = messages
        self._number = 0
        self.members: list[tuple[Any, ...]] = []

    def hand_over(self) -> None:
        """Send the current buffer and the members that were found in it."""
        self._messages.send("buffer", self._number, self.end, self.members)
        self.members = []

    def _buffer(self) -> memoryview:
        if not self._free:
            given_back = os.read(self._credits, BUFFERS)
            if not given_back:
                raise SystemExit(0)  # nobody wants the rest
            self._free.extend(given_back)
        self._number = self._free.pop()
        return self._views[self._number]

    def _leave(self, used: memoryview) -> None:
        self.hand_over()
        super()._leave(used)


def _fields(member: Member, position: int) -> tuple[Any, ...]:
    return (
        member.name, member.type, member.mode, member.uid, member.gid, member.mtime_ns,
        member.size, member.link, member.device, member.xattrs, member.file_size, member.extents,
        member.extension_bytes, member.payload, position,
    )  # fmt: skip


def _read(tape: _SharedTape, limit: int | None) -> tuple[bytes, int]:
    try:
        for member in members_of(tape):
            tape.members.append(_fields(member, tape.position))
            tape.skip(member.size + -member.size % 512)
        tape.drain(limit)
    except Exception:
        if tape.end:
            tape.hand_over()
        raise
    return tape.digest()


def main(ring: int, credits: int, recipe: int, limit: int, *file: int) -> None:
    """Read the archive and tell of it."""
    gc.disable()  # it lives briefly and makes no cycles
    messages = _Messages(sys.stdout.fileno())
    writer = RecipeWriter(cast(BinaryIO, messages)) if recipe else None
    shared = mmap.mmap(ring, RING_BYTES)
    stream = PartOfFile(*file) if file else io.FileIO(sys.stdin.fileno(), closefd=False)
    try:
        tape = _SharedTape(cast(BinaryIO, stream), writer, shared, credits, messages)
        messages.send("end", *_read(tape, None if limit < 0 else limit))
    except BrokenPipeError:
        pass
    except StowageError as error:
        name = type(error).__name__
        messages.send("ours", name, error.brief, error.details, error.resolution)
    except OSError as error:
        messages.send("os", error.errno, error.strerror)
    except (OverflowError, ValueError) as error:
        messages.send("value", str(error))
