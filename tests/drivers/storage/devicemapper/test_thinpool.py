"""Rules of dm-thin that the machine does not reach, one by one (reference/storage.md, 7)."""

from __future__ import annotations

import errno
from pathlib import Path
from random import Random
from threading import Thread

import pytest

from stowage import Busy, DataLoss, FailedPrecondition, InvalidArgument, NoSpace, NotFound
from stowage_drivers.storage.devicemapper.geometry import (
    Features,
    Mode,
    suggested_metadata_bytes,
)
from stowage_drivers.storage.devicemapper.media import FileMedium
from stowage_drivers.storage.devicemapper.repair import repair
from stowage_drivers.storage.devicemapper.thinpool import ThinPool
from stowage_drivers.storage.devicemapper.verify import Report, clear_needs_check, verify

from .cuts import Machine

BLOCK = 64 << 10
MIB = 1 << 20


def machine(data_blocks: int = 16, block_bytes: int = BLOCK) -> Machine:
    return Machine(2 * MIB, data_blocks * block_bytes)


def opened(on: Machine, features: Features | None = None, block_bytes: int = BLOCK) -> ThinPool:
    metadata, data = on.media()
    return ThinPool(metadata, data, block_bytes, features)


# --- geometry -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [63 << 10, 96 << 10, 32 << 10, (1 << 30) + BLOCK, 0])
def test_a_block_size_out_of_range_is_refused(size: int) -> None:
    """T1."""
    with pytest.raises(InvalidArgument, match="64K to 1G") as caught:
        opened(machine(), block_bytes=size)

    assert caught.value.errno == errno.EINVAL


def test_the_block_size_is_fixed() -> None:
    """T1."""
    on = machine()
    opened(on).close()

    with pytest.raises(InvalidArgument, match="65536 bytes, not 131072"):
        opened(on, block_bytes=2 * BLOCK)


def test_metadata_have_a_size() -> None:
    """T2."""
    with pytest.raises(InvalidArgument, match="2M to 16G"):
        opened(Machine(MIB, MIB))

    assert suggested_metadata_bytes(100 << 30, BLOCK) == 75 * MIB
    assert suggested_metadata_bytes(MIB, BLOCK) == 2 * MIB
    assert suggested_metadata_bytes(1 << 60, BLOCK) == 16 << 30


def test_what_is_no_pool_is_not_formatted() -> None:
    """T3."""
    on = machine()
    on.media()[0].write(0, b"somebody's file")
    before = dict(on.pages[0])

    with pytest.raises(DataLoss, match="checksum"):
        opened(on)
    assert on.pages[0] == before


def test_an_id_has_24_bits() -> None:
    """T4."""
    pool = opened(machine())
    pool.create_thin(0xFFFFFF)

    for number in (-1, 1 << 24):
        with pytest.raises(InvalidArgument):
            pool.create_thin(number)


def test_a_size_is_of_the_table_not_of_the_pool() -> None:
    """T5: over-provisioned, shrunk and grown, the blocks stay mapped."""
    pool = opened(machine())
    pool.create_thin(1)
    device = pool.activate(1, 1 << 40)
    device.write((1 << 40) - 3, b"end beyond")

    assert device.read((1 << 40) - 3, 100) == b"end"
    device.resume(size_bytes=BLOCK)
    assert device.read(BLOCK, 1) == b""
    assert pool.mapped_blocks(1) == 1
    device.resume(size_bytes=1 << 40)
    assert device.read((1 << 40) - 3, 3) == b"end"


# --- mapping ------------------------------------------------------------------------------------


@pytest.mark.parametrize("zero", [True, False])
def test_a_new_block_shows_nothing_of_a_deleted_device(zero: bool) -> None:
    """T8, T9: unless zeroing is skipped."""
    pool = opened(machine(1), Features(zero_blocks=zero, discard_passdown=False))
    pool.create_thin(1)
    old = pool.activate(1, BLOCK)
    old.write(0, b"secret" * 1000)
    old.close()
    pool.delete(1)
    pool.create_thin(2)
    new = pool.activate(2, BLOCK)
    new.write(0, b"x")

    assert (b"secret" in new.read(0, BLOCK)) is not zero


def test_large_blocks_are_copied_and_zeroed_in_pieces() -> None:
    size = 3 * MIB + BLOCK
    pool = opened(machine(3, size), block_bytes=size)
    pool.create_thin(1)
    device = pool.activate(1, size)
    device.write(MIB - 1, b"abc")
    pool.create_snap(2, 1)
    device.write(2 * MIB - 2, b"later")

    def model(*writes: tuple[int, bytes]) -> bytes:
        contents = bytearray(size)
        for offset, part in writes:
            contents[offset : offset + len(part)] = part
        return bytes(contents)

    assert device.read(0, size) == model((MIB - 1, b"abc"), (2 * MIB - 2, b"later"))
    assert pool.activate(2, size).read(0, size) == model((MIB - 1, b"abc"))


