"""Links, addresses and routes: the rtnetlink messages that drivers need (rtnetlink(7)).

Functions whose name is a verb give a message to send; ``read_…`` and ``find_…`` ask the kernel.
Numbers are those of ``include/uapi/linux/if_link.h``, ``if_addr.h`` and ``rtnetlink.h``.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Sequence
from ipaddress import ip_address, ip_interface, ip_network

from msgspec import Struct

from ..model import Address, Interface, Subnet
from .netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Message,
    Netlink,
    NetlinkError,
    attribute,
    attributes,
    nested,
    text,
    u8,
    u32,
)

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26

IFF_UP = 0x1
PORT_DISABLED = 0
"""The state of a bridge's port that passes nothing (BR_STATE_DISABLED)."""
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER = 1, 3, 4, 5, 10
_IFLA_OPERSTATE, _OPERSTATE_UP = 16, 6
_IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_AF_SPEC, _IFLA_GROUP, _IFLA_NET_NS_FD = 18, 20, 26, 27, 28
_INET6_ADDRESS_GENERATION, _GENERATE_NONE = 8, 1
_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS = 29, 1 << 3
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 1, 2, 4, 5
_VETH_INFO_PEER = 1
_BR_FORWARD_DELAY, _BR_STP_STATE, _BR_MCAST_SNOOPING = 1, 5, 23
_BRPORT_STATE, _BRPORT_HAIRPIN, _BRPORT_ISOLATED = 1, 4, 33
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS = 1, 2, 4, 8
_IFA_F_NODAD = 0x02
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_TABLE = 1, 4, 5, 15
_RT_TABLE_MAIN, _RTPROT_BOOT, _RTN_UNICAST = 254, 3, 1
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253
_RTM_F_CLONED = 0x200
_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_RTMSG = struct.Struct("=BBBBBBBBI")


class Link(Struct, frozen=True):
    """A network device as the kernel shows it; *kind* is ``"bridge"``, ``"veth"``, … or empty.

    *running* tells that it is up and has its carrier, and that the kernel has acted on it (RFC
    2863). *port_state* is that of a bridge's port (:data:`PORT_DISABLED`, …), None of anything
    else.
    """

    index: int
    name: str
    kind: str
    up: bool
    mtu: int
    mac_address: str
    master: int
    group: int
    alias: str
    isolated: bool
    hairpin: bool
    running: bool = False
    port_state: int | None = None


class RouteEntry(Struct, frozen=True):
    """A route of the main table; without *gateway* it is on-link."""

    destination: Subnet
    gateway: Address | None
    device: int


# --- links --------------------------------------------------------------------------------------


def mac_bytes(mac_address: str) -> bytes:
    return bytes.fromhex(mac_address.replace(":", ""))


