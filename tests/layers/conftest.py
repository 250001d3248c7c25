"""Places to work in that outlive one example of Hypothesis."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from stowage.testing.lab import Lab


@pytest.fixture(scope="session")
def session_dir(lab: Lab) -> Iterator[Path]:
    """A directory on tmpfs for the whole session; examples make their own beneath it."""
    with tempfile.TemporaryDirectory(dir=lab.directory) as path:
        yield Path(path)
