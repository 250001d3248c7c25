"""The state machine as a property."""

from __future__ import annotations

from hypothesis import seed
from hypothesis.stateful import run_state_machine_as_test

from ..case import Case
from ..machine import StorageMachine
from ..registry import prop

_STEPS = 20


@prop("MODEL", "After any steps of any verbs and file operations all is as the model says",
      once=True, weight=4.0)  # fmt: skip
def state_machine(case: Case) -> None:
    from ..runner import hypothesis_settings

    def machine() -> StorageMachine:
        return StorageMachine(case.fresh(), case.failed)

    settings = hypothesis_settings(case.examples, _STEPS)
    made = seed(case.seed)(machine)
    run_state_machine_as_test(made, settings=settings)  # type: ignore[arg-type]  # or a factory
