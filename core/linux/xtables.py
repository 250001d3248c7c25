"""The policies of the old ``ip_tables`` and ``ip6_tables``, which nftables does not show.

Read by getsockopt(2) as ``iptables-legacy`` does (``include/uapi/linux/netfilter_ipv4/
ip_tables.h``). A table that does not exist is not brought into being by looking.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

from .nfnetlink import BaseChain
from .syscalls import check, libc

_GET_INFO, _GET_ENTRIES = 64, 65
_INFO = struct.Struct("=32sI5I5III")
_CHAINS = {1: ("input", "INPUT"), 2: ("forward", "FORWARD")}
_VERDICT_DROP = -1  # -NF_DROP - 1
_STANDARD_TARGET_BYTES = 32
#: family: (names of its tables, address family, socket level, offset of target_offset)
_FAMILIES = {
    "ip": ("ip_tables_names", socket.AF_INET, socket.IPPROTO_IP, 88),
    "ip6": ("ip6_tables_names", socket.AF_INET6, socket.IPPROTO_IPV6, 140),
}


def legacy_base_chains() -> Sequence[BaseChain]:
    """Return INPUT and FORWARD of the legacy ``filter`` tables, where those exist."""
    found: list[BaseChain] = []
    for family, (names, address_family, level, target_field) in _FAMILIES.items():
        try:
            tables = Path("/proc/thread-self/net", names).read_text().split()
        except OSError:  # no such module, or not ours to look at
            continue
        if "filter" in tables:
            with socket.socket(address_family, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
                found += _policies(family, raw.fileno(), level, target_field)
    return found


def _policies(family: str, descriptor: int, level: int, target_field: int) -> list[BaseChain]:
    raw = _getsockopt(descriptor, level, _GET_INFO, b"filter", _INFO.size)
    *_, size = info = _INFO.unpack(raw)
    underflow = info[7:12]
    head = struct.pack("=32sI4x", b"filter", size)
    entries = _getsockopt(descriptor, level, _GET_ENTRIES, head, len(head) + size)[len(head) :]
    chains = []
    for number, (hook, name) in _CHAINS.items():
        start = underflow[number]
        (target,) = struct.unpack_from("=H", entries, start + target_field)
        (verdict,) = struct.unpack_from("=i", entries, start + target + _STANDARD_TARGET_BYTES)
        drops = verdict == _VERDICT_DROP
        chains.append(BaseChain(family, "filter", name, hook, "filter", 0, drops, legacy=True))
    return chains


def _getsockopt(descriptor: int, level: int, option: int, request: bytes, size: int) -> bytes:
    buffer = ctypes.create_string_buffer(request, size)
    length = ctypes.c_uint32(size)
    check(
        libc.getsockopt(descriptor, level, option, buffer, ctypes.byref(length)),
        "getsockopt " + os.fsdecode(request[:32].rstrip(b"\0")),
    )
    return buffer.raw
