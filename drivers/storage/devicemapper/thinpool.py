"""A thin pool in user space: many sparse devices on one file of blocks, with O(1) snapshots.

It keeps the rules of the kernel's dm-thin target: a block is allocated when it is first written
and copied when it is written while shared; what was not written reads as zeros; a crash at any
instant leaves exactly the last commit.

::

    metadata   two superblocks, then checksummed blocks of 4 KiB        (superblock, blocks)
                 devices: id -> root of its mappings, count, times      (transaction)
                 mappings: virtual block -> data block, time            (btree)
                 space maps of data and metadata: reference counts      (spacemap)
    data       blocks of 64 KiB to 1 GiB

A commit happens with every command, on every flush, and when the user's timer says so. Commands
raise :class:`~stowage.StowageError` with the ``errno`` that dm-thin answers; reads and writes
raise OSError, as those of a block device do.

Sources: Documentation/admin-guide/device-mapper/thin-provisioning.rst and drivers/md/dm-thin.c of
the kernel.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from stowage import Busy, FailedPrecondition, InvalidArgument

from .blocks import BLOCK_BYTES
from .geometry import MAX_DEVICE_ID, MAX_METADATA_BYTES, Features, Mode, check_sizes
from .media import Medium
from .poolstate import Notify, PoolState
from .refusals import no_device, not_writable, refusal, taken
from .status import pool_status
from .thindevice import ThinDevice
from .transaction import Device, Transaction

__all__ = ["Features", "Mode", "Notify", "ThinDevice", "ThinPool"]


class ThinPool:
    """An open pool, the only user of its two media until ``close``. Thread-safe.

    *notify* is told, once for each time that it becomes true: ``"low_water"``,
    ``"metadata_low_water"`` (and again after ``resume``), and the name of each mode that the pool
    enters. It is called with the pool locked and must return at once.

    Raises:
        InvalidArgument: if *block_bytes* or a size is out of range, or not the pool's.
        DataLoss: if *metadata* is neither blank nor that of a pool, or is damaged.
        FailedPrecondition: if a medium has become smaller than the pool.
    """

    def __init__(
        self,
        metadata: Medium,
        data: Medium,
        block_bytes: int,
        features: Features | None = None,
        notify: Notify | None = None,
    ) -> None:
        self._state = PoolState(metadata, data, block_bytes, features, notify)
        self._active: dict[int, ThinDevice] = {}

    # --- commands --------------------------------------------------------------------------------

    def create_thin(self, device_id: int) -> None:
        """Make an empty device.

        Raises:
            AlreadyExists: EEXIST.
            InvalidArgument: if *device_id* does not have 24 bits.
        """
        with self._command() as meta:
            _refuse_taken(meta, device_id)
            root = meta.mappings.create()
            made = Device(root, 0, meta.transaction_id, meta.time, meta.time)
            meta.add_device(device_id, made)

    def create_snap(self, device_id: int, origin: int) -> None:
        """Make a device that is what *origin* is now. Both can be written to from then on.

        Its cost does not depend on how much is mapped. An active origin should be suspended,
        else it depends on luck whether what is being written is in the snapshot.

        Raises:
            AlreadyExists: EEXIST.
            NotFound: ENODATA, if there is no *origin*.
        """
        with self._command() as meta:
            _refuse_taken(meta, device_id)
            _require(meta, origin)
            source = meta.edit(origin)
            meta.time += 1
            source.snapshotted = meta.time
            meta.retain(source.root)
            snapshot = Device(source.root, source.mapped, meta.transaction_id, meta.time, meta.time)
            meta.add_device(device_id, snapshot)

    def delete(self, device_id: int) -> None:
        """Delete a device and free what it alone had mapped.

        Raises:
            NotFound: ENODATA.
            Busy: EBUSY, while it is active.
        """
        with self._command() as meta:
            _require(meta, device_id)
            if device_id in self._active:
                raise _busy(f"Thin device {device_id} is active", "deactivate it first")
            meta.remove_device(device_id)

    def set_transaction_id(self, current: int, new: int) -> None:
        """Replace the user's number *current* by *new*: it marks how far the user's own records
        have followed the pool.

        Raises:
            InvalidArgument: EINVAL, if the number is not *current*; nothing changes.
        """
        with self._command() as meta:
            if meta.transaction_id != current:
                raise _invalid(
                    f"The pool's transaction id is {meta.transaction_id}, not {current}",
                    "a change was not finished, or somebody else uses the pool: recover it first",
                )
            if not 0 <= new < 1 << 64:
                raise _invalid(f"{new} is no transaction id", "give a number of 64 bits")
            meta.transaction_id = new

    def reserve_metadata_snap(self) -> None:
        """Hold the metadata as they are now; ``held_devices`` reads them.

        Raises:
            Busy: EBUSY, if some are held already.
        """
        with self._command() as meta:
            if meta.held_root:
                raise _busy("There is a metadata snapshot already", "release it first")
            self._state.commit_locked()
            meta.hold()

    def release_metadata_snap(self) -> None:
        """Let go what ``reserve_metadata_snap`` held.

        Raises:
            InvalidArgument: EINVAL, if nothing is held.
        """
        with self._command() as meta:
            _require_held(meta)
            meta.let_go()

    def grow(self, *, data_bytes: int | None = None, metadata_bytes: int | None = None) -> None:
        """Make the data, the metadata or both larger; writes that wait for space go on.

        Raises:
            InvalidArgument: EINVAL, if one would become smaller.
            FailedPrecondition: if the pool is read-only, has failed or needs a check.
        """
        state = self._state
        with state.guarded() as meta:
            if state.mode > Mode.OUT_OF_METADATA_SPACE:
                raise not_writable(state.mode.word, state.needs_check)
            check_sizes(state.block_bytes, metadata_bytes, data_bytes)
            for medium, size in ((state.data, data_bytes), (state.metadata, metadata_bytes)):
                if size is not None and size < medium.size_bytes:
                    raise _invalid(
                        f"A pool cannot shrink from {medium.size_bytes} to {size} bytes",
                        "give a larger size",
                    )
            if data_bytes is not None:
                state.data.grow(data_bytes)
                meta.data.grow(data_bytes // state.block_bytes)
            if metadata_bytes is not None:
                state.metadata.grow(metadata_bytes)
                meta.metadata.grow(min(metadata_bytes, MAX_METADATA_BYTES) // BLOCK_BYTES)
            state.commit_locked()
            state.grown()

    @contextmanager
    def _command(self) -> Iterator[Transaction]:
        """A command is refused by a pool that cannot be written to, and ends with a commit."""
        with self._state.guarded() as meta:
            self._state.require_writable()
            self._state.require_metadata()
            yield meta
            self._state.commit_locked()

    # --- devices ---------------------------------------------------------------------------------

    def activate(
        self, device_id: int, size_bytes: int, external_origin: Medium | None = None
    ) -> ThinDevice:
        """Open a device as *size_bytes* large; the pool does not remember any size.

        What it has not mapped reads as *external_origin*, which is never written to.

        Raises:
            NotFound: if there is no such device.
            Busy: if it is active already.
            FailedPrecondition: if the pool is suspended or has failed.
        """
        state = self._state
        with state.guarded() as meta:
            if state.mode is Mode.FAIL:
                raise not_writable(state.mode.word, state.needs_check)
            if state.suspended:
                raise refusal(
                    FailedPrecondition, errno.EINVAL, "The pool is suspended", "resume it first"
                )
            _require(meta, device_id)
            if device_id in self._active:
                raise _busy(f"Thin device {device_id} is active already", "deactivate it first")
            device = ThinDevice(
                state, device_id, size_bytes, external_origin, lambda: self._forget(device_id)
            )
            self._active[device_id] = device
            return device

    def _forget(self, device_id: int) -> None:
        with self._state.lock:
            self._active.pop(device_id, None)

    @property
    def active(self) -> Sequence[int]:
        """The ids of the devices that are open."""
        with self._state.lock:
            return sorted(self._active)

    def devices(self) -> Sequence[int]:
        """Return the ids of all devices, in order."""
        with self._state.guarded() as meta:
            return [device_id for device_id, _ in meta.all_devices()]

    def mapped_blocks(self, device_id: int) -> int:
        """Return how many blocks a device has mapped, shared ones included.

        Raises:
            NotFound: if there is no such device.
        """
        with self._state.guarded() as meta:
            return _require(meta, device_id).mapped

    def mappings(self, device_id: int) -> Sequence[tuple[int, int]]:
        """Return which block of a device is which block of data, in order.

        Raises:
            NotFound: if there is no such device.
        """
        with self._state.guarded() as meta:
            return _mappings(meta, _require(meta, device_id).root)

    def held_devices(self) -> Sequence[tuple[int, Sequence[tuple[int, int]]]]:
        """Return the devices and their mappings as the metadata snapshot holds them.

        Raises:
            InvalidArgument: if there is none.
        """
        with self._state.guarded() as meta:
            _require_held(meta)
            held = meta.devices.items(meta.held_devices())
            return [(device_id, _mappings(meta, root)) for device_id, (root, *_) in held]

    # --- life ------------------------------------------------------------------------------------

    @property
    def block_bytes(self) -> int:
        return self._state.block_bytes

    @property
    def mode(self) -> Mode:
        return self._state.mode

    @property
    def transaction_id(self) -> int:
        return self._state.meta.transaction_id

    def commit(self) -> None:
        """Make durable all that was written and changed.

        Raises:
            OSError: if that fails.
        """
        self._state.data.sync()  # most of it while others can go on
        with self._state.guarded():
            self._state.commit_locked()

    def suspend(self) -> None:
        """Commit, and let all reads and writes wait for ``resume``."""
        with self._state.lock:
            self.commit()
            self._state.set_suspended(True)

    def resume(self, features: Features | None = None) -> None:
        """Let reads and writes go on, with new *features* if any are given.

        Raises:
            InvalidArgument: if they change what is fixed at the first load: how discards behave.
        """
        state = self._state
        with state.lock:
            if features is not None:
                old = state.features
                if (old.discard, old.discard_passdown) != (
                    features.discard,
                    features.discard_passdown,
                ):
                    raise _invalid(
                        "Discards cannot be changed while the pool lives", "open it anew"
                    )
                state.features = features
            state.set_suspended(False)

    def status(self) -> str:
        """Return the line that dm-thin prints, see :mod:`.status`."""
        with self._state.lock:
            return pool_status(self._state)

    def close(self) -> None:
        """Commit and close both media.

        Raises:
            Busy: EBUSY, while devices are active.
        """
        with self._state.lock:
            if self._active:
                names = ", ".join(map(str, sorted(self._active)))
                raise _busy(f"The pool has active thin devices: {names}", "deactivate them first")
            try:
                self.commit()
            finally:
                self._state.metadata.close()
                self._state.data.close()


def _refuse_taken(meta: Transaction, device_id: int) -> None:
    if not 0 <= device_id <= MAX_DEVICE_ID:
        raise _invalid(f"{device_id} is no id of a device", f"give one of 0 to {MAX_DEVICE_ID}")
    if meta.device(device_id) is not None:
        raise taken(device_id)


def _require(meta: Transaction, device_id: int) -> Device:
    device = meta.device(device_id)
    if device is None:
        raise no_device(device_id)
    return device


def _require_held(meta: Transaction) -> None:
    if not meta.held_root:
        raise _invalid("There is no metadata snapshot", "reserve one first")


def _mappings(meta: Transaction, root: int) -> Sequence[tuple[int, int]]:
    return [(block, packed >> 32) for block, (packed,) in meta.mappings.items(root)]


def _busy(brief: str, resolution: str) -> Busy:
    return refusal(Busy, errno.EBUSY, brief, resolution)


def _invalid(brief: str, resolution: str) -> InvalidArgument:
    return refusal(InvalidArgument, errno.EINVAL, brief, resolution)
