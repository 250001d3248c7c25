"""The veth pair of one endpoint: made, dressed inside the sandbox, plugged into the bridge.

::

    bridge ── stw<hash> ═ veth ═ eth0 (inside the sandbox from the start)

The links of a root carry a group made of its id, by which they are told from those of others.
"""

from __future__ import annotations

import errno
import hashlib
import socket
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_interface, ip_network

from stowage import effect
from stowage.errors import AlreadyExists, FailedPrecondition
from stowage.linux.namespaces import (
    in_network_namespace,
)
from stowage.linux.netlink import Message, Netlink, NetlinkError
from stowage.linux.rtnetlink import (
    PORT_DISABLED,
    Link,
    add_address,
    add_route,
    create_veth,
    delete_group,
    delete_link,
    find_link,
    generate_no_address,
    read_addresses,
    read_routes,
    set_bridge_port,
    set_link,
)
from stowage.model import (
    Address,
    Endpoint,
    Interface,
    Sandbox,
    Subnet,
)

from . import _bridge_device, _sysctl

_READY_SECONDS = 1.0


def link_group(root_id: str) -> int:
    """Return the link group (32 bits, never 0) that marks the links of a root."""
    return int.from_bytes(hashlib.sha256(root_id.encode()).digest()[:4], "big") >> 1 | 1


class Pair:
    """The veth pair of one endpoint."""

    def __init__(
        self, name: str, endpoint: Endpoint, bridge: Link, group: int, *, isolated: bool
    ) -> None:
        self.name = name
        self.endpoint = endpoint
        self.bridge = bridge
        self.group = group
        self.isolated = isolated
        self.inner = endpoint.interface or "eth0"

    def join(self, host: Netlink, sandbox: Sandbox, gateways: Sequence[Address]) -> None:
        """Make the pair, dress the far end, plug the near one in; *host* is a socket outside.

        The host's end comes up last: the bridge then enables its port once, with the carrier
        on, instead of once without and once more from a work queue.
        """
        self._create(host, sandbox)
        # a port of a bridge speaks no IPv6 itself, and each that does slows all others down
        _sysctl.write_optional(f"ipv6/conf/{self.name}/disable_ipv6", "1")
        with in_network_namespace(sandbox.descriptor, Netlink) as inside:
            link = find_link(inside, self.inner)
            if link is None:
                raise FailedPrecondition(f"the link {self.inner} vanished from the sandbox")
            _dress(inside, link, self.endpoint, gateways)
            self._plug(host)
            _wait(inside, self.inner, lambda link: link.running)
            _wait(host, self.name, lambda link: link.port_state != PORT_DISABLED)
        if not self.bridge.running:  # a bridge without ports has no carrier
            _wait(host, self.bridge.name, lambda link: link.running)
        _announce(link, self.endpoint, sandbox)

    def _create(self, host: Netlink, sandbox: Sandbox) -> None:
        message = create_veth(
            self.name,
            self.inner,
            sandbox.descriptor,
            mtu=self.bridge.mtu,
            peer_mac_address=self.endpoint.mac_address,
            group=self.group,
        )
        try:
            host.change("link.create", [message], link=self.name)
        except NetlinkError as error:
            if error.errno != errno.EEXIST:
                raise
            self._replace(host, message)

    def _replace(self, host: Netlink, message: Message) -> None:
        """A link of ours with that name is what a kill left; inside, a name may be taken."""
        stale = find_link(host, self.name)
        if stale is None or stale.group != self.group:
            taken = self.name if stale else self.inner
            raise AlreadyExists("network device", taken)
        delete_links(host, [self.name], self.group)
        try:
            host.change("link.create", [message], link=self.name)
        except NetlinkError as error:
            if error.errno == errno.EEXIST:
                raise AlreadyExists("network device", self.inner) from error
            raise

    def _plug(self, host: Netlink) -> None:
        """Make the host's end a port of the bridge and set it up, isolated before it is up."""
        messages = [set_link(self.name, master=self.bridge.index)]
        hairpin = _bridge_device.filters_bridged()
        if hairpin or self.isolated:
            messages.append(
                set_bridge_port(self.name, isolated=self.isolated, hairpin=hairpin, up=True)
            )
        else:
            messages[0] = set_link(self.name, master=self.bridge.index, up=True)
        host.change("link.plug", messages, link=self.name)


