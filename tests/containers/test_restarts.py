"""Restart policies: how they are written, and when a container runs again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowage.containers.restarts import (
    RestartFacts,
    RestartPolicy,
    next_restart,
    parse_restart_policy,
    resumes,
)
from stowage.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("", RestartPolicy("no")),
        ("no", RestartPolicy("no")),
        ("always", RestartPolicy("always")),
        ("unless-stopped", RestartPolicy("unless-stopped")),
        ("on-failure", RestartPolicy("on-failure", 0)),
        ("on-failure:5", RestartPolicy("on-failure", 5)),
    ],
)
def test_policies_are_read(text: str, policy: RestartPolicy) -> None:
    """As Docker writes them."""
    assert parse_restart_policy(text) == policy
    assert RestartPolicy(**policy.to_json()) == policy


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sometimes", "invalid restart policy 'sometimes'"),
        ("always:3", "maximum retry count cannot be used with restart policy 'always'"),
        ("on-failure:x", "maximum retry count must be an integer"),
        ("on-failure:-1", "maximum retry count cannot be negative"),
        ("on-failure:1:2", "invalid restart policy format"),
    ],
)
def test_what_is_no_policy_is_refused(text: str, words: str) -> None:
    """In Docker's words."""
    with pytest.raises(InvalidArgument) as refused:
        parse_restart_policy(text)

    assert refused.value.brief == words


FRESH = RestartFacts()


def after(
    policy: str, facts: RestartFacts = FRESH, *, code: int = 1, ran: float = 0.1
) -> RestartFacts | None:
    parsed = parse_restart_policy(policy)
    return next_restart(parsed, facts, exit_code=code, ran_seconds=ran, now_ns=0)


def test_who_is_restarted() -> None:
    """By policy and exit code; never what its user has stopped."""
    assert after("no") is None
    assert after("on-failure", code=0) is None
    for policy in ("always", "unless-stopped"):
        assert after(policy, code=0) is not None
        assert after(policy, RestartFacts(stopped=True)) is None


def test_the_wait_doubles_up_to_a_minute_and_begins_anew() -> None:
    """100 ms, 200 ms, …, 60 s; after ten seconds of running it is 100 ms again."""
    facts, waits = RestartFacts(), []
    for _ in range(12):
        facts = after("always", facts) or pytest.fail("not restarted")
        waits.append(facts.wait_ms)
    steady = after("always", facts, ran=10)

    assert waits == [100 * 2**n for n in range(10)] + [60_000, 60_000]
    assert facts.count == 12
    assert steady is not None
    assert (steady.wait_ms, steady.due_ns) == (100, 100_000_000)


@given(st.integers(1, 20))
def test_failures_are_counted(most: int) -> None:
    """``on-failure:n`` restarts n times."""
    facts, restarted = RestartFacts(), 0
    while (following := after(f"on-failure:{most}", facts)) is not None:
        facts, restarted = following, restarted + 1

    assert restarted == facts.count == most


@pytest.mark.parametrize(
    ("policy", "facts", "code", "starts"),
    [
        ("always", RestartFacts(boot_id="old"), 0, True),
        ("always", RestartFacts(boot_id="old", stopped=True), 0, True),
        ("always", RestartFacts(boot_id="now"), 0, False),
        ("always", RestartFacts(), 0, False),
        ("unless-stopped", RestartFacts(boot_id="old"), 255, True),
        ("unless-stopped", RestartFacts(boot_id="old", stopped=True), 255, False),
        ("on-failure", RestartFacts(boot_id="old"), 255, True),
        ("on-failure", RestartFacts(boot_id="old"), 0, False),
        ("on-failure:2", RestartFacts(boot_id="old", count=2), 255, False),
        ("no", RestartFacts(boot_id="old"), 255, False),
    ],
)
def test_who_is_started_after_a_reboot(
    policy: str, facts: RestartFacts, code: int, starts: bool
) -> None:
    """As when Docker's daemon starts, once per boot."""
    parsed = parse_restart_policy(policy)

    assert resumes(parsed, facts, exit_code=code, boot_id="now") is starts