def _ifinfo(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return _IFINFO.pack(socket.AF_UNSPEC, 0, index, flags, change)


def _settings(mtu: int | None, mac_address: str | None) -> bytes:
    parts = []
    if mtu:
        parts.append(u32(_IFLA_MTU, mtu))
    if mac_address:
        parts.append(attribute(_IFLA_ADDRESS, mac_bytes(mac_address)))
    return b"".join(parts)


def create_bridge(name: str, *, mtu: int | None = None, mac_address: str | None = None) -> Message:
    """Make a bridge that is up, without spanning tree, forwarding at once.

    Without multicast snooping: nobody queries on such a bridge, so it floods either way, and
    each port that comes up would restart the timers of all others.
    """
    choices = (u32(_BR_FORWARD_DELAY, 0), u32(_BR_STP_STATE, 0), u8(_BR_MCAST_SNOOPING, 0))
    data = nested(_INFO_DATA, *choices)
    body = (
        _ifinfo(flags=IFF_UP, change=IFF_UP)
        + text(_IFLA_IFNAME, name)
        + _settings(mtu, mac_address)
        + nested(_IFLA_LINKINFO, text(_INFO_KIND, "bridge"), data)
    )
    return Message(RTM_NEWLINK, body, NLM_F_CREATE | NLM_F_EXCL)


def create_veth(
    name: str,
    peer: str,
    peer_namespace: int,
    *,
    mtu: int | None = None,
    peer_mac_address: str | None = None,
    group: int = 0,
) -> Message:
    """Make a veth pair, both ends down; *peer* comes into being in the namespace of a descriptor.

    A link that is made in place and moved costs 18 ms more (``synchronize_net``).
    """
    peer_attributes = (
        _ifinfo()
        + text(_IFLA_IFNAME, peer)
        + u32(_IFLA_NET_NS_FD, peer_namespace)
        + _settings(mtu, peer_mac_address)
    )
    data = nested(_INFO_DATA, attribute(_VETH_INFO_PEER, peer_attributes))
    body = (
        _ifinfo()
        + text(_IFLA_IFNAME, name)
        + _settings(mtu, None)
        + (u32(_IFLA_GROUP, group) if group else b"")
        + nested(_IFLA_LINKINFO, text(_INFO_KIND, "veth"), data)
    )
    return Message(RTM_NEWLINK, body, NLM_F_CREATE | NLM_F_EXCL)


def set_bridge_port(
    name: str, *, isolated: bool | None = None, hairpin: bool | None = None, up: bool = True
) -> Message:
    """Change a port of a bridge, known by name so that it may be created in the same send."""
    choices = [
        u8(kind, int(value))
        for kind, value in ((_BRPORT_ISOLATED, isolated), (_BRPORT_HAIRPIN, hairpin))
        if value is not None
    ]
    info = nested(
        _IFLA_LINKINFO, text(_INFO_SLAVE_KIND, "bridge"), nested(_INFO_SLAVE_DATA, *choices)
    )
    flags = IFF_UP if up else 0
    return Message(RTM_NEWLINK, _ifinfo(0, flags, flags) + text(_IFLA_IFNAME, name) + info)


def set_link(
    name: str,
    *,
    up: bool | None = None,
    mtu: int | None = None,
    alias: str | None = None,
    group: int | None = None,
    master: int | None = None,
) -> Message:
    """Change a link, known by name; what is None stays."""
    flags = IFF_UP if up else 0
    body = _ifinfo(0, flags, IFF_UP if up is not None else 0) + text(_IFLA_IFNAME, name)
    body += _settings(mtu, None)
    if alias is not None:
        body += text(_IFLA_IFALIAS, alias)
    if group is not None:
        body += u32(_IFLA_GROUP, group)
    if master is not None:
        body += u32(_IFLA_MASTER, master)
    return Message(RTM_NEWLINK, body)


def generate_no_address(name: str) -> Message:
    """Keep the kernel from giving a link an IPv6 address of its own when it comes up.

    EAFNOSUPPORT where there is no IPv6.
    """
    mode = u8(_INET6_ADDRESS_GENERATION, _GENERATE_NONE)
    specific = nested(_IFLA_AF_SPEC, nested(socket.AF_INET6, mode))
    return Message(RTM_NEWLINK, _ifinfo() + text(_IFLA_IFNAME, name) + specific)


def delete_link(name: str) -> Message:
    return Message(RTM_DELLINK, _ifinfo() + text(_IFLA_IFNAME, name))


def delete_group(group: int) -> Message:
    """Delete every link of a group in one go (1 ms each instead of 16 one by one)."""
    return Message(RTM_DELLINK, _ifinfo() + u32(_IFLA_GROUP, group))


def read_links(netlink: Netlink) -> Sequence[Link]:
    """Return every link of the socket's namespace."""
    body = _ifinfo() + u32(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)
    return [_link(answer) for answer in netlink.dump(Message(RTM_GETLINK, body))]


def find_link(netlink: Netlink, name: str) -> Link | None:
    """Return the link called *name*, or None."""
    body = _ifinfo() + text(_IFLA_IFNAME, name)
    body += u32(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)
    try:
        return _link(netlink.get(Message(RTM_GETLINK, body)))
    except NetlinkError as error:
        if error.errno == errno.ENODEV:
            return None
        raise


def _link(message: Message) -> Link:
    _, _, index, flags, _ = _IFINFO.unpack_from(message.body)
    found = attributes(message.body, _IFINFO.size)
    info = attributes(found.get(_IFLA_LINKINFO, b""))
    port: dict[int, bytes] = {}
    if _string(info.get(_INFO_SLAVE_KIND, b"")) == "bridge":
        port = attributes(info.get(_INFO_SLAVE_DATA, b""))
    return Link(
        index=index,
        name=_string(found.get(_IFLA_IFNAME, b"")),
        kind=_string(info.get(_INFO_KIND, b"")),
        up=bool(flags & IFF_UP),
        mtu=_number(found.get(_IFLA_MTU)),
        mac_address=found.get(_IFLA_ADDRESS, b"").hex(":"),
        master=_number(found.get(_IFLA_MASTER)),
        group=_number(found.get(_IFLA_GROUP)),
        alias=_string(found.get(_IFLA_IFALIAS, b"")),
        isolated=bool(_number(port.get(_BRPORT_ISOLATED))),
        hairpin=bool(_number(port.get(_BRPORT_HAIRPIN))),
        running=_number(found.get(_IFLA_OPERSTATE)) == _OPERSTATE_UP,
        port_state=_number(port[_BRPORT_STATE]) if _BRPORT_STATE in port else None,
    )


def _string(raw: bytes) -> str:
    return os.fsdecode(raw.rstrip(b"\0"))


def _number(raw: bytes | None) -> int:
    return int.from_bytes(raw, "little" if struct.pack("=H", 1)[0] else "big") if raw else 0


# --- addresses ----------------------------------------------------------------------------------


def _family(version: int) -> int:
    return socket.AF_INET if version == 4 else socket.AF_INET6


def _address_body(index: int, interface: Interface) -> bytes:
    packed = interface.ip.packed
    body = _IFADDR.pack(
        _family(interface.version), interface.network.prefixlen, 0, _SCOPE_UNIVERSE, index
    )
    return body + attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)


