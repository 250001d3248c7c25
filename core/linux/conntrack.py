"""Forgetting tracked UDP flows, so that a port's new meaning holds at once (ctnetlink).

The kernel consults NAT rules for the first packet of a flow only. A client that keeps sending
from one port keeps its flow alive, and with it whatever the port meant before.
Numbers are those of ``include/uapi/linux/netfilter/nfnetlink_conntrack.h``.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Collection
from ipaddress import ip_address

from ..model import Address
from .netlink import (
    NETLINK_NETFILTER,
    Message,
    Netlink,
    NetlinkError,
    attribute,
    attributes,
    nested,
    u8,
    u32,
)

_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2
_TUPLE_ORIGINAL, _TUPLE_REPLY, _FILTER = 1, 2, 25
_TUPLE_IP, _TUPLE_PROTOCOL = 1, 2
_IP_SOURCE = {4: 1, 6: 3}
_PROTOCOL_NUMBER, _DESTINATION_PORT = 1, 3
_FILTER_ORIGINAL, _FILTER_REPLY = 1, 2
_BY_PROTOCOL_NUMBER, _BY_DESTINATION_PORT = 1 << 3, 1 << 5
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


def forget_udp(port: int, version: int, *, unless_answered_by: Collection[Address] = ()) -> int:
    """Delete the UDP flows of an address family whose first packet went to *port*.

    Those whose answers come from one of *unless_answered_by* stay. Returns how many went.
    Without connection tracking in the kernel there is nothing to forget.

    Raises:
        OSError: EPERM without CAP_NET_ADMIN.
    """
    header = struct.pack("=BBH", _FAMILIES[version], 0, 0)
    wanted = nested(
        _TUPLE_ORIGINAL,
        nested(
            _TUPLE_PROTOCOL,
            u8(_PROTOCOL_NUMBER, socket.IPPROTO_UDP),
            attribute(_DESTINATION_PORT, struct.pack(">H", port)),
        ),
    )
    chosen = nested(
        _FILTER,
        u32(_FILTER_ORIGINAL, _BY_PROTOCOL_NUMBER | _BY_DESTINATION_PORT),
        u32(_FILTER_REPLY, 0),
    )
    with Netlink(NETLINK_NETFILTER) as netlink:
        try:
            flows = netlink.dump(Message(_GET, header + wanted + chosen))
        except NetlinkError as error:
            if error.errno in (errno.EINVAL, errno.EPROTONOSUPPORT, errno.EOPNOTSUPP):
                return 0
            raise
        doomed = [
            Message(_DELETE, header + nested(_TUPLE_ORIGINAL, found[_TUPLE_ORIGINAL]))
            for flow in flows
            if (found := attributes(flow.body, 4))
            and _answerer(found[_TUPLE_REPLY], version) not in unless_answered_by
        ]
        if doomed:
            netlink.try_each("conntrack.delete", doomed, port=port)
    return len(doomed)


def _answerer(reply: bytes, version: int) -> Address:
    addresses = attributes(attributes(reply)[_TUPLE_IP])
    return ip_address(addresses[_IP_SOURCE[version]])
