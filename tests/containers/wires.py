"""What tests look at on the host's network, and a stranger beyond it.

::

    remote 192.0.2.2 ── veth far0 ── host 192.0.2.1 ── stowage0 ── containers
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_interface
from typing import TypeVar

from stowage.containers.model import ContainerRecord
from stowage.linux.namespaces import in_network_namespace, loopback_up, new_network_namespace
from stowage.linux.netlink import Netlink
from stowage.linux.nft import NftSession
from stowage.linux.rtnetlink import (
    add_address,
    create_veth,
    delete_link,
    find_link,
    read_links,
    set_link,
)

from .boxes import Boxes, until

R = TypeVar("R")
HOST, REMOTE = "192.0.2.1", "192.0.2.2"
PATIENCE_SECONDS = 5.0
DISBELIEF_SECONDS = 0.3


def links() -> list[str]:
    """The host's ends of the pairs that roots have made."""
    with Netlink() as netlink:
        return [link.name for link in read_links(netlink) if link.name.startswith("stw")]


def published(boxes: Boxes) -> list[object]:
    """The elements of the root's maps of published ports."""
    session = NftSession()
    try:
        found: list[object] = []
        for name in ("any4", "bound4"):
            shown = session.query(f"list map inet stowage-{boxes.engine.metastore.root_id} {name}")
            found += shown[0]["map"].get("elem", [])
        return found
    finally:
        session.close()


def rows(boxes: Boxes) -> list[tuple[str, ...]]:
    """Endpoints and addresses that are recorded."""
    read = boxes.engine.metastore.read()
    found = [("endpoint", row[0]) for row in read.execute("SELECT id FROM endpoints")]
    return found + [
        ("address", row[0].hex()) for row in read.execute("SELECT address FROM addresses")
    ]


def assert_quiet(boxes: Boxes) -> None:
    """Nothing of any container is left: rows, rules, links (which go a moment later)."""
    assert rows(boxes) == []
    until(lambda: not links(), "the kernel to reap links")
    assert published(boxes) == []
    assert boxes.leftovers() == []


@dataclass(frozen=True)
class Remote:
    """Another machine, on a wire to this one."""

    descriptor: int

    def do(self, function: Callable[[], R]) -> R:
        return in_network_namespace(self.descriptor, function)


@contextmanager
def remote() -> Iterator[Remote]:
    """Give a stranger at REMOTE, to whom this host is HOST."""
    far = new_network_namespace()
    try:
        with Netlink() as netlink:
            netlink.change("t", [create_veth("far0", "eth0", far)])
        _dress("far0", HOST)
        in_network_namespace(far, loopback_up)
        in_network_namespace(far, lambda: _dress("eth0", REMOTE))
        yield Remote(far)
        with Netlink() as netlink:
            netlink.change("t", [delete_link("far0")])
    finally:
        os.close(far)


def _dress(name: str, address: str) -> None:
    with Netlink() as netlink:
        link = find_link(netlink, name)
        assert link is not None
        netlink.change(
            "t", [add_address(link.index, ip_interface(f"{address}/24")), set_link(name, up=True)]
        )


@contextmanager
def network_of(boxes: Boxes, record: ContainerRecord) -> Iterator[int]:
    """Give the network namespace of a running container."""
    descriptor = os.open(f"/proc/{boxes.containers.pid(record.id)}/ns/net", os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _socket(where: int, protocol: str, patience_seconds: float) -> socket.socket:
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    made = in_network_namespace(where, lambda: socket.socket(socket.AF_INET, kind))
    made.settimeout(patience_seconds)
    return made


def serving(where: int, protocol: str, port: int) -> socket.socket:
    """Return a server's socket in a namespace."""
    server = _socket(where, protocol, PATIENCE_SECONDS)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("", port))
    if protocol == "tcp":
        server.listen(16)
    return server


def reach(
    client: int,
    address: str,
    port: int,
    server: socket.socket,
    protocol: str = "tcp",
    patience_seconds: float = PATIENCE_SECONDS,
) -> str | None:
    """Send a word there and back; return the client's address as the server saw it, or None."""
    server.settimeout(patience_seconds)
    with _socket(client, protocol, patience_seconds) as near:
        try:
            near.connect((address, port))
            near.sendall(b"ping")
            if protocol == "tcp":
                far, peer = server.accept()
                with far:
                    far.settimeout(patience_seconds)
                    far.sendall(far.recv(10))
            else:
                word, peer = server.recvfrom(10)
                server.sendto(word, peer)
            assert near.recv(10) == b"ping"
        except OSError:
            return None
    return str(peer[0])
