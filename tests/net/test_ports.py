"""Ports are reserved by sockets: exclusive, all or nothing, gone with their last holder."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stowage.errors import Busy, NotSupported, StowageError, Unavailable
from stowage.linux.namespaces import in_network_namespace, new_network_namespace
from stowage.model import PortMapping
from stowage.net.port_specs import PortRequest, conflicts, parse_publish, parse_publishes
from stowage.net.ports import (
    Reservation,
    ephemeral_range,
    reserve,
    reserved_ports,
)

pytestmark = pytest.mark.requires_root


def held(mapping: PortMapping) -> Reservation:
    """Reserve exactly that."""
    port = (mapping.host_port, mapping.host_port)
    address = mapping.host_address
    request = PortRequest(mapping.protocol, mapping.container_port, address, port)
    return reserve([request], versions=[address.version])


R = TypeVar("R")
ANY4, ANY6 = ip_address("0.0.0.0"), ip_address("::")


@pytest.fixture
def on_host() -> Iterator[Callable[[Callable[[], R]], R]]:
    """Run things in a network namespace of this test."""
    descriptor = new_network_namespace()
    yield lambda function: in_network_namespace(descriptor, function)
    os.close(descriptor)


OnHost = Callable[[Callable[[], R]], R]


def publish(*texts: str, **options: object) -> Callable[[], Reservation]:
    return lambda: reserve(parse_publishes(texts), **options)  # type: ignore[arg-type]  # of the tests


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_reserved_port_is_refused_to_everybody_until_released(
    on_host: OnHost[Reservation], protocol: str
) -> None:
    held = on_host(publish(f"8080:80/{protocol}"))
    with pytest.raises(Busy):
        on_host(publish(f"127.0.0.1:8080:81/{protocol}"))
    held.close()
    held.close()

    on_host(publish(f"127.0.0.1:8080:81/{protocol}")).close()


def test_a_reservation_answers_nobody(on_host: OnHost[object]) -> None:
    def run() -> None:
        with (
            reserve(parse_publishes(["8080:80", "8081:81/udp"])),
            socket.socket() as tcp,
            socket.socket(type=socket.SOCK_DGRAM) as udp,
        ):
            tcp.settimeout(0.2)
            udp.settimeout(0.2)
            with pytest.raises(TimeoutError):
                tcp.connect(("127.0.0.1", 8080))
            udp.connect(("127.0.0.1", 8081))
            udp.send(b"x")
            with pytest.raises(TimeoutError):
                udp.recv(1)

    on_host(run)


@given(st.data())
@settings(max_examples=15)
def test_two_mappings_conflict_exactly_where_the_kernel_says(data: st.DataObject) -> None:
    """The same port, protocol and family, on the same or on every address."""
    addresses = [ANY4, ip_address("127.0.0.1"), ip_address("127.0.0.2"), ANY6, ip_address("::1")]
    one, other = (
        PortMapping(
            data.draw(st.sampled_from(["tcp", "udp"])), 80,
            data.draw(st.sampled_from([8080, 8081])), data.draw(st.sampled_from(addresses)),
        )
        for _ in range(2)
    )  # fmt: skip

    def run() -> bool:
        with held(one):
            try:
                held(other).close()
            except Busy:
                return True
        return False

    descriptor = new_network_namespace()
    try:
        assert in_network_namespace(descriptor, run) == conflicts(one, other)
    finally:
        os.close(descriptor)


def test_the_same_port_is_taken_on_every_address_or_on_none(on_host: OnHost[object]) -> None:
    def run() -> None:
        with reserve(parse_publish("80"), versions=(4, 6)) as held:
            four, six = held.mappings
            assert (four.host_address, six.host_address) == (ANY4, ANY6)
            assert four.host_port == six.host_port
        with reserve(parse_publish("[::]:8001:80"), versions=(4, 6)):
            with pytest.raises(Busy):
                reserve(parse_publishes(["8000:80", "8001:81"]), versions=(4, 6))
            reserve(parse_publish("8000:80"), versions=(4, 6)).close()  # nothing was kept
            with reserve(parse_publish("8001-8002:80"), versions=(4, 6)) as held:
                assert {mapping.host_port for mapping in held.mappings} == {8002}

    on_host(run)


def test_a_range_gives_its_first_free_port_and_an_error_when_full(on_host: OnHost[object]) -> None:
    def run() -> None:
        held = []
        for expected in (8000, 8001):
            held.append(reserve(parse_publish("8000-8001:80")))
            assert held[-1].mappings[0].host_port == expected
        with pytest.raises(Unavailable, match="no tcp port of 8000-8001 is free"):
            reserve(parse_publish("8000-8001:80"))
        for reservation in held:
            reservation.close()

    on_host(run)


def test_fixed_ports_come_first_whatever_the_order(on_host: OnHost[object]) -> None:
    def run() -> None:
        with reserve(parse_publishes(["8000-8001:80", "8000:81"])) as held:
            found = [(mapping.host_port, mapping.container_port) for mapping in held.mappings]
            assert found == [(8001, 80), (8000, 81)]

    on_host(run)


def test_free_choice_skips_what_the_administrator_reserved(on_host: OnHost[object]) -> None:
    def run() -> None:
        Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("40000 40005")
        Path("/proc/sys/net/ipv4/ip_local_reserved_ports").write_text("40000-40002,40004")
        assert ephemeral_range() == (40000, 40005)
        assert reserved_ports() == {40000, 40001, 40002, 40004}
        with reserve(parse_publishes(["80", "81"])) as held:
            assert {mapping.host_port for mapping in held.mappings} == {40003, 40005}
            with pytest.raises(Unavailable):
                reserve(parse_publish("82"))
            reserve(parse_publish("40004:83")).close()  # asked for by name

    on_host(run)


def test_every_exposed_port_gets_one_of_its_own(on_host: OnHost[object]) -> None:
    def run() -> None:
        requests = [PortRequest("tcp", port) for port in range(1, 200)]
        with reserve(requests) as held:
            assert len({mapping.host_port for mapping in held.mappings}) == 199

    on_host(run)


def test_a_conflict_names_the_container(on_host: OnHost[object]) -> None:
    def run() -> None:
        with reserve(parse_publish("8080:80")), pytest.raises(Busy) as caught:
            reserve(parse_publish("8080:80"), owner=lambda mapping: "web")
        assert caught.value.brief == "Bind for 0.0.0.0:8080 failed: port is already allocated"
        assert caught.value.holders == ("container web",)

    on_host(run)


def test_a_conflict_names_the_foreign_process(on_host: OnHost[object]) -> None:
    listen = "import socket,sys; s=socket.create_server(('', 8080)); print(); sys.stdin.read()"

    def run() -> None:
        with subprocess.Popen(
            [sys.executable, "-c", listen], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout
            process.stdout.readline()
            with pytest.raises(Busy) as caught:
                reserve(parse_publish("8080:80"))
            assert process.stdin
            process.stdin.close()
        words = "listen tcp4 0.0.0.0:8080: bind: address already in use"
        assert caught.value.brief == words
        assert f"process {process.pid} (" in caught.value.holders[0]
        assert "socket.create_server" in caught.value.holders[0]

    on_host(run)


def test_nothing_is_kept_when_a_port_is_in_use(on_host: OnHost[object]) -> None:
    def run() -> None:
        with reserve(parse_publish("8003:80")):
            before = len(os.listdir("/proc/self/fd"))
            with pytest.raises(Busy):
                reserve(parse_publishes([f"{port}:80" for port in range(8000, 8005)]))
            assert len(os.listdir("/proc/self/fd")) == before

    on_host(run)


def test_more_ports_than_files_may_be_open_are_refused_by_name(on_host: OnHost[object]) -> None:
    """And nothing is kept."""

    def check() -> None:
        before = os.listdir("/proc/self/fd")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(before) + 40, hard))
        try:
            with pytest.raises(Unavailable, match="cannot publish 100 ports") as caught:
                reserve(parse_publish("20000-20099:1-100"))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert "RLIMIT_NOFILE" in str(caught.value)
        assert len(os.listdir("/proc/self/fd")) == len(before)
        reserve(parse_publish("20000:1")).close()

    on_host(check)


def test_a_reservation_lives_as_long_as_an_heir(on_host: OnHost[object]) -> None:
    def run() -> None:
        with reserve(parse_publish("8080:80")) as held:
            heir = subprocess.Popen(
                ["sleep", "60"], pass_fds=held.descriptors, stdout=subprocess.DEVNULL
            )
        with pytest.raises(Busy) as caught:
            reserve(parse_publish("8080:80"))
        heir.kill()
        heir.wait()
        assert f"process {heir.pid} (sleep 60)" in caught.value.holders
        reserve(parse_publish("8080:80")).close()

    on_host(run)


def test_connections_of_the_past_do_not_stand_in_the_way(on_host: OnHost[object]) -> None:
    """The port's connections in TIME_WAIT, after a server on it was stopped."""

    def run() -> None:
        with socket.create_server(("127.0.0.1", 8080)) as server:
            client = socket.create_connection(("127.0.0.1", 8080))
            server.accept()[0].close()
            client.recv(1)
            client.close()
        reserve(parse_publish("8080:80")).close()

    on_host(run)


def test_an_address_that_is_not_ours_or_not_redirected_is_refused(on_host: OnHost[object]) -> None:
    def run() -> None:
        with pytest.raises(StowageError, match=r"203\.0\.113\.5 is not this host's"):
            reserve(parse_publish("203.0.113.5:8080:80"))
        with pytest.raises(NotSupported, match="the container has no IPv6 address"):
            reserve(parse_publish("[::]:8080:80"))

    on_host(run)


def test_the_default_address_of_the_network_holds_where_none_is_given(
    on_host: OnHost[object],
) -> None:
    def run() -> None:
        local = ip_address("127.0.0.1")
        with reserve(parse_publish("8080:80"), default_addresses=[local]) as held:
            assert [mapping.host_address for mapping in held.mappings] == [local]

    on_host(run)
