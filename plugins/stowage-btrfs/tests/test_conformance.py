"""The driver is held against the definition of a storage driver, in a small profile."""

from __future__ import annotations

import os
from typing import ClassVar

import pytest

from stowage.testing.abilities import missing
from stowage.testing.conform import StorageDriverTests

FULL = os.environ.get("STOWAGE_TEST_PROFILE") == "full"


@pytest.mark.skipif(missing("btrfs") is not None, reason="needs btrfs")
class TestBtrfs(StorageDriverTests):
    driver = "btrfs"
    on = "btrfs"
    examples: ClassVar[int] = 200 if FULL else 1
    seconds_each: ClassVar[float | None] = None if FULL else 0.2
