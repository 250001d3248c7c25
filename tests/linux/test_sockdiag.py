"""Whether a connection has been accepted, as the kernel tells it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from stowage.linux import sockdiag


@pytest.mark.parametrize("diag", [True, False])
def test_a_connection_is_accepted_by_accept_alone(
    shm_dir: Path, monkeypatch: pytest.MonkeyPatch, diag: bool
) -> None:
    if not diag:
        monkeypatch.setattr(sockdiag, "_NETLINK_SOCK_DIAG", 31)  # no such family
    address = str(shm_dir / "attach")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client,
    ):
        listener.bind(address)
        listener.listen()
        client.connect(address)
        assert not sockdiag.accepted(client)
        other, _ = listener.accept()
        with other:
            assert sockdiag.accepted(client)


def test_a_listener_that_is_gone_is_an_error(shm_dir: Path) -> None:
    address = str(shm_dir / "attach")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(address)
            listener.listen()
            client.connect(address)
        with pytest.raises(OSError, match="gone"):
            sockdiag.accepted(client)
