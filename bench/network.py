"""What the default network costs: an endpoint with a port, and a container on it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from stowage import Engine
from stowage.model import Endpoint, Sandbox
from stowage.net.endpoints import EndpointRequest
from stowage.net.networks import Networks
from stowage.net.port_specs import parse_publishes
from stowage.net.ports import Reservation, reserve
from stowage.net.sandbox import sandbox_for

from .measure import Figure, Limit, Side, compare

#: A bridge takes 1,023 ports (``BR_PORT_BITS``).
MANY = 1_000
_NEIGHBOURS = 5
_BY_HAND = "ip -batch, nsenter ip -batch and nft -f"


class NetworkBench:
    """Endpoints on the default bridge in a warm process, as the engine makes them."""

    def __init__(self, place: Path, rounds: int) -> None:
        self.place = place
        self.rounds = rounds

    def figures(self) -> Iterator[Figure]:
        """Yield the figures of an attachment, by the number of those that are there."""
        with Engine(self.place / "network", storage_driver="vfs") as engine, ExitStack() as stack:
            fleet = _Fleet(engine.networks, stack)
            yield self._one(fleet)
            attached, detached = _all(fleet, range(1, MANY + 1))
        yield Figure(
            f"the {MANY:,}th attached, with a port",
            "the 10th",
            Limit(1.2),
            attached[-2 * _NEIGHBOURS :],
            attached[10 - _NEIGHBOURS : 10 + _NEIGHBOURS],
        )
        yield Figure(
            f"one of {MANY:,} detached, as the caller sees it",
            "one of the last ten",
            Limit(extra=0.005),
            detached,
            detached[-2 * _NEIGHBOURS :],
        )

    def _one(self, fleet: _Fleet) -> Figure:
        by_hand, number = _ByHand(), MANY + 1

        def clear() -> None:
            fleet.detach(number)
            fleet.forget(number)

        return compare(
            "an endpoint attached, with a port",
            Side("stowage", partial(fleet.attach, number), partial(fleet.prepare, number), clear),
            Side(_BY_HAND, by_hand.attach, by_hand.prepare, by_hand.detach),
            rounds=self.rounds * 3,
            limit=Limit(extra=0.005),
        )


def _all(fleet: _Fleet, numbers: range) -> tuple[list[float], list[float]]:
    """Attach that many one after the other, then detach them; return the seconds of each."""
    attached = [
        Side("", partial(fleet.attach, number), partial(fleet.prepare, number)).seconds()
        for number in numbers
    ]
    detached = [
        Side("", partial(fleet.detach, number), after=partial(fleet.forget, number)).seconds()
        for number in reversed(numbers)
    ]
    return attached, detached


class _Fleet:
    """Endpoints in sandboxes of their own, each with one port."""

    def __init__(self, networks: Networks, stack: ExitStack) -> None:
        self._networks = networks
        self._network = networks.resolve("bridge")
        self._stack = stack
        self._sandboxes: dict[int, tuple[Sandbox, ExitStack]] = {}
        self._made: dict[int, tuple[Endpoint, Reservation]] = {}

    def prepare(self, number: int) -> None:
        """Make a sandbox."""
        stack = self._stack.enter_context(ExitStack())
        sandbox = stack.enter_context(sandbox_for(f"{number:064x}", "private"))
        self._sandboxes[number] = sandbox, stack

    def attach(self, number: int) -> None:
        """Reserve a port and put an endpoint into the sandbox."""
        sandbox, stack = self._sandboxes[number]
        reservation = stack.enter_context(reserve(parse_publishes([f"{20_000 + number}:80"])))
        asked = EndpointRequest(ports=reservation.mappings)
        endpoint = self._networks.connect(self._network, sandbox.container_id, asked)
        self._networks.join(endpoint, sandbox)
        self._networks.publish(endpoint)
        self._made[number] = endpoint, reservation

    def detach(self, number: int) -> None:
        """Detach it as the engine does when its container has ended: the kernel reaps the link
        with the sandbox."""
        endpoint, reservation = self._made.pop(number)
        self._networks.disconnect(endpoint)
        reservation.close()

    def forget(self, number: int) -> None:
        """Give the sandbox up."""
        self._sandboxes.pop(number)[1].close()


class _ByHand:
    """The same by the tools that an administrator has."""

    def __init__(self) -> None:
        self._holder: subprocess.Popen[bytes] | None = None
        _batch("ip", "link add byhand0 type bridge\nlink set byhand0 up\n"
               "address add 10.199.0.1/16 dev byhand0\n")  # fmt: skip
        _nft("add table inet byhand\n"
             "add map inet byhand ports { type inet_service : ipv4_addr . inet_service; }\n"
             "add chain inet byhand pre { type nat hook prerouting priority -100; }\n"
             "add rule inet byhand pre dnat ip to tcp dport map @ports\n")  # fmt: skip

    def prepare(self) -> None:
        """Start who holds the namespace; it is there when it says so."""
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo; exec sleep 60"], stdout=subprocess.PIPE
        )
        assert self._holder.stdout is not None
        with self._holder.stdout as said:
            said.readline()

    def attach(self) -> None:
        assert self._holder is not None
        holder = self._holder.pid
        _batch("ip", f"link add byhand1 type veth peer name eth0 netns {holder}\n"
               "link set byhand1 master byhand0 up\n")  # fmt: skip
        _batch(f"nsenter --net=/proc/{holder}/ns/net ip",
               "address add 10.199.0.2/16 dev eth0\nlink set eth0 up\n"
               "route add default via 10.199.0.1\n")  # fmt: skip
        _nft("add element inet byhand ports { 19999 : 10.199.0.2 . 80 }\n")

    def detach(self) -> None:
        _nft("delete element inet byhand ports { 19999 }\n")
        _batch("ip", "link delete byhand1\n")
        assert self._holder is not None
        self._holder.kill()
        self._holder.wait()
        self._holder = None


def _batch(command: str, lines: str) -> None:
    subprocess.run([*command.split(), "-batch", "-"], input=lines.encode(), check=True)


def _nft(lines: str) -> None:
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin"
    subprocess.run(
        ["nft", "-f", "-"], input=lines.encode(), check=True, env={**os.environ, "PATH": path}
    )
