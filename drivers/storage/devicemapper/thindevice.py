"""Reading and writing a thin device."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from stowage import NoSpace, StowageError

from .geometry import Mode
from .media import Medium
from .poolstate import PoolState
from .status import device_status
from .transaction import Device, Transaction

_PIECE_BYTES = 1 << 20  # larger blocks are copied in pieces
_UNMAPPED_AT_ONCE = 1024  # between two looks at the space that is left


class ThinDevice:
    """An active device: *size_bytes* that read as zeros where nothing was written.

    Offsets and lengths are in bytes and need no alignment; what lies past the end is not read
    and cannot be written to. All methods raise OSError: EIO where the pool's mode or damaged
    metadata forbid it, ENOSPC when no block can be had. Thread-safe.
    """

    def __init__(
        self,
        state: PoolState,
        device_id: int,
        size_bytes: int,
        origin: Medium | None,
        on_close: Callable[[], None],
    ) -> None:
        self.id = device_id
        self.size_bytes = size_bytes
        self._state = state
        self._origin = origin
        self._on_close = on_close
        self._suspended = False

    def read(self, offset: int, length: int) -> bytes:
        """Return what is there; less than *length* at the device's end."""
        with self._io(write=False) as meta:
            root = self._device(meta).root
            parts = []
            for block, start, count in self._parts(offset, length):
                mapping = meta.mappings.get(root, block)
                if mapping is None:
                    parts.append(self._unmapped(block, start, count))
                else:
                    at = self._place(mapping[0] >> 32) + start
                    parts.append(self._state.data.read(at, count))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write(self, offset: int, contents: bytes) -> int:
        """Write *contents*; durable once ``flush`` has returned. Return how much was written:
        all of it, or less at the device's end."""
        with self._io() as meta:
            done = 0
            for block, start, count in self._parts(offset, len(contents)):
                whole = count == len(contents)
                part = contents if whole else contents[done : done + count]
                self._write_block(meta, block, start, part)
                done += count
        return done

    def discard(self, offset: int, length: int) -> None:
        """Unmap the blocks that lie wholly within the range; they read as zeros from then on."""
        with self._io(write=False) as meta:
            if self._state.mode > Mode.OUT_OF_DATA_SPACE or not self._state.features.discard:
                return
            first = -(-offset // self._state.block_bytes)
            end = min(offset + length, self.size_bytes)
            # the last block ends with the device
            stop = (
                -(-end // self._state.block_bytes)
                if end == self.size_bytes
                else (end // self._state.block_bytes)
            )
            while self._unmap_some(meta, first, stop):
                pass

    def flush(self) -> None:
        """Make durable what was written, and what has changed in the whole pool."""
        self._state.data.sync()  # most of it while others can go on
        with self._io(write=False):
            if self._state.mode <= Mode.OUT_OF_DATA_SPACE:
                self._state.commit_locked()

    def suspend(self) -> None:
        """Finish and flush what is under way; what comes then waits for ``resume``."""
        with self._state.lock:
            self.flush()
            self._suspended = True

    def resume(self, size_bytes: int | None = None) -> None:
        """Go on, with another size if one is given; what lies past it stays mapped."""
        with self._state.lock:
            self._suspended = False
            self.size_bytes = size_bytes if size_bytes is not None else self.size_bytes
            self._state.set_suspended(self._state.suspended)

    def status(self) -> str:
        """Return the line that dm-thin prints, see :mod:`.status`."""
        with self._state.guarded() as meta:
            if self._state.mode is Mode.FAIL:
                return device_status(self._state, 0, None)
            device = self._device(meta)
            return device_status(self._state, device.mapped, meta.mappings.last(device.root))

    def close(self) -> None:
        """Commit and deactivate it. Idempotent."""
        try:
            self.flush()
        finally:
            self._on_close()

    # --- pieces ----------------------------------------------------------------------------------

    @contextmanager
    def _io(self, *, write: bool = True) -> Iterator[Transaction]:
        """One request: wait while suspended, and answer in errno."""
        with self._state.lock:
            self._state.wait_resumed(lambda: self._suspended)
            self._state.require_io(write=write)
            try:
                with self._state.guarded() as meta:
                    yield meta
            except StowageError as error:
                number = errno.ENOSPC if isinstance(error, NoSpace) else errno.EIO
                raise OSError(number, str(error)) from error

    def _device(self, meta: Transaction) -> Device:
        device = meta.device(self.id)
        if device is None:  # it was made in a transaction that was aborted
            raise OSError(errno.EIO, f"thin device {self.id} is gone")
        return device

    def _parts(self, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
        """Cut a range, as far as the device goes, into blocks: number, start within it, count."""
        end = min(offset + length, self.size_bytes)
        while offset < end:
            block, start = divmod(offset, self._state.block_bytes)
            count = min(self._state.block_bytes - start, end - offset)
            yield block, start, count
            offset += count

    def _place(self, data_block: int) -> int:
        return data_block * self._state.block_bytes

    def _unmapped(self, block: int, start: int, count: int) -> bytes:
        if self._origin is None:
            return bytes(count)
        at = block * self._state.block_bytes + start
        inside = max(0, min(count, self._origin.size_bytes - at))
        return (self._origin.read(at, inside) if inside else b"").ljust(count, b"\0")

    # --- writing ---------------------------------------------------------------------------------

    def _write_block(self, meta: Transaction, block: int, start: int, contents: bytes) -> None:
        while True:
            device = self._device(meta)
            mapping = meta.mappings.get(device.root, block)
            # Whoever was made by a snapshot since shares the block, or did until it was deleted.
            if mapping is not None and mapping[0] & _TIME >= device.snapshotted:
                self._state.data.write(self._place(mapping[0] >> 32) + start, contents)
                return
            self._state.require_metadata()
            new = self._state.allocate_data()
            if new is not None:
                break
            self._state.wait_for_data()  # all may have changed meanwhile
        old = None if mapping is None else mapping[0] >> 32
        try:
            self._fill(new, old, block, start, contents)
        except OSError:
            meta.data.release(new)
            raise
        device = meta.edit(self.id)
        device.root = meta.mappings.set(device.root, block, (new << 32 | meta.time,))
        if old is None:
            device.mapped += 1
        else:
            meta.data.release(old)

    def _fill(self, new: int, old: int | None, block: int, start: int, contents: bytes) -> None:
        """Write a new block: *contents*, and around them what was there before."""
        data, size = self._state.data, self._state.block_bytes
        at = self._place(new)
        if len(contents) == size or (
            old is None and self._origin is None and not self._state.features.zero_blocks
        ):
            data.write(at + start, contents)
            return
        if old is None and self._origin is None and size > _PIECE_BYTES:
            data.discard(at, size)
            data.write(at + start, contents)
            return
        for begin in range(0, size, _PIECE_BYTES):
            count = min(_PIECE_BYTES, size - begin)
            if old is None:
                piece = self._unmapped(block, begin, count)
            else:
                piece = data.read(self._place(old) + begin, count)
            data.write(at + begin, _overlaid(piece, start - begin, contents))

    # --- discarding ------------------------------------------------------------------------------

    def _unmap_some(self, meta: Transaction, first: int, stop: int) -> bool:
        """Unmap a number of blocks; return whether there may be more."""
        self._state.require_metadata()
        mapped = []
        for entry in meta.mappings.items(self._device(meta).root, first, stop):
            mapped.append(entry)
            if len(mapped) == _UNMAPPED_AT_ONCE:
                break
        if mapped:
            device = meta.edit(self.id)
            for block, (packed,) in mapped:
                device.root = meta.mappings.remove(device.root, block)
                device.mapped -= 1
                meta.data.release(packed >> 32)
        return len(mapped) == _UNMAPPED_AT_ONCE


_TIME = (1 << 32) - 1


def _overlaid(piece: bytes, start: int, contents: bytes) -> bytes:
    """Return *piece* with *contents* put at *start*, which may lie partly or wholly outside."""
    begin, end = max(start, 0), min(start + len(contents), len(piece))
    if begin >= end:
        return piece
    return piece[:begin] + contents[begin - start : end - start] + piece[end:]
