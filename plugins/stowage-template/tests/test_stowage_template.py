"""The driver is held against the definition of a storage driver: one test for each property.

``pytest -k L3`` runs one of them; ``STOWAGE_CONFORM_EXAMPLES=200 pytest`` tries harder.
"""

from __future__ import annotations

import os

import pytest

from stowage.testing.conform import StorageDriverTests


@pytest.mark.skipif(os.geteuid() != 0, reason="only as root: owners and mounts")
class TestTemplate(StorageDriverTests):
    driver = "template"
    examples = 3
    seconds_each = 0.5
