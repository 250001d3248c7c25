"""Socket options that Python has no words for."""

from __future__ import annotations

import socket
import struct
from array import array

_SO_ATTACH_FILTER = 26
_RETURN_ZERO_BYTES = struct.pack("=HBBI", 0x06, 0, 0, 0)  # BPF_RET | BPF_K


def drop_everything(holder: socket.socket) -> None:
    """Let the kernel drop every packet for a socket before it sees it (SO_ATTACH_FILTER).

    A listening socket answers no connection, and a UDP socket fills no queue. A classic filter
    of one instruction; see socket(7).
    """
    program = array("B", _RETURN_ZERO_BYTES)
    address, _ = program.buffer_info()
    request = struct.pack("@HP", 1, address)  # struct sock_fprog
    holder.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, request)
