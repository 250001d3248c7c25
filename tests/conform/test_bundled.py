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


class TestVfs(Small):
    __test__ = True
    driver = "vfs"


class TestOverlay(Small):
    __test__ = True
    driver = "overlay"
