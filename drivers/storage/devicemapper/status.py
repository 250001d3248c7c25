"""Status lines as dm-thin prints them (``dmsetup status``)."""

from __future__ import annotations

from .geometry import SECTOR_BYTES, Mode, metadata_low_water
from .poolstate import PoolState


def pool_status(state: PoolState) -> str:
    """Return ``<transaction id> <used>/<total metadata> <used>/<total data> <held root> <mode>
    <discards> <without space> <needs_check> <metadata low water>``, or ``Fail``."""
    if state.mode is Mode.FAIL:
        return "Fail"
    meta, features = state.meta, state.features
    discards = "discard_passdown" if features.discard_passdown else "no_discard_passdown"
    words = (
        meta.transaction_id,
        f"{meta.metadata.used}/{meta.metadata.size}",
        f"{meta.data.used}/{meta.data.size}",
        meta.held_root or "-",
        state.mode.word,
        discards if features.discard else "ignore_discard",
        "error_if_no_space" if features.error_if_no_space else "queue_if_no_space",
        "needs_check" if state.needs_check else "-",
        metadata_low_water(meta.metadata.size),
    )
    return " ".join(map(str, words))


def device_status(state: PoolState, mapped: int, last: int | None) -> str:
    """Return ``<mapped sectors> <highest mapped sector>`` (``-`` if none), or ``Fail``.

    *last* is the device's highest mapped block.
    """
    if state.mode is Mode.FAIL:
        return "Fail"
    sectors = state.block_bytes // SECTOR_BYTES
    highest = "-" if last is None else (last + 1) * sectors - 1
    return f"{mapped * sectors} {highest}"
