"""Restart policies: what ``--restart`` asks, and when a container that has ended runs again.

Docker's rules: the wait before a restart is 100 ms and doubles up to a minute; a container that
ran for ten seconds begins with 100 ms again; what its user stopped stays so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ..errors import InvalidArgument
from ..linux.process import ProcessIdentity
from ..numbers import parse_whole
from ..records import field_names

_FIRST_WAIT_MS, _LONGEST_WAIT_MS = 100, 60_000
_STEADY_SECONDS = 10


class RestartPolicy(Struct, frozen=True):
    """*name* is ``no``, ``on-failure``, ``always`` or ``unless-stopped``; *maximum_retries* is of
    ``on-failure`` (0: no limit)."""

    name: str = "no"
    maximum_retries: int = 0

    @property
    def restarts(self) -> bool:
        """Whether it ever starts a container again."""
        return self.name != "no"

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {"name": self.name, "maximum_retries": self.maximum_retries}

    def __str__(self) -> str:
        return f"{self.name}:{self.maximum_retries}" if self.maximum_retries else self.name


def parse_restart_policy(text: str) -> RestartPolicy:
    """Read ``no``, ``on-failure[:n]``, ``always`` or ``unless-stopped``; nothing means ``no``.

    Raises:
        InvalidArgument: in Docker's words.
    """
    name, *more = text.split(":")
    if len(more) > 1:
        raise InvalidArgument("invalid restart policy format")
    try:
        count = parse_whole(more[0]) if more else 0
    except ValueError:
        raise InvalidArgument("maximum retry count must be an integer") from None
    if name == "on-failure":
        if count < 0:
            raise InvalidArgument("maximum retry count cannot be negative")
    elif name in ("", "no", "always", "unless-stopped"):
        if count and name:
            raise InvalidArgument(
                f"maximum retry count cannot be used with restart policy '{name}'"
            )
        count = 0
    else:
        raise InvalidArgument(f"invalid restart policy '{name}'")
    return RestartPolicy(name or "no", count)


class RestartFacts(Struct, frozen=True):
    """What a container's restarts have come to.

    *count* is of those by its policy since its user started it, *wait_ms* the last wait before
    one, *due_ns* when the next is to be. *boot_id* is the boot of its last start. *stopped* says
    that its user has stopped it since. *kept_by* is who stops it only to start it again: it is
    not removed in between.
    """

    count: int = 0
    wait_ms: int = 0
    due_ns: int = 0
    boot_id: str = ""
    stopped: bool = False
    kept_by: ProcessIdentity | None = None

    @property
    def kept(self) -> bool:
        """Whether somebody is about to start it again."""
        return self.kept_by is not None and self.kept_by.alive

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> RestartFacts:
        """Read plain JSON values; unknown keys are ignored."""
        known = {name: plain[name] for name in field_names(cls) if name in plain}
        if known.get("kept_by") is not None:
            known["kept_by"] = ProcessIdentity(**known["kept_by"])
        return cls(**known)


def next_restart(
    policy: RestartPolicy, facts: RestartFacts, *, exit_code: int, ran_seconds: float, now_ns: int
) -> RestartFacts | None:
    """Return the facts of the restart that follows an end, or None if none does."""
    if facts.stopped or not _wants_restart(policy, facts, exit_code):
        return None
    before_ms = 0 if ran_seconds >= _STEADY_SECONDS else facts.wait_ms
    wait_ms = min(2 * before_ms or _FIRST_WAIT_MS, _LONGEST_WAIT_MS)
    return replace(
        facts, count=facts.count + 1, wait_ms=wait_ms, due_ns=now_ns + wait_ms * 1_000_000
    )


def resumes(policy: RestartPolicy, facts: RestartFacts, *, exit_code: int, boot_id: str) -> bool:
    """Whether an ended container is started after the machine has started; *boot_id* is now's."""
    if facts.boot_id in ("", boot_id):  # never started, or not since it ended with the machine
        return False
    if policy.name == "unless-stopped" and facts.stopped:
        return False
    return _wants_restart(policy, facts, exit_code)


def _wants_restart(policy: RestartPolicy, facts: RestartFacts, exit_code: int) -> bool:
    if policy.name == "on-failure":
        most = policy.maximum_retries
        return exit_code != 0 and (not most or facts.count < most)
    return policy.name in ("always", "unless-stopped")
