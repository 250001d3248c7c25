"""Each bundled storage driver is held against its definition, in a small profile."""

from __future__ import annotations

import os
from typing import ClassVar

import pytest

from stowage.testing.conform import StorageDriverTests

FULL = os.environ.get("STOWAGE_TEST_PROFILE") == "full"

pytestmark = pytest.mark.requires("mounts", "ext4")


class Small(StorageDriverTests):
    """A few examples each on ext4; hundreds in the full profile."""

    on = "ext4"
    examples: ClassVar[int] = 200 if FULL else 2
    seconds_each: ClassVar[float | None] = None if FULL else 0.3


Small.__test__ = False  # type: ignore[attr-defined]  # pytest's own mark: it names no driver


class Fewer(Small):
    """Of a driver whose mounts are served by a process, some properties of each family, unless
    the profile is the full one: each mount takes it a tenth of a second."""

    names = () if FULL else (
        "L3", "L4", "L6", "L12", "M1", "M4", "D1", "D7b", "D16", "U4", "C3", "S2",
        "K1", "K2", "K3", "K4", "B2", "B19", "T2",
    )  # fmt: skip


Fewer.__test__ = False  # type: ignore[attr-defined]  # as above


class TestVfs(Small):
    __test__ = True
    driver = "vfs"


class TestOverlay(Small):
    __test__ = True
    driver = "overlay"


@pytest.mark.requires("fuse")
class TestFuse(Fewer):
    __test__ = True
    driver = "fuse"


@pytest.mark.requires("fuse")
class TestAufs(Fewer):
    __test__ = True
    driver = "aufs"
