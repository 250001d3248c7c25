"""What a thin pool is, without blocks of metadata, trees or files; shares no code with ours.

A data block is an object: two mappings share one if it is the same object. Contents are kept in
it, and a write says whether it must happen in place or in a new block.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace


class Block:
    """A data block and its *contents* at each moment since the last commit, the oldest first."""

    def __init__(self, contents: bytes) -> None:
        self.history = [contents]

    @property
    def contents(self) -> bytes:
        return self.history[-1]


@dataclass(frozen=True)
class Mapping:
    block: Block
    time: int


@dataclass(frozen=True)
class Thin:
    """A thin device; *blocks* by their virtual number."""

    blocks: dict[int, Mapping] = field(default_factory=dict)
    snapshotted: int = 0


@dataclass(frozen=True)
class State:
    """A whole pool at one moment; changing it makes a new one (but writes change blocks)."""

    devices: dict[int, Thin] = field(default_factory=dict)
    time: int = 0
    transaction_id: int = 0
    held: dict[int, Thin] | None = None

    def used(self) -> int:
        """How many data blocks are in use (T35)."""
        return len(
            {
                id(mapping.block)
                for devices in (self.devices, self.held or {})
                for thin in devices.values()
                for mapping in thin.blocks.values()
            }
        )

    def create_thin(self, new: int) -> State:
        return replace(self, devices={**self.devices, new: Thin(snapshotted=self.time)})

    def create_snap(self, new: int, origin: int) -> State:
        time = self.time + 1
        thin = replace(self.devices[origin], snapshotted=time)
        return replace(self, time=time, devices={**self.devices, origin: thin, new: thin})

    def delete(self, old: int) -> State:
        left = {key: thin for key, thin in self.devices.items() if key != old}
        return replace(self, devices=left)

    def in_place(self, device: int, block: int) -> bool:
        """Whether a write must not take a new block (T10, T12)."""
        thin = self.devices[device]
        mapping = thin.blocks.get(block)
        return mapping is not None and mapping.time >= thin.snapshotted

    def write(self, device: int, block: int, start: int, contents: bytes, size: int) -> State:
        """Write within one block of *size* bytes."""
        thin = self.devices[device]
        mapping = thin.blocks.get(block)
        old = mapping.block.contents if mapping else bytes(size)
        new = old[:start] + contents + old[start + len(contents) :]
        if mapping is not None and self.in_place(device, block):
            mapping.block.history.append(new)
            return self
        return self._with(device, {**thin.blocks, block: Mapping(Block(new), self.time)})

    def discard(self, device: int, first: int, stop: int) -> State:
        blocks = self.devices[device].blocks
        return self._with(
            device, {at: mapping for at, mapping in blocks.items() if not first <= at < stop}
        )

    def _with(self, device: int, blocks: dict[int, Mapping]) -> State:
        thin = replace(self.devices[device], blocks=blocks)
        return replace(self, devices={**self.devices, device: thin})

    def forget_history(self) -> None:
        """Everything is durable: no block can be found as it was earlier."""
        for thin in self.devices.values():
            for mapping in thin.blocks.values():
                del mapping.block.history[:-1]