def test_an_external_origin_shows_through_and_is_never_written() -> None:
    """T7, T19: zeros past its end; a partial write takes the rest from it."""
    origin = Machine(0, BLOCK + 100).media()[1]
    origin.write(0, b"o" * (BLOCK + 100))
    pool = opened(machine())
    pool.create_thin(1)
    device = pool.activate(1, 4 * BLOCK, origin)
    device.write(BLOCK + 10, b"thin")

    assert device.read(0, BLOCK) == b"o" * BLOCK
    whole = b"o" * 10 + b"thin" + b"o" * 86
    assert device.read(BLOCK, BLOCK) == whole.ljust(BLOCK, b"\0")
    assert pool.mapped_blocks(1) == 1
    assert origin.read(0, BLOCK + 100) == b"o" * (BLOCK + 100)


def test_reads_and_flushes_never_allocate() -> None:
    """T7, T13."""
    pool = opened(machine())
    pool.create_thin(1)
    device = pool.activate(1, 8 * BLOCK)

    assert device.read(5, 3 * BLOCK) == bytes(3 * BLOCK)
    device.flush()
    assert device.status() == "0 -"
    device.write(3 * BLOCK, b"x")
    assert device.status() == "128 511"  # T44


def test_a_snapshot_costs_the_same_whatever_is_mapped() -> None:
    """T15: counted in what is written, for 1 and for 5,000 blocks."""

    def writes(blocks: int) -> int:
        on = Machine(8 * MIB, 5_001 * BLOCK)
        pool = opened(on, Features(zero_blocks=False))
        pool.create_thin(1)
        device = pool.activate(1, 1 << 40)
        for block in range(blocks):
            device.write(block * BLOCK, b"x")
        device.flush()
        on.events.clear()
        pool.create_snap(2, 1)
        return len(on.events)

    assert writes(5_000) == writes(1)


def test_discards_can_be_ignored() -> None:
    """T6, T25."""
    pool = opened(machine(), Features(discard=False))
    pool.create_thin(1)
    device = pool.activate(1, BLOCK)
    device.write(0, b"kept")
    device.discard(0, BLOCK)

    assert device.read(0, 4) == b"kept"
    assert "ignore_discard" in pool.status()
    with pytest.raises(InvalidArgument, match="Discards"):
        pool.resume(Features())


# --- space and modes ----------------------------------------------------------------------------


def test_low_water_is_told_once_and_again_after_resume() -> None:
    """T26."""
    told: list[str] = []
    metadata, data = machine(4).media()
    pool = ThinPool(metadata, data, BLOCK, Features(low_water_blocks=3), told.append)
    pool.create_thin(1)
    device = pool.activate(1, 8 * BLOCK)

    device.write(0, b"x" * BLOCK)
    assert told == []
    device.write(BLOCK, b"x" * 2 * BLOCK)
    assert told == ["low_water"]
    pool.resume()
    assert told == ["low_water", "low_water"]


def test_a_write_waits_for_space_and_goes_on_when_the_pool_grows() -> None:
    """T29, T30."""
    on = machine(1)
    pool = opened(on)
    pool.create_thin(1)
    device = pool.activate(1, 8 * BLOCK)
    device.write(0, b"first")
    writer = Thread(target=lambda: device.write(BLOCK, b"second"))
    writer.start()
    while pool.mode is Mode.WRITE:
        writer.join(0.01)

    device.write(0, b"FIRST")  # needs no new block
    assert device.read(0, 5) == b"FIRST"
    pool.grow(data_bytes=4 * BLOCK)
    writer.join()
    assert device.read(BLOCK, 6) == b"second"
    assert " rw " in pool.status()


def test_a_write_that_waited_long_enough_fails() -> None:
    """T29."""
    pool = opened(machine(1), Features(no_space_timeout_seconds=0.01))
    pool.create_thin(1)
    device = pool.activate(1, 8 * BLOCK)

    with pytest.raises(OSError, match="No space") as caught:
        device.write(0, b"x" * 2 * BLOCK)
    assert caught.value.errno == errno.ENOSPC
    assert device.read(0, BLOCK) == b"x" * BLOCK


def fill_metadata(pool: ThinPool) -> None:
    for device_id in range(10_000):
        pool.create_thin(device_id)


def test_a_pool_without_metadata_is_read_only_until_they_grow() -> None:
    """T27, T31, T32, T53: nothing is lost, and no check is needed."""
    on = machine()
    pool = opened(on)
    with pytest.raises(NoSpace, match="metadata"):
        fill_metadata(pool)
    devices = len(pool.devices())

    assert devices > 300
    assert pool.mode is Mode.OUT_OF_METADATA_SPACE
    assert " ro " in pool.status()
    with pytest.raises(FailedPrecondition, match="ro") as caught:
        pool.delete(1)
    assert caught.value.errno == errno.EOPNOTSUPP
    pool.grow(metadata_bytes=4 * MIB)
    pool.delete(1)
    assert len(pool.devices()) == devices - 1
    assert verify(on.media()[0]).ok


