"""The state of an open pool: its mode, its commits, and the space that is left.

Everything that touches the metadata runs within :meth:`PoolState.guarded`, where what goes wrong
has its consequence: the transaction is aborted and the pool falls to a lower mode.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Condition, RLock

from stowage import FailedPrecondition, InvalidArgument, NoSpace

from .blocks import BLOCK_BYTES, Damaged
from .geometry import (
    MAX_METADATA_BYTES,
    Features,
    Mode,
    check_sizes,
    metadata_low_water,
    metadata_reserve,
)
from .media import Medium
from .refusals import damaged, not_writable, refusal
from .spacemap import Full
from .superblock import Superblock, is_blank, read_superblock
from .transaction import Transaction

#: Is told what happens; see :class:`~.thinpool.ThinPool`.
Notify = Callable[[str], None]

# What one operation may take, with the splits of all its trees' nodes.
_OPERATION_BLOCKS = 16


def _quiet(event: str) -> None:
    """Nobody wants to know."""


class PoolState:
    """What commands and devices share; *lock* is held for each step of theirs."""

    def __init__(
        self,
        metadata: Medium,
        data: Medium,
        block_bytes: int,
        features: Features | None = None,
        notify: Notify | None = None,
    ) -> None:
        """Open the pool, or make one where *metadata* is blank."""
        check_sizes(block_bytes, metadata.size_bytes, data.size_bytes)
        self.block_bytes = block_bytes
        self.features = features or Features()
        self.data = data
        self.metadata = metadata
        self.lock = RLock()
        self._changed = Condition(self.lock)
        self._suspended = False
        self._notify = notify or _quiet
        self._told: set[str] = set()
        try:
            self.meta = self._load()
        except Damaged as error:
            raise damaged(error) from error
        read_only = self.meta.committed.needs_check or self.features.read_only
        self._mode = Mode.READ_ONLY if read_only else Mode.WRITE
        self._tell_low_water()

    def _load(self) -> Transaction:
        metadata_blocks = min(self.metadata.size_bytes, MAX_METADATA_BYTES) // BLOCK_BYTES
        data_blocks = self.data.size_bytes // self.block_bytes
        if is_blank(self.metadata):
            superblock = Superblock(self.block_bytes, data_blocks, metadata_blocks)
            transaction = Transaction.format(self.metadata, superblock)
            transaction.commit()
            self.metadata.sync()
            return transaction
        superblock = read_superblock(self.metadata)
        if superblock.block_bytes != self.block_bytes:
            raise refusal(
                InvalidArgument,
                errno.EINVAL,
                f"The pool's blocks have {superblock.block_bytes} bytes, not {self.block_bytes}",
                "the size of blocks is fixed for a pool's life: leave it as it is",
            )
        if data_blocks < superblock.data_blocks or metadata_blocks < superblock.metadata_blocks:
            raise refusal(
                FailedPrecondition,
                errno.EINVAL,
                "The files of the pool have become smaller than the pool",
                "restore them whole: a pool can only grow",
            )
        return Transaction(self.metadata, superblock)

    # --- mode ------------------------------------------------------------------------------------

    @property
    def mode(self) -> Mode:
        return self._mode

    @property
    def needs_check(self) -> bool:
        """Whether the metadata must be checked, by other means, before anything is changed."""
        return self.meta.committed.needs_check

    def _enter(self, mode: Mode) -> None:
        if mode is not self._mode:
            self._mode = mode
            self._changed.notify_all()
            self._notify(mode.name.lower())

    def require_writable(self) -> None:
        """Refuse a command that the mode does not allow.

        Raises:
            FailedPrecondition: EOPNOTSUPP.
        """
        if self._mode > Mode.OUT_OF_DATA_SPACE:
            raise not_writable(self._mode.word, self.needs_check)

    @contextmanager
    def guarded(self) -> Iterator[Transaction]:
        """Hold the lock and lend the transaction; what fails within it aborts it.

        Raises:
            DataLoss: if the metadata turn out to be damaged; the pool is read-only from then on
                and needs a check.
            NoSpace: if they are used up; likewise.
        """
        with self.lock:
            try:
                yield self.meta
            except Damaged as error:
                self._abort()
                raise damaged(error) from error
            except Full as error:
                self._abort()
                raise self._no_metadata() from error

    def _abort(self) -> None:
        """Return to the last commit, and remember on the medium that something is wrong."""
        if self._mode >= Mode.READ_ONLY:
            return
        try:
            self.meta.abort()
            self.meta.mark(needs_check=True)
        except (OSError, Damaged):
            self._enter(Mode.FAIL)
        else:
            self._enter(Mode.READ_ONLY)

    # --- commit ----------------------------------------------------------------------------------

    def commit_locked(self) -> None:
        """Commit what has changed, within ``guarded``. Nothing to do is no commit.

        Raises:
            OSError: if it fails; the pool then is what it was at the last commit, and read-only.
        """
        if self._mode >= Mode.READ_ONLY or not self.meta.changed:
            return
        freed = self.meta.data.freed
        try:
            self.data.sync()
            self.meta.commit()
        except OSError:
            self._abort()
            raise
        if self.features.discard_passdown:
            self._pass_down(freed)
        if self._mode is Mode.OUT_OF_DATA_SPACE and self.meta.data.free:
            self._enter(Mode.WRITE)

    def _pass_down(self, freed: Sequence[int]) -> None:
        """Give blocks back that no committed state refers to, and nothing has taken yet."""
        for first, count in runs(freed):
            try:
                self.data.discard(first * self.block_bytes, count * self.block_bytes)
            except OSError:  # they are free all the same
                return

    # --- space -----------------------------------------------------------------------------------

    @property
    def free_metadata_blocks(self) -> int:
        """What can be used, without the reserve."""
        metadata = self.meta.metadata
        return max(0, metadata.free - metadata_reserve(metadata.size))

    def require_metadata(self) -> None:
        """Within ``guarded``: see that the next operation and its commit find room.

        Raises:
            NoSpace: if they do not; the metadata must grow.
        """
        if not self._metadata_room():
            self.commit_locked()
            if not self._metadata_room():
                self._enter(Mode.OUT_OF_METADATA_SPACE)
                raise self._no_metadata()

    def _metadata_room(self) -> bool:
        metadata, data = self.meta.metadata, self.meta.data
        pending = 2 * (metadata.changed_chunks + data.changed_chunks) + _OPERATION_BLOCKS
        self._tell_low_water()
        return metadata.takeable - pending > metadata_reserve(metadata.size)

    def _no_metadata(self) -> NoSpace:
        return refusal(
            NoSpace, errno.ENOSPC, "The pool's metadata is used up", "make the metadata larger"
        )

    def allocate_data(self) -> int | None:
        """Within ``guarded``: take a block of data; None if there is none, see
        ``wait_for_data``."""
        data = self.meta.data
        if self._mode is not Mode.WRITE or not data.takeable:
            self.commit_locked()  # what was freed can be taken after it
        if self._mode is not Mode.WRITE or not data.takeable:
            self._enter(max(self._mode, Mode.OUT_OF_DATA_SPACE))
            return None
        number = data.allocate()
        self._tell_low_water()
        return number

    def wait_for_data(self) -> None:
        """Wait until blocks can be had, as long as the features say.

        Raises:
            OSError: ENOSPC when the time is up; EIO if the pool became read-only.
        """
        features = self.features
        timeout = features.no_space_timeout_seconds or None
        if not features.error_if_no_space:
            self._changed.wait_for(lambda: self._mode is not Mode.OUT_OF_DATA_SPACE, timeout)
        if self._mode is Mode.OUT_OF_DATA_SPACE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.require_io()

    def _tell_low_water(self) -> None:
        metadata = self.meta.metadata
        low = {
            "low_water": self.meta.data.free < self.features.low_water_blocks,
            "metadata_low_water": metadata.free < metadata_low_water(metadata.size),
        }
        for event, is_low in low.items():
            if is_low and event not in self._told:
                self._told.add(event)
                self._notify(event)

    # --- suspended -------------------------------------------------------------------------------

    @property
    def suspended(self) -> bool:
        return self._suspended

    def set_suspended(self, suspended: bool) -> None:
        """Hold reads and writes, or let them go on; low water is told anew then."""
        with self.lock:
            self._suspended = suspended
            if not suspended:
                self._told.clear()
                self._tell_low_water()
            self._changed.notify_all()

    def wait_resumed(self, held: Callable[[], bool]) -> None:
        """With the lock held: wait while the pool is suspended or *held* says so."""
        self._changed.wait_for(lambda: not (self._suspended or held()))

    def grown(self) -> None:
        """Leave the modes that say that space has run out."""
        recovers = {
            Mode.OUT_OF_DATA_SPACE: self.meta.data.free > 0,
            Mode.OUT_OF_METADATA_SPACE: self.free_metadata_blocks > 0,
        }
        if recovers.get(self._mode):
            self._enter(Mode.WRITE)

    def require_io(self, *, write: bool = True) -> None:
        """Refuse to read or write where the mode does not allow it.

        Raises:
            OSError: EIO.
        """
        if self._mode is Mode.FAIL or (write and self._mode > Mode.OUT_OF_DATA_SPACE):
            raise OSError(errno.EIO, f"the pool is {self._mode.word}")


def runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Return ascending *numbers* as runs: the first number and how many follow each other."""
    first = count = 0
    for number in numbers:
        if count and number == first + count:
            count += 1
            continue
        if count:
            yield first, count
        first, count = number, 1
    if count:
        yield first, count
