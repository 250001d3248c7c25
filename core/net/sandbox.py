"""Sandboxes: the network namespace of a container, held by a descriptor and by nothing else.

The kernel reaps the namespace and every link in it with its last user, so a kill leaks nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ..linux.namespaces import (
    CLONE_NEWNET,
    loopback_up,
    network_cookie,
    on_throwaway_thread,
    open_namespace,
    unshare,
)
from ..model import Sandbox, SandboxMode


@contextmanager
def sandbox_for(container_id: str, mode: SandboxMode) -> Iterator[Sandbox]:
    """Give a sandbox for the time of the ``with``: a new one, or (``host``) the caller's own.

    Who wants it to live longer inherits or duplicates the descriptor.
    """
    sandbox = _new(container_id) if mode == "private" else _own(container_id)
    try:
        yield sandbox
    finally:
        os.close(sandbox.descriptor)


def _new(container_id: str) -> Sandbox:
    def run() -> Sandbox:
        unshare(CLONE_NEWNET)
        loopback_up()
        return Sandbox(container_id, open_namespace("net"), network_cookie())

    return on_throwaway_thread(run)


def _own(container_id: str) -> Sandbox:
    return Sandbox(container_id, open_namespace("net"), network_cookie())
