"""The pool against the model, with a power cut after each of its writes (rules T1 to T46)."""

from __future__ import annotations

import errno
import os
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from stowage import AlreadyExists, Busy, InvalidArgument, NotFound
from stowage_drivers.storage.devicemapper.geometry import Features, Mode
from stowage_drivers.storage.devicemapper.thinpool import ThinDevice, ThinPool
from stowage_drivers.storage.devicemapper.verify import verify

from .cuts import SECTOR, Machine
from .model import State, Thin

BLOCK = 64 << 10
DEVICE_BYTES = 5 * BLOCK + 3 * SECTOR  # the last block is not whole
DATA_BLOCKS = 14
METADATA_BYTES = 2 << 20

ids = st.integers(0, 5)
seeds = st.integers(0, 1 << 32)
#: Where blocks begin and end, and odd places.
places = st.one_of(
    st.integers(0, 5).map(lambda block: block * BLOCK),
    st.builds(lambda block, at: block * BLOCK + at, st.integers(0, 4), st.sampled_from(
        (1, SECTOR, 40_000, BLOCK - 1)
    )),
)  # fmt: skip
lengths = st.sampled_from((1, SECTOR, 4096, BLOCK, BLOCK + 5000, 2 * BLOCK, 3 * BLOCK))


class PoolMachine(RuleBasedStateMachine):
    """Each rule does one thing with the pool and the model, and cuts the power at each write."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = Machine(METADATA_BYTES, DATA_BLOCKS * BLOCK)
        self.data_blocks = DATA_BLOCKS
        self.state = self.committed = State()
        self.active: dict[int, ThinDevice] = {}
        self.number = 0
        self.open()
        self.machine.settle()

    def open(self) -> None:
        metadata, data = self.machine.media()
        self.pool = ThinPool(metadata, data, BLOCK, Features(error_if_no_space=True))

    def device(self, device_id: int) -> ThinDevice:
        if device_id not in self.active:
            self.active[device_id] = self.pool.activate(device_id, DEVICE_BYTES)
        return self.active[device_id]

    def close_all(self) -> None:
        for device in self.active.values():
            device.close()
        self.active.clear()

    # --- the end of each rule ------------------------------------------------------------------

    def happened(self, states: list[State], seed: int, *, durable: bool) -> None:
        """The pool went through *states*; cut at each write it did, and look.

        With *durable* the last state is certain, else it is not known whether there was a commit.
        """
        commits = sum(
            event.medium == 0 and event.offset == 0 and event.contents is not None
            for event in self.machine.events
        )
        self.state = states[-1]
        possible = [self.committed, *states] if commits else [self.committed]
        left = None
        for left in self.machine.cuts(Random(seed)):
            assert matching(left, possible) is not None, "neither the last commit nor the next"
        if durable:
            if left is not None:  # what happened after the last event cannot be cut off
                last = Machine(*self.machine.sizes)
                last.pages = [dict(pages) for pages in self.machine.durable]
                assert matching(last, [self.state]) is not None, "what was durable is gone"
            self.settle()
        elif commits:  # one of them is committed, at least up to the superblock
            found = matching(self.survivor(), possible)
            assert found is not None
            self.committed = found

    def settle(self) -> None:
        self.committed = self.state
        self.state.forget_history()

    def survivor(self) -> Machine:
        left = Machine(*self.machine.sizes)
        left.durable = left.pages = [dict(pages) for pages in self.machine.pages]
        return left

    # --- commands ------------------------------------------------------------------------------

    @rule(new=ids, seed=seeds)
    def create_thin(self, new: int, seed: int) -> None:
        before = self.state
        if new in before.devices:
            with pytest.raises(AlreadyExists) as caught:
                self.pool.create_thin(new)
            assert caught.value.errno == errno.EEXIST
            return
        self.pool.create_thin(new)
        self.happened([before, before.create_thin(new)], seed, durable=True)

    @rule(new=ids, origin=ids, seed=seeds)
    def create_snap(self, new: int, origin: int, seed: int) -> None:
        before = self.state
        if new in before.devices:
            with pytest.raises(AlreadyExists):
                self.pool.create_snap(new, origin)
        elif origin not in before.devices:
            with pytest.raises(NotFound) as caught:
                self.pool.create_snap(new, origin)
            assert caught.value.errno == errno.ENODATA
        else:
            self.pool.create_snap(new, origin)
            self.happened([before, before.create_snap(new, origin)], seed, durable=True)

    @rule(old=ids, seed=seeds)
    def delete(self, old: int, seed: int) -> None:
        before = self.state
        if old not in before.devices:
            with pytest.raises(NotFound):
                self.pool.delete(old)
            return
        if old in self.active:
            with pytest.raises(Busy) as caught:
                self.pool.delete(old)
            assert caught.value.errno == errno.EBUSY
            self.active.pop(old).close()
        self.pool.delete(old)
        self.happened([before, before.delete(old)], seed, durable=True)

    @rule(current=st.integers(0, 2), new=st.integers(0, 2), seed=seeds)
    def set_transaction_id(self, current: int, new: int, seed: int) -> None:
        before = self.state
        if current != before.transaction_id:
            with pytest.raises(InvalidArgument):
                self.pool.set_transaction_id(current, new)
            return
        self.pool.set_transaction_id(current, new)
        after = State(before.devices, before.time, new, before.held)
        self.happened([before, after], seed, durable=True)

    @rule(seed=seeds)
    def hold_or_let_go(self, seed: int) -> None:
        before = self.state
        if before.held is None:
            self.pool.reserve_metadata_snap()
            held: dict[int, Thin] | None = dict(before.devices)
            with pytest.raises(Busy):
                self.pool.reserve_metadata_snap()
        else:
            self.pool.release_metadata_snap()
            held = None
            with pytest.raises(InvalidArgument):
                self.pool.release_metadata_snap()
        after = State(before.devices, before.time, before.transaction_id, held)
        self.happened([before, after], seed, durable=True)

    @precondition(lambda self: self.data_blocks < DATA_BLOCKS + 4)
    @rule(seed=seeds)
    def grow(self, seed: int) -> None:
        self.data_blocks += 1
        self.pool.grow(
            data_bytes=self.data_blocks * BLOCK,
            metadata_bytes=METADATA_BYTES + 4096 * self.data_blocks,
        )
        self.happened([self.state], seed, durable=True)

    # --- reads and writes ------------------------------------------------------------------------

    @rule(device=ids, offset=places, length=lengths, seed=seeds)
    def write(self, device: int, offset: int, length: int, seed: int) -> None:
        if device not in self.state.devices:
            return
        self.number += 1
        contents = (self.number.to_bytes(2, "big") * (length // 2 + 1))[:length]
        states, fits = self.written(device, offset, contents)
        if fits:
            done = self.device(device).write(offset, contents)
            assert done == min(length, max(0, DEVICE_BYTES - offset))
        else:
            with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
                self.device(device).write(offset, contents)
            assert self.pool.mode is Mode.OUT_OF_DATA_SPACE
        self.happened(states, seed, durable=False)

    def written(self, device: int, offset: int, contents: bytes) -> tuple[list[State], bool]:
        """Return the states that the write goes through, and whether it finds room."""
        states = [self.state]
        end = min(offset + len(contents), DEVICE_BYTES)
        done = 0
        while offset + done < end:
            block, start = divmod(offset + done, BLOCK)
            part = contents[done : min(done + BLOCK - start, end - offset)]
            state = states[-1]
            if not state.in_place(device, block) and state.used() == self.data_blocks:
                return states, False
            states.append(state.write(device, block, start, part, BLOCK))
            done += len(part)
        return states, True

    @rule(device=ids, offset=places, length=lengths, seed=seeds)
    def discard(self, device: int, offset: int, length: int, seed: int) -> None:
        if device not in self.state.devices:
            return
        self.device(device).discard(offset, length)
        end = offset + length
        stop = -(-DEVICE_BYTES // BLOCK) if end >= DEVICE_BYTES else end // BLOCK
        after = self.state.discard(device, -(-offset // BLOCK), stop)
        self.happened([self.state, after], seed, durable=False)

    @rule(device=ids, seed=seeds)
    def flush(self, device: int, seed: int) -> None:
        if device in self.state.devices:
            self.device(device).flush()
            self.happened([self.state], seed, durable=True)

    # --- the pool -----------------------------------------------------------------------------

    @rule(seed=seeds)
    def close_and_open(self, seed: int) -> None:
        self.close_all()
        self.pool.close()
        self.happened([self.state], seed, durable=True)
        self.open()

    @rule(seed=seeds)
    def crash(self, seed: int) -> None:
        """Go on with what a cut has left of what was not synced."""
        self.active.clear()
        self.machine = self.machine.cut(Random(seed))
        self.open()
        self.machine.settle()
        self.state = self.committed = adopted(self.pool, self.committed)

    @invariant()
    def every_device_is_what_the_model_says(self) -> None:
        for device_id in self.active:
            thin = self.state.devices[device_id]
            contents = self.active[device_id].read(0, DEVICE_BYTES + 1)
            assert contents == expected(thin), f"device {device_id}"

    @invariant()
    def the_pool_counts_as_the_model_does(self) -> None:
        assert list(self.pool.devices()) == sorted(self.state.devices)
        words = self.pool.status().split()
        assert words[0] == str(self.state.transaction_id)
        assert words[2] == f"{self.state.used()}/{self.data_blocks}"
        for device_id, thin in self.state.devices.items():
            assert [block for block, _ in self.pool.mappings(device_id)] == sorted(thin.blocks)
            assert self.pool.mapped_blocks(device_id) == len(thin.blocks)
        if self.state.held is not None:
            held = {key: [at for at, _ in found] for key, found in self.pool.held_devices()}
            assert held == {key: sorted(thin.blocks) for key, thin in self.state.held.items()}


def expected(thin: Thin) -> bytes:
    blocks = (thin.blocks.get(at) for at in range(-(-DEVICE_BYTES // BLOCK)))
    return b"".join(found.block.contents if found else bytes(BLOCK) for found in blocks)[
        :DEVICE_BYTES
    ]


def matching(left: Machine, possible: list[State]) -> State | None:
    """Open what a cut has left; return which of the states it is."""
    metadata, data = left.media()
    report = verify(metadata)
    assert report.errors == ()
    assert [leak for leak in report.leaks if "other superblock" not in leak] == []
    pool = ThinPool(metadata, data, BLOCK)
    return next((state for state in reversed(possible) if is_state(pool, data, state)), None)


def is_state(pool: ThinPool, data: object, state: State) -> bool:
    if list(pool.devices()) != sorted(state.devices) or pool.transaction_id != state.transaction_id:
        return False
    if (state.held is None) != (pool.status().split()[3] == "-"):
        return False
    for device_id, thin in state.devices.items():
        mappings = pool.mappings(device_id)
        if [block for block, _ in mappings] != sorted(thin.blocks):
            return False
        for block, place in mappings:
            contents = data.read(place * BLOCK, BLOCK)  # type: ignore[attr-defined]
            if not is_some_of(contents, thin.blocks[block].block.history):
                return False
    return True


def is_some_of(contents: bytes, history: list[bytes]) -> bool:
    """Whether each sector is what it was at some time since the last commit."""
    if contents in history:
        return True
    return len(history) > 1 and all(
        any(contents[at : at + SECTOR] == then[at : at + SECTOR] for then in history)
        for at in range(0, BLOCK, SECTOR)
    )


def adopted(pool: ThinPool, state: State) -> State:
    """The state as it was committed, with what the cut has left of writes in place."""
    for device_id, thin in state.devices.items():
        device = pool.activate(device_id, 6 * BLOCK)
        for at, mapping in thin.blocks.items():
            mapping.block.history[:] = [device.read(at * BLOCK, BLOCK)]
        device.close()
    return state


FULL = os.environ.get("STOWAGE_TEST_PROFILE") == "full"
TestPool = PoolMachine.TestCase
TestPool.settings = settings(
    max_examples=10_000 if FULL else 30, stateful_step_count=25, deadline=None
)