def _dress(inside: Netlink, link: Link, endpoint: Endpoint, gateways: Sequence[Address]) -> None:
    """Addresses, up, and the way out; a default route that is there already stays.

    By messages alone: a look at /proc/sys/net costs more with every namespace that there is.
    """
    tolerated = {0: errno.EAFNOSUPPORT}
    messages = [generate_no_address(link.name)]
    if any(interface.version == 6 for interface in endpoint.addresses):
        messages.append(add_address(link.index, _link_local(link.mac_address)))
    messages += [add_address(link.index, interface) for interface in endpoint.addresses]
    messages.append(set_link(link.name, up=True))
    for gateway in gateways:
        tolerated[len(messages)] = errno.EEXIST
        everything = _everything(gateway.version)
        messages.append(add_route(everything, link.index, gateway, replace=False))
    for index, number in inside.try_each("sandbox.dress", messages, link=link.name):
        if tolerated.get(index) != number:
            raise NetlinkError(number, f"dress {link.name}", "", index)


def _link_local(mac_address: str) -> Interface:
    """The address that the kernel would have made of the MAC, without its wait (RFC 4291, A)."""
    mac = bytes.fromhex(mac_address.replace(":", ""))
    identifier = bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:]
    return ip_interface((b"\xfe\x80" + bytes(6) + identifier, 64))


def _wait(netlink: Netlink, name: str, ready: Callable[[Link], bool]) -> None:
    """Wait until a link of a pair passes packets on, a moment after both ends are up.

    The kernel acts on the carrier from a work queue (linkwatch), or at once when it is asked for
    the link (6.8). A container that spoke before would lose its first packet and, with it, a
    second. After a second all the same we go on: a bridge may have its reasons.
    """
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        link = find_link(netlink, name)
        if link is None or ready(link):
            return
        time.sleep(0.0005)


def _announce(link: Link, endpoint: Endpoint, sandbox: Sandbox) -> None:
    """Tell neighbours who may know another MAC for the address (RFC 5227, section 3).

    One that is made of the address, as the IPAM's are, cannot be another.
    """
    mac = bytes.fromhex(link.mac_address.replace(":", ""))
    for interface in endpoint.addresses:
        packed = interface.ip.packed
        if interface.version != 4 or mac[2:] == packed:
            continue
        request = b"\0\1\x08\0\6\4\0\1" + mac + packed + bytes(6) + packed
        frame = b"\xff" * 6 + mac + b"\x08\x06" + request
        with (
            effect("address.announce", address=str(interface.ip)),
            in_network_namespace(sandbox.descriptor, _raw_socket) as wire,
        ):
            wire.bind((link.name, 0))
            wire.send(frame)


def _raw_socket() -> socket.socket:
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC)


def _everything(version: int) -> Subnet:
    return ip_network("0.0.0.0/0" if version == 4 else "::/0")


def check_inside(endpoint: Endpoint, gateways: Sequence[Address]) -> list[str]:
    name = endpoint.interface or "eth0"
    with Netlink() as inside:
        link = find_link(inside, name)
        if link is None:
            return [f"the sandbox lacks the link {name}"]
        there = read_addresses(inside, link.index)
        routes = {route.gateway for route in read_routes(inside)
                  if route.destination.prefixlen == 0}  # fmt: skip
    found = [] if link.up else [f"{name} is down in the sandbox"]
    found += [f"{name} lacks {i} in the sandbox" for i in endpoint.addresses if i not in there]
    for gateway in gateways:
        if not any(via and via.version == gateway.version for via in routes):
            found.append(f"the sandbox lacks a default route via {gateway}")
    return found


def delete_links(netlink: Netlink, names: Sequence[str], group: int) -> None:
    """Delete links; several go as one group, for each alone costs a grace period of RCU."""
    if len(names) == 1:
        results = netlink.try_each("link.delete", [delete_link(names[0])], link=names[0])
        _raise_unless_gone(results)
        return
    doomed = group ^ 0x40000000
    moved = [set_link(name, group=doomed) for name in names]
    _raise_unless_gone(netlink.try_each("link.regroup", moved, names=names))
    _raise_unless_gone(netlink.try_each("link.delete", [delete_group(doomed)], names=names))


def _raise_unless_gone(failures: Sequence[tuple[int, int]]) -> None:
    for index, number in failures:
        if number != errno.ENODEV:
            raise NetlinkError(number, "delete links", "", index)
