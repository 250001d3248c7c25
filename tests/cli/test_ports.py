"""The column PORTS and ``port``, against docker-behaviour/ps.txt and port-web.txt."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowage.cli.ports import displayed_ports
from stowage.model import PortMapping


def mapping(text: str) -> PortMapping:
    """``address outside inside protocol``"""
    address, outside, inside, protocol = text.split()
    return PortMapping(protocol, int(inside), int(outside), ip_address(address))  # type: ignore[arg-type]  # a literal


@pytest.mark.parametrize(
    ("ports", "exposed", "cell"),
    [
        ([], [], ""),
        ([], ["90/tcp", "53/udp", "91/tcp"], "53/udp, 90-91/tcp"),
        (["0.0.0.0 32768 9000 tcp", ":: 32768 9000 tcp"], ["9000/tcp"],
         "0.0.0.0:32768->9000/tcp, :::32768->9000/tcp"),
        (["0.0.0.0 5353 53 udp", ":: 5353 53 udp", "0.0.0.0 8080 80 tcp", ":: 8080 80 tcp",
          "127.0.0.1 8443 443 tcp"], [],
         "0.0.0.0:5353->53/udp, :::5353->53/udp, 0.0.0.0:8080->80/tcp, :::8080->80/tcp,"
         " 127.0.0.1:8443->443/tcp"),
        (["0.0.0.0 7000 7000 tcp", "0.0.0.0 7001 7001 tcp", "0.0.0.0 7003 7003 tcp"], ["80/tcp"],
         "0.0.0.0:7000-7001->7000-7001/tcp, 80/tcp, 0.0.0.0:7003->7003/tcp"),
    ],
)  # fmt: skip
def test_ports_are_shown_as_dockers(
    ports: Sequence[str], exposed: Sequence[str], cell: str
) -> None:
    assert displayed_ports([mapping(port) for port in ports], exposed) == cell


@given(st.sets(st.integers(1, 60), max_size=12))
def test_every_port_is_within_one_of_the_ranges_shown(numbers: set[int]) -> None:
    ports = [PortMapping("tcp", number, number, ip_address("0.0.0.0")) for number in numbers]
    shown: list[int] = []
    for part in filter(None, displayed_ports(ports, ()).split(", ")):
        first, _, last = part.partition(":")[2].partition("->")[0].partition("-")
        shown += range(int(first), int(last or first) + 1)

    assert sorted(shown) == sorted(numbers)
