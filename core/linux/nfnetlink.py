"""What the kernel's packet filter holds, by questions that cost microseconds (nfnetlink).

Only the shape is read: tables, base chains, their hooks and policies, never the rules.
Numbers are those of ``include/uapi/linux/netfilter/nf_tables.h``.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from .netlink import NETLINK_NETFILTER, Message, Netlink, NetlinkError, attributes, text

_NFT = 10 << 8
_GET_CHAIN = _NFT | 4
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE = 1, 3, 4, 5, 7
_HOOK_NUMBER, _HOOK_PRIORITY = 1, 2
_NF_DROP = 0
_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
_HOOKS = ("prerouting", "input", "forward", "output", "postrouting")


class BaseChain(Struct, frozen=True):
    """A chain that the kernel enters by itself; *drops* tells that its policy is drop.

    *legacy* marks a chain of the old xtables, which ``nft`` cannot see.
    """

    family: str
    table: str
    name: str
    hook: str
    type: str
    priority: int
    drops: bool
    legacy: bool = False

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}" + (" (legacy)" if self.legacy else "")


def base_chains() -> Sequence[BaseChain]:
    """Return the base chains of all layer-3 tables in the calling thread's namespace.

    Raises:
        OSError: EPERM without CAP_NET_ADMIN; EPROTONOSUPPORT or ENOENT without nftables.
    """
    with Netlink(NETLINK_NETFILTER) as netlink:
        answers = netlink.dump(Message(_GET_CHAIN, struct.pack("=BBH", 0, 0, 0)))
    return [chain for answer in answers if (chain := _base_chain(answer)) is not None]


def _base_chain(message: Message) -> BaseChain | None:
    family = _FAMILIES.get(message.body[0], "")
    found = attributes(message.body, 4)
    if _CHAIN_HOOK not in found or family not in ("ip", "ip6", "inet"):
        return None
    hook = attributes(found[_CHAIN_HOOK])
    (number,) = struct.unpack(">I", hook[_HOOK_NUMBER])
    (priority,) = struct.unpack(">i", hook[_HOOK_PRIORITY])
    if number >= len(_HOOKS):  # ingress
        return None
    policy = found.get(_CHAIN_POLICY)
    return BaseChain(
        family=family,
        table=_string(found[_CHAIN_TABLE]),
        name=_string(found[_CHAIN_NAME]),
        hook=_HOOKS[number],
        type=_string(found.get(_CHAIN_TYPE, b"")),
        priority=priority,
        drops=policy is not None and struct.unpack(">I", policy)[0] == _NF_DROP,
    )


def chain_exists(family: Literal["inet", "ip", "ip6"], table: str, name: str) -> bool:
    """Whether a table with that chain exists in the calling thread's namespace."""
    number = next(key for key, value in _FAMILIES.items() if value == family)
    body = struct.pack("=BBH", number, 0, 0) + text(_CHAIN_TABLE, table) + text(_CHAIN_NAME, name)
    with Netlink(NETLINK_NETFILTER) as netlink:
        try:
            netlink.get(Message(_GET_CHAIN, body))
        except NetlinkError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
    return True


def _string(raw: bytes) -> str:
    return os.fsdecode(raw.rstrip(b"\0"))
