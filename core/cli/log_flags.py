"""The log that ``run`` and ``create`` ask for."""

from __future__ import annotations

from collections.abc import Sequence

from ..containers.log_config import LogConfig
from .environment import read_labels
from .flags import Flag, Parsed, many

FLAGS: Sequence[Flag] = (
    Flag("log-driver", "Logging driver for the container"),
    many("log-opt", "Log driver options"),
)


def requested_log(parsed: Parsed) -> LogConfig:
    """Return the log that the flags ask for; what is wrong is said when it is made."""
    return LogConfig(parsed.text("log-driver") or "", read_labels(parsed.texts("log-opt")))
