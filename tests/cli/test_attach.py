"""Standing in for a container: what happens to signals."""

from __future__ import annotations

import os
import signal
from queue import SimpleQueue

from stowage.cli.attach import _forwarded


def test_a_signal_that_comes_before_the_container_runs_is_kept_for_it() -> None:
    sent: SimpleQueue[str] = SimpleQueue()
    with _forwarded(sent.put, wanted=True) as started:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert sent.empty()
        started()
        assert sent.get(timeout=20) == "SIGUSR1"
        os.kill(os.getpid(), signal.SIGUSR2)
        assert sent.get(timeout=20) == "SIGUSR2"


def test_a_signal_for_a_container_that_never_runs_goes_nowhere() -> None:
    sent: SimpleQueue[str] = SimpleQueue()
    with _forwarded(sent.put, wanted=True):
        os.kill(os.getpid(), signal.SIGUSR1)

    assert sent.empty()
