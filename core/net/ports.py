"""Host ports: chosen, and reserved by sockets that the container's monitor inherits.

A published port is redirected before any socket sees its packets, so the socket that reserves it
never has to answer; it makes the kernel refuse the port to everybody else, and frees it with its
last holder, however that dies. A TCP reservation listens (two sockets that only bind do not
exclude each other), a UDP one is bound; both drop whatever reaches them all the same.

All or nothing: a request is reserved on the same port at every address, or the whole fails.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import secrets
import socket
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path

from msgspec import Struct

from ..closing import Closing
from ..effects import effect
from ..errors import Busy, NotSupported, Unavailable, from_os_error
from ..linux.process import describe
from ..linux.sockets import drop_everything
from ..model import Address, PortMapping, Transport
from .port_specs import PortRequest

#: The container that published a port, in words for the error, if it is one of ours.
Owner = Callable[[PortMapping], str | None]

_KINDS = {
    "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "sctp": (socket.SOCK_STREAM, socket.IPPROTO_SCTP),
}
_UNSPECIFIED = {4: ip_address("0.0.0.0"), 6: ip_address("::")}
_TCP_LISTEN = "0A"
_FALLBACK_RANGE = (49153, 65535)


class Reservation(Struct, Closing):
    """Ports that are held as long as one of *sockets* is open anywhere.

    ``descriptors`` are what the monitor inherits; closing the reservation here does not free
    what it holds there.
    """

    mappings: tuple[PortMapping, ...]
    sockets: list[socket.socket]

    @property
    def descriptors(self) -> tuple[int, ...]:
        return tuple(holder.fileno() for holder in self.sockets)

    def close(self) -> None:
        """Close the sockets of this process. Idempotent."""
        while self.sockets:
            with effect("port.release"):
                self.sockets.pop().close()


def reserve(
    requests: Sequence[PortRequest],
    *,
    versions: Sequence[int] = (4,),
    default_addresses: Sequence[Address] = (),
    owner: Owner = lambda mapping: None,
) -> Reservation:
    """Reserve all *requests* in the calling thread's network namespace, or none.

    *versions* are the address families that are redirected to the container; a request without
    an address gets those of *default_addresses* in them, else every address of each. *owner*
    names the container that holds a port, for the error.

    Raises:
        Busy: if a port is in use, in Docker's words, naming the container or the process.
        Unavailable: if no port of a range is free.
        NotSupported: for an address family that is not redirected, or a protocol that this
            kernel lacks.
        StowageError: for an address that is not this host's.
    """
    reservation = Reservation((), [])
    mappings: list[PortMapping] = []
    try:
        # fixed ports first, lest a range takes one of them
        for request in sorted(requests, key=lambda request: not request.fixed):
            addresses = _addresses(request, versions, default_addresses)
            port, sockets = _reserve_one(request, addresses, owner)
            reservation.sockets += sockets
            mappings += [
                PortMapping(request.protocol, request.container_port, port, address)
                for address in addresses
            ]
    except BaseException as error:
        count = len(reservation.sockets)
        reservation.close()
        if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):
            raise _too_many(requests, count) from error
        raise
    reservation.mappings = tuple(sorted(mappings, key=_order))
    return reservation


def _too_many(requests: Sequence[PortRequest], held: int) -> Unavailable:
    limit, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Unavailable(
        f"cannot publish {len(requests)} ports: no socket could be opened after {held}",
        details="each published port is held by a socket for every address that it is on; "
        f"a process of ours may have {limit} files open (RLIMIT_NOFILE, hard limit {hard})",
        resolution="raise the limit with 'ulimit -n NUMBER', or publish fewer ports",
    )


def _order(mapping: PortMapping) -> tuple[int, str, int, int]:
    return (
        mapping.container_port, mapping.protocol, mapping.host_address.version, mapping.host_port,
    )  # fmt: skip


def _addresses(
    request: PortRequest, versions: Sequence[int], defaults: Sequence[Address]
) -> list[Address]:
    if request.host_address is not None:
        if request.host_address.version not in versions:
            family = f"IPv{request.host_address.version}"
            raise NotSupported(
                f"cannot publish {request}",
                details=f"the container has no {family} address",
                resolution=f"use a network with an {family} subnet, or another host address",
            )
        return [request.host_address]
    found = [address for address in defaults if address.version in versions]
    return found or [_UNSPECIFIED[version] for version in versions]


def _reserve_one(
    request: PortRequest, addresses: Sequence[Address], owner: Owner
) -> tuple[int, list[socket.socket]]:
    """Return the port and one socket for each address."""
    for port in _candidates(request):
        held: list[socket.socket] = []
        try:
            for address in addresses:
                mapping = PortMapping(request.protocol, request.container_port, port, address)
                held.append(_hold(mapping))
            return port, held
        except _Taken as taken:
            _close(held)
            if request.fixed:
                raise _in_use(taken.mapping, owner) from taken
        except BaseException:
            _close(held)
            raise
    first, last = request.host_ports or ephemeral_range()
    raise Unavailable(
        f"all ports are allocated: no {request.protocol} port of {first}-{last} is free",
        resolution="publish on a wider range, or stop what uses them",
    )


def _close(sockets: Sequence[socket.socket]) -> None:
    for holder in sockets:
        with effect("port.release"):
            holder.close()


def _candidates(request: PortRequest) -> Iterator[int]:
    """Yield the ports to try: a range from its first, free choice from anywhere in the range.

    What the administrator reserved is skipped where nobody asked for a particular port.
    """
    if request.host_ports is not None:
        yield from range(request.host_ports[0], request.host_ports[1] + 1)
        return
    first, last = ephemeral_range()
    count = last - first + 1
    start = secrets.randbelow(count)  # near 0.1 ms even when most are taken
    reserved = reserved_ports()
    for offset in range(count):
        port = first + (start + offset) % count
        if port not in reserved:
            yield port


def ephemeral_range() -> tuple[int, int]:
    """Return the first and last port that the kernel chooses from (ip(7))."""
    words = _read("ip_local_port_range").split()
    return (int(words[0]), int(words[1])) if len(words) == 2 else _FALLBACK_RANGE


def reserved_ports() -> frozenset[int]:
    """Return ``net.ipv4.ip_local_reserved_ports``: never chosen, but granted when asked for."""
    ports: set[int] = set()
    for part in re.findall(r"\d+(?:-\d+)?", _read("ip_local_reserved_ports")):
        first, _, last = part.partition("-")
        ports.update(range(int(first), int(last or first) + 1))
    return frozenset(ports)


def _read(name: str) -> str:
    try:
        return Path("/proc/sys/net/ipv4", name).read_text()
    except OSError:
        return ""


# --- one socket ---------------------------------------------------------------------------------


class _Taken(Exception):
    """The port of *mapping* is in use; finding out by whom is left to who wants to know."""

    def __init__(self, mapping: PortMapping) -> None:
        super().__init__(str(mapping))
        self.mapping = mapping


def _hold(mapping: PortMapping) -> socket.socket:
    holder = _socket(mapping)
    try:
        with effect("port.reserve", mapping=str(mapping)):
            holder.bind((str(mapping.host_address), mapping.host_port))
            if mapping.protocol != "udp":
                holder.listen(1)
    except OSError as error:
        holder.close()
        if error.errno == errno.EADDRINUSE:
            raise _Taken(mapping) from error
        what = f"cannot publish {mapping}"
        if error.errno == errno.EADDRNOTAVAIL:
            what += f": {mapping.host_address} is not this host's"
        raise from_os_error(error, what) from error
    except BaseException:
        holder.close()
        raise
    return holder


def _socket(mapping: PortMapping) -> socket.socket:
    family = socket.AF_INET if mapping.host_address.version == 4 else socket.AF_INET6
    kind, protocol = _KINDS[mapping.protocol]
    try:
        holder = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
    except OSError as error:
        if error.errno not in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.ESOCKTNOSUPPORT):
            raise
        raise NotSupported(
            f"cannot publish {mapping}",
            details=f"this kernel has no {mapping.protocol.upper()} over"
            f" IPv{mapping.host_address.version}",
        ) from error
    try:
        drop_everything(holder)
        if mapping.protocol != "udp":
            # past connections of the port in TIME_WAIT do not stand in the way
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    except BaseException:
        holder.close()
        raise
    return holder


def _in_use(mapping: PortMapping, owner: Owner) -> Busy:
    address, port = mapping.host_address, mapping.host_port
    shown = f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
    container = owner(mapping)
    if container is not None:
        return Busy(
            f"Bind for {shown} failed: port is already allocated",
            [f"container {container}"],
            resolution="publish on another port, or remove that container",
        )
    return Busy(
        f"listen {mapping.protocol}{address.version} {shown}: bind: address already in use",
        [f"process {describe(pid)}" for pid in holders(mapping)],
        resolution="publish on another port, or stop that process",
    )


# --- who holds a port ----------------------------------------------------------------------------


def holders(mapping: PortMapping) -> list[int]:
    """Return the pids whose sockets hold the port, in this network namespace; best effort."""
    inodes = _inodes(mapping.protocol, mapping.host_port)
    if not inodes:
        return []
    wanted = {f"socket:[{inode}]" for inode in inodes}
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and _holds(f"/proc/{name}/fd", wanted):
            found.append(int(name))
    return found


def _inodes(protocol: Transport, port: int) -> set[int]:
    """Return the socket inodes bound to a local port (/proc/net/tcp and its like, proc(5)).

    Listening ones where there are such, else whatever has the port.
    """
    listening: set[int] = set()
    others: set[int] = set()
    for suffix in ("", "6"):
        try:
            lines = Path(f"/proc/thread-self/net/{protocol}{suffix}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if int(fields[1].rpartition(":")[2], 16) == port:
                (listening if fields[3] == _TCP_LISTEN else others).add(int(fields[9]))
    return listening or others


def _holds(directory: str, wanted: set[str]) -> bool:
    try:
        names = os.listdir(directory)
    except OSError:  # ended meanwhile, or not ours to look at
        return False
    for name in names:
        try:
            if os.readlink(f"{directory}/{name}") in wanted:
                return True
        except OSError:  # closed meanwhile
            continue
    return False