def add_address(index: int, interface: Interface) -> Message:
    """Give the link *index* an address; one that it has already is no error.

    IPv6 addresses are usable at once: whoever assigns them knows that they are unique.
    """
    body = _address_body(index, interface)
    if interface.version == 6:
        body += u32(_IFA_FLAGS, _IFA_F_NODAD)
    elif interface.network.prefixlen < 31:
        body += attribute(_IFA_BROADCAST, interface.network.broadcast_address.packed)
    return Message(RTM_NEWADDR, body, NLM_F_CREATE | NLM_F_REPLACE)


def delete_address(index: int, interface: Interface) -> Message:
    return Message(RTM_DELADDR, _address_body(index, interface))


def read_addresses(netlink: Netlink, index: int = 0) -> Sequence[Interface]:
    """Return the addresses of one link, or (0) of all."""
    body = _IFADDR.pack(socket.AF_UNSPEC, 0, 0, 0, index)
    found = []
    for answer in netlink.dump(Message(RTM_GETADDR, body)):
        family, prefix_length, _, _, link = _IFADDR.unpack_from(answer.body)
        if family not in (socket.AF_INET, socket.AF_INET6) or index not in (0, link):
            continue
        parts = attributes(answer.body, _IFADDR.size)
        packed = parts.get(_IFA_LOCAL) or parts[_IFA_ADDRESS]
        found.append(ip_interface((packed, prefix_length)))
    return found


# --- routes -------------------------------------------------------------------------------------


def add_route(
    destination: Subnet, index: int, gateway: Address | None = None, *, replace: bool = True
) -> Message:
    """Add a route to the main table.

    One to the same destination is replaced, or makes this EEXIST.
    """
    packed = destination.network_address.packed if destination.prefixlen else b""
    body = _RTMSG.pack(
        _family(destination.version), destination.prefixlen, 0, 0, _RT_TABLE_MAIN, _RTPROT_BOOT,
        _SCOPE_UNIVERSE if gateway or destination.version == 6 else _SCOPE_LINK, _RTN_UNICAST, 0,
    )  # fmt: skip
    body += attribute(_RTA_DST, packed) if packed else b""
    body += attribute(_RTA_GATEWAY, gateway.packed) if gateway else b""
    flags = NLM_F_CREATE | (NLM_F_REPLACE if replace else NLM_F_EXCL)
    return Message(RTM_NEWROUTE, body + u32(_RTA_OIF, index), flags)


def read_routes(netlink: Netlink) -> Sequence[RouteEntry]:
    """Return the unicast routes of the main table, IPv4 and IPv6."""
    found = []
    for family in (socket.AF_INET, socket.AF_INET6):
        body = _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
        for answer in netlink.dump(Message(RTM_GETROUTE, body)):
            entry = _route(answer)
            if entry is not None:
                found.append(entry)
    return found


def _route(message: Message) -> RouteEntry | None:
    family, length, _, _, table, _, _, kind, flags = _RTMSG.unpack_from(message.body)
    parts = attributes(message.body, _RTMSG.size)
    table = _number(parts.get(_RTA_TABLE)) or table
    if table != _RT_TABLE_MAIN or kind != _RTN_UNICAST or flags & _RTM_F_CLONED:
        return None
    size = 4 if family == socket.AF_INET else 16
    destination = ip_network((parts.get(_RTA_DST, bytes(size)), length))
    gateway = ip_address(parts[_RTA_GATEWAY]) if _RTA_GATEWAY in parts else None
    return RouteEntry(destination, gateway, _number(parts.get(_RTA_OIF)))