def test_a_pool_never_shrinks() -> None:
    """T34."""
    on = machine(16)
    pool = opened(on)

    with pytest.raises(InvalidArgument, match="shrink"):
        pool.grow(data_bytes=15 * BLOCK)
    pool.close()
    on.sizes[1] -= BLOCK
    with pytest.raises(FailedPrecondition, match="smaller"):
        opened(on)


@pytest.mark.parametrize("works", range(30))
def test_after_a_failed_commit_the_pool_is_what_was_committed(works: int) -> None:
    """T28, T33: wherever it fails; what is on the media is whole, and no more is changed."""
    on = machine()
    pool = opened(on)
    pool.create_thin(1)
    pool.activate(1, 4 * BLOCK).write(0, b"x" * 3 * BLOCK)
    pool.commit()
    on.fail_after = works
    try:
        pool.create_snap(2, 1)
        made = True
    except OSError:
        made = False

    if not made:
        assert pool.mode is Mode.FAIL  # needs_check could not be written either
        assert pool.status() == "Fail"
        with pytest.raises(FailedPrecondition, match="Fail"):
            pool.activate(1, BLOCK)
    on.fail_after = None
    again = opened(on)
    assert again.devices() in ([1], [1, 2])
    assert not made or again.devices() == [1, 2]
    assert verify(on.media()[0]).errors == ()


def test_a_read_only_pool_changes_nothing() -> None:
    """T24, T40."""
    on = machine()
    pool = opened(on)
    pool.create_thin(1)
    pool.activate(1, BLOCK).write(0, b"kept")
    pool.commit()
    before = dict(on.pages[0])
    reader = opened(on, Features(read_only=True))
    device = reader.activate(1, BLOCK)

    device.discard(0, BLOCK)
    assert device.read(0, 4) == b"kept"
    with pytest.raises(OSError, match="ro") as caught:
        device.write(0, b"x")
    assert caught.value.errno == errno.EIO
    with pytest.raises(FailedPrecondition):
        reader.create_thin(2)
    assert on.pages[0] == before


# --- life ---------------------------------------------------------------------------------------


def test_what_is_active_keeps_the_pool_open() -> None:
    """T41, T42."""
    pool = opened(machine())
    pool.create_thin(1)
    with pytest.raises(NotFound):
        pool.activate(2, BLOCK)
    device = pool.activate(1, BLOCK)
    with pytest.raises(Busy):
        pool.activate(1, BLOCK)

    with pytest.raises(Busy, match="active thin devices: 1"):
        pool.close()
    device.close()
    pool.suspend()
    with pytest.raises(FailedPrecondition, match="suspended"):
        pool.activate(1, BLOCK)
    pool.resume()
    pool.close()


def test_a_suspended_device_holds_its_io() -> None:
    """T43."""
    pool = opened(machine())
    pool.create_thin(1)
    device = pool.activate(1, BLOCK)
    device.suspend()
    done: list[int] = []
    writer = Thread(target=lambda: done.append(device.write(0, b"held")))
    writer.start()
    writer.join(0.05)

    assert done == []
    device.resume()
    writer.join()
    assert done == [4]


# --- damage -------------------------------------------------------------------------------------


def filled(on: Machine) -> ThinPool:
    """Three generations of a device whose tree has two levels."""
    pool = opened(on, Features(zero_blocks=False))
    pool.create_thin(1)
    device = pool.activate(1, 1000 * BLOCK)
    for block in range(600):
        device.write(block * BLOCK, block.to_bytes(2, "big"))
    pool.create_snap(2, 1)
    device.write(0, b"only one")
    pool.create_snap(3, 1)
    pool.create_thin(4)
    pool.commit()
    return pool


def block_numbers(on: Machine) -> list[int]:
    return sorted(on.pages[0])


def rot(on: Machine, number: int) -> None:
    page = bytearray(on.pages[0][number])
    page[100] ^= 0xFF
    on.pages[0][number] = bytes(page)


def test_damage_anywhere_is_found_and_reported() -> None:
    """Each block in turn; one that is not in use is no damage, one superblock has a twin."""
    on = machine(700)
    pool = filled(on)
    used = int(pool.status().split()[1].split("/")[0])
    found = 0
    for number in block_numbers(on):
        kept = on.pages[0][number]
        rot(on, number)
        report = verify(on.media()[0])
        if number in (0, 1):
            assert report.ok
            assert "other superblock" in report.leaks[0]
        found += bool(report.errors or report.leaks)
        on.pages[0][number] = kept

    assert found == used


