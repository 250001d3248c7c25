"""A module whose dependency was never installed."""

from __future__ import annotations

import a_library_that_is_not_there  # type: ignore[import-not-found]  # noqa: F401  # the fault
