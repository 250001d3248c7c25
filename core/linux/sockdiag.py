"""Looking at sockets from outside (sock_diag(7)): whether a connection has been accepted."""

from __future__ import annotations

import os
import select
import socket
import struct
from pathlib import Path

from .netlink import Message, Netlink, attributes

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_UDIAG_SHOW_PEER, _UNIX_DIAG_PEER = 0x4, 2
_ANY_STATE, _NO_COOKIE = 0xFFFFFFFF, 0xFFFFFFFF
_REQUEST = struct.Struct("=BBHIIIII")  # struct unix_diag_req
_ANSWER_BYTES = 16  # struct unix_diag_msg
_CONNECTING = "02"  # SS_CONNECTING, in /proc/net/unix


def accepted(client: socket.socket) -> bool:
    """Tell whether the listener has accepted a connected unix socket of ours.

    connect(2) makes the other end at once, but it has no file, and so no inode, until accept(2)
    gives it one (unix_stream_connect and unix_accept in net/unix/af_unix.c). The kernel is asked
    for the inode of our peer; where it lacks unix_diag, this is False as long as any connection
    to a socket of that file name waits.

    Raises:
        ConnectionResetError: if the other end is gone.
    """
    request = _REQUEST.pack(
        socket.AF_UNIX, 0, 0, _ANY_STATE, os.fstat(client.fileno()).st_ino, _UDIAG_SHOW_PEER,
        _NO_COOKIE, _NO_COOKIE,
    )  # fmt: skip
    try:
        with Netlink(_NETLINK_SOCK_DIAG) as netlink:
            answer = netlink.get(Message(_SOCK_DIAG_BY_FAMILY, request))
    except OSError:  # the module is not there
        return not _waiting(os.path.basename(os.fsdecode(client.getpeername())))
    peer = attributes(answer.body, _ANSWER_BYTES).get(_UNIX_DIAG_PEER)
    if peer is not None and struct.unpack("=I", peer) != (0,):
        return True
    if _hung_up(client):
        raise ConnectionResetError("the listener is gone")
    return False


def _hung_up(client: socket.socket) -> bool:
    poller = select.poll()
    poller.register(client, 0)
    return any(events & select.POLLHUP for _, events in poller.poll(0))


def _waiting(name: str) -> bool:
    """Whether a connection to a socket file called *name* waits to be accepted (proc_net(5))."""
    for line in Path("/proc/net/unix").read_text(errors="replace").splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and fields[5] == _CONNECTING and fields[7].endswith(f"/{name}"):
            return True
    return False