@pytest.mark.parametrize("which", range(1, 40))
def test_repair_saves_what_is_readable(which: int) -> None:
    on = machine(700)
    filled(on)
    numbers = block_numbers(on)
    damaged = numbers[which] if which < len(numbers) else None
    if damaged is not None:
        rot(on, damaged)
    errors = verify(on.media()[0]).errors
    target = machine(700)
    target.pages[1] = on.pages[1]
    saved = repair(on.media()[0], target.media()[0])

    assert verify(target.media()[0]) == Report()
    pool = opened(target)
    if not errors:
        assert saved.devices == 4
        assert saved.lost == ()
    for device_id in pool.devices():
        device = pool.activate(device_id, 1000 * BLOCK)
        for block, _ in pool.mappings(device_id):
            if block == 0 and device_id in (1, 3):
                assert device.read(0, 8) == b"only one"
            else:
                assert device.read(block * BLOCK, 2) == block.to_bytes(2, "big")


def test_damage_that_is_met_makes_the_pool_read_only_until_it_is_repaired() -> None:
    """T32: growing and writing are refused, also after reopening."""
    on = machine(700)
    filled(on)
    leaf = next(number for number in block_numbers(on)[2:] if _only_reading_meets(on, number))
    rot(on, leaf)
    pool = opened(on)
    device = pool.activate(1, 1000 * BLOCK)
    with pytest.raises(OSError, match="damaged"):
        device.read(0, 600 * BLOCK)

    assert pool.mode is Mode.READ_ONLY
    again = opened(on)
    assert again.mode is Mode.READ_ONLY
    assert "needs_check" in again.status()
    with pytest.raises(FailedPrecondition, match="needs a check"):
        again.create_thin(9)
    with pytest.raises(FailedPrecondition):
        again.grow(data_bytes=701 * BLOCK)
    with pytest.raises(FailedPrecondition, match="damaged"):
        clear_needs_check(on.media()[0])
    rot(on, leaf)  # back to what it was
    clear_needs_check(on.media()[0])
    opened(on).create_thin(9)


def _only_reading_meets(on: Machine, number: int) -> bool:
    """Whether damage to that block is met when the device is read, and not before."""
    kept = dict(on.pages[0])
    rot(on, number)
    try:
        pool = opened(on)
        pool.devices()
        device = pool.activate(1, 1000 * BLOCK)
        for block in range(600):
            device.read(block * BLOCK, 1)
    except DataLoss:
        return False
    except OSError:
        return True
    finally:
        on.pages[0] = kept
    return False


def test_a_superblock_that_a_cut_left_behind_is_mended_before_the_next_commit() -> None:
    """Otherwise a torn write of the newer one would leave a state whose blocks are taken."""
    on = machine()
    opened(on).create_thin(1)
    on.settle()
    for seed in range(100):
        left = Machine(*on.sizes)
        left.durable = [dict(pages) for pages in on.durable]
        left.pages = [dict(pages) for pages in on.durable]
        assert "earlier commit" in verify(left.media()[0]).leaks[0]

        opened(left).create_thin(2)
        for cut in left.cuts(Random(seed)):
            assert verify(cut.media()[0]).errors == ()
            assert list(opened(cut).devices()) in ([1], [1, 2])


def test_both_superblocks_lost_is_said_plainly() -> None:
    on = machine()
    opened(on).close()
    rot(on, 0)
    rot(on, 1)

    with pytest.raises(DataLoss, match="damaged"):
        opened(on)
    with pytest.raises(DataLoss, match="damaged"):
        repair(on.media()[0], machine().media()[0])


# --- files --------------------------------------------------------------------------------------


def test_the_space_of_what_was_deleted_goes_back_to_the_file_system(shm_dir: Path) -> None:
    """T22, moby#3182: on real files, which grow, are closed and opened again."""
    for name, size in (("metadata", 2 * MIB), ("data", 8 * MIB)):
        with open(shm_dir / name, "wb") as file:
            file.truncate(size)

    def files() -> tuple[FileMedium, FileMedium]:
        return FileMedium(shm_dir / "metadata"), FileMedium(shm_dir / "data")

    pool = ThinPool(*files(), BLOCK)
    pool.create_thin(1)
    device = pool.activate(1, 64 * BLOCK)
    device.write(0, b"x" * 4 * MIB)
    pool.grow(data_bytes=16 * MIB)
    device.close()
    pool.close()

    metadata, data = files()
    pool = ThinPool(metadata, data, BLOCK)
    again = pool.activate(1, 64 * BLOCK)
    assert again.read(MIB, 3) == b"xxx"
    again.close()
    assert data.allocated_bytes >= 4 * MIB
    pool.delete(1)
    assert data.allocated_bytes == 0
    assert data.size_bytes == 16 * MIB
    pool.close()
