"""Published ports: who reaches them, who holds them, and that they go with the container."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path

import pytest

from stowage.containers.model import ContainerRecord
from stowage.containers.networking import Networking
from stowage.errors import Busy, NotSupported
from stowage.linux.namespaces import open_namespace
from stowage.linux.nft import NftSession
from stowage.model import PortMapping
from stowage.net.port_specs import parse_publishes

from .boxes import Boxes, until
from .test_bridge import other_root
from .victims import alone
from .wires import (
    DISBELIEF_SECONDS,
    HOST,
    REMOTE,
    Remote,
    assert_quiet,
    network_of,
    published,
    reach,
    remote,
    serving,
)

pytestmark = pytest.mark.requires("containers", "conmon", "busybox")

GATEWAY = "172.17.0.1"


@pytest.fixture(autouse=True)
def quiet(boxes: Boxes) -> Iterator[None]:
    """Whatever a test did, its containers leave nothing."""
    boxes.run("true", network=None)
    yield
    boxes.clear()
    assert_quiet(boxes)


@pytest.fixture
def stranger() -> Iterator[Remote]:
    with remote() as there:
        yield there


def publish(*texts: str, publish_all: bool = False, exposed: Sequence[str] = ()) -> Networking:
    return Networking(parse_publishes(texts), publish_all, tuple(exposed))


def started(boxes: Boxes, *texts: str, **asked: object) -> ContainerRecord:
    return boxes.start("sleep", "60", network=None, networking=publish(*texts), **asked)


def taken(protocol: str, port: int) -> bool:
    """Whether the kernel refuses a port to others."""
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(type=kind) as taker:
        try:
            taker.bind(("0.0.0.0", port))
            if protocol == "tcp":
                taker.listen()
        except OSError:
            return True
    return False


def ports_of(boxes: Boxes, record: ContainerRecord) -> Sequence[PortMapping]:
    (endpoint,) = boxes.engine.networks.endpoints(record.id)
    return endpoint.ports


# --- the matrix -----------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("kind", ["fixed", "random", "range", "all"])
def test_a_published_port_is_reached_by_everybody(
    kind: str, protocol: str, boxes: Boxes, stranger: Remote
) -> None:
    """And a remote client's address is kept, while local ones are seen as the bridge."""
    wishes = {
        "fixed": publish(f"8080:80/{protocol}"),
        "random": publish(f"80/{protocol}"),
        "range": publish(f"8080-8090:80/{protocol}"),
        "all": publish(publish_all=True, exposed=[f"80/{protocol}"]),
    }
    web = boxes.start("sleep", "60", network=None, networking=wishes[kind])
    peer = boxes.start("sleep", "60", network=None)
    (mapping,) = ports_of(boxes, web)
    port = mapping.host_port
    with ExitStack() as stack:
        inside = stack.enter_context(network_of(boxes, web))
        beside = stack.enter_context(network_of(boxes, peer))
        here = open_namespace("net")
        stack.callback(os.close, here)
        server = stack.enter_context(serving(inside, protocol, 80))

        def seen(client: int, address: str, number: int = port) -> str | None:
            return reach(client, address, number, server, protocol)

        results = {
            "remote": seen(stranger.descriptor, HOST),
            "host by its address": seen(here, HOST),
            "host by the gateway": seen(here, GATEWAY),
            "host by 127.0.0.1": seen(here, "127.0.0.1"),
            "peer by the host": seen(beside, HOST),
            "peer directly": seen(beside, "172.17.0.2", 80),
            "self by the host": seen(inside, HOST),
        }

    assert results == {
        "remote": REMOTE,
        "peer directly": "172.17.0.3",
        **dict.fromkeys([name for name in results if name.count(" by ")], GATEWAY),
    }


def test_a_port_on_one_address_is_reached_there_alone(boxes: Boxes, stranger: Remote) -> None:
    web = started(boxes, "127.0.0.1:8081:81", f"{HOST}:8082:82")
    with network_of(boxes, web) as inside:
        here = open_namespace("net")
        with serving(inside, "tcp", 81) as local, serving(inside, "tcp", 82) as far:
            assert reach(here, "127.0.0.1", 8081, local) == GATEWAY
            blocked = reach(stranger.descriptor, HOST, 8081, local, "tcp", DISBELIEF_SECONDS)
            assert blocked is None
            assert reach(stranger.descriptor, HOST, 8082, far) == REMOTE
            assert reach(here, "127.0.0.1", 8082, far, "tcp", DISBELIEF_SECONDS) is None
        os.close(here)


def test_a_run_in_this_process_is_reached_as_well(boxes: Boxes, stranger: Remote) -> None:
    """httpd answers while the run's caller waits, and the port is free afterwards."""
    said: list[bytes] = []

    def fetch() -> None:
        def once() -> bool:
            def ask() -> bytes:
                with socket.create_connection((HOST, 8080), 1) as client:
                    client.sendall(b"GET /passwd HTTP/1.0\r\n\r\n")
                    return client.recv(4096)

            try:
                said.append(stranger.do(ask))
            except OSError:
                return False
            return b"200 OK" in said[-1]

        until(once, "an answer")
        for record in boxes.containers.list():
            boxes.containers.kill(record.id)

    from threading import Thread

    thread = Thread(target=fetch)
    thread.start()
    boxes.run("httpd", "-f", "-p", "80", "-h", "/etc", network=None, networking=publish("8080:80"))
    thread.join()

    assert b"200 OK" in said[-1]
    assert not taken("tcp", 8080)


# --- who holds it -----------------------------------------------------------------------------


def test_a_taken_port_names_its_holder_and_leaves_nothing(boxes: Boxes) -> None:
    started(boxes, "8080:80", name="web")
    before = published(boxes)
    with pytest.raises(Busy) as refusal:
        started(boxes, "8080:80", "9090:90", name="late")
    assert re.fullmatch(
        r"driver failed programming external connectivity on endpoint late \([0-9a-f]{64}\):"
        r" Bind for 0\.0\.0\.0:8080 failed: port is already allocated",
        refusal.value.brief,
    )
    assert "(web)" in refusal.value.holders[0]
    assert published(boxes) == before
    late = boxes.containers.get("late")
    assert (late.state.value, late.runtime.exit_code) == ("created", 128)
    assert boxes.engine.networks.endpoints(late.id) == []
    started(boxes, "9090:90")  # it was given back


def test_a_port_of_a_foreign_process_names_it(boxes: Boxes) -> None:
    with socket.socket() as holder:
        holder.bind(("0.0.0.0", 8080))
        holder.listen()
        with pytest.raises(Busy, match=r"listen tcp4 0\.0\.0\.0:8080: bind: address al") as refusal:
            started(boxes, "8080:80")
        assert f"process {os.getpid()} (" in refusal.value.holders[0]


def test_the_port_is_held_while_the_container_lives_and_by_no_process_in_it(boxes: Boxes) -> None:
    web = started(boxes, "8080:80", "5353:53/udp")
    assert taken("tcp", 8080)
    assert taken("udp", 5353)
    inside = os.listdir(f"/proc/{boxes.containers.pid(web.id)}/fd")
    assert sorted(inside) == ["0", "1", "2"]


def test_a_restart_takes_the_same_port_again(boxes: Boxes) -> None:
    web = started(boxes, "8080:80")
    for _ in range(3):
        boxes.containers.stop(web.id, 0)
        assert published(boxes) == []
        boxes.containers.start(web.id)
        (mapping,) = ports_of(boxes, web)
        assert mapping == PortMapping("tcp", 80, 8080, ip_address("0.0.0.0"))


def test_a_port_is_published_anew_while_the_one_before_is_cleaned_up(boxes: Boxes) -> None:
    """The first one's monitor is dead and its socket free; its rules are still there."""
    first = started(boxes, "8080:80", name="first")
    monitor = first.runtime.monitor_process
    assert monitor is not None
    os.kill(monitor.pid, signal.SIGKILL)
    until(lambda: not monitor.alive, "conmon to die")
    second = started(boxes, "8080:80", name="second")
    with network_of(boxes, second) as inside, serving(inside, "tcp", 80) as server:
        here = open_namespace("net")
        assert reach(here, "127.0.0.1", 8080, server) == GATEWAY
        boxes.open()  # finds that the first one has lost its monitor
        assert boxes.containers.get("first").state.value == "exited"
        assert reach(here, "127.0.0.1", 8080, server) == GATEWAY
        os.close(here)
    assert len(published(boxes)) == 1


def test_two_processes_never_publish_one_port_twice(boxes: Boxes) -> None:
    """Each tries every port of a range of ten; together they get the ten."""

    takers = [alone(boxes.root, "take_ports") for _ in range(2)]
    assert [taker.wait() for taker in takers] == [0, 0]
    endpoints = boxes.engine.networks.recorded().endpoints
    taken = sorted(port.host_port for endpoint in endpoints for port in endpoint.ports)

    assert taken == list(range(9000, 9010))
    assert len({endpoint.addresses for endpoint in endpoints}) == 10
    assert len({endpoint.mac_address for endpoint in endpoints}) == 10


def test_without_rules_nothing_can_be_published(boxes: Boxes, tmp_path: Path) -> None:
    keys: dict[str, object] = {"firewall-backend": "none", "bridge-name": "b-bare"}
    with other_root(boxes, tmp_path, keys) as engine:
        with pytest.raises(NotSupported, match=r"cannot publish 0\.0\.0\.0:8080->80/tcp"):
            engine.run("busybox", ["true"], ports=["8080:80"])
        assert engine.containers.list() == []
        assert engine.networks.recorded().endpoints == []


@pytest.fixture
def closed_host() -> Iterator[None]:
    """A host whose own filter drops what comes in and what is passed on, as firewalls set it up."""
    session = NftSession()
    session.transact(
        "add table inet closed\n"
        "add chain inet closed input { type filter hook input priority 0; policy drop; }\n"
        "add rule inet closed input iif lo accept\n"
        "add rule inet closed input ct state established accept\n"
        "add chain inet closed forward { type filter hook forward priority 0; policy drop; }\n"
    )
    yield
    session.transact("delete table inet closed\n")
    session.close()


@pytest.mark.usefixtures("closed_host")
def test_a_host_that_drops_is_respected_and_named_once(
    boxes: Boxes, stranger: Remote, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING", "stowage.net"):
        web = started(boxes, "8080:80")
        started(boxes, "8081:80")

    assert caplog.text.count("the host drops what comes in (policy of inet closed input)") == 1
    assert caplog.text.count("the host drops forwarded packets (policy of inet closed forw") == 1
    with network_of(boxes, web) as inside, serving(inside, "tcp", 80) as server:
        here = open_namespace("net")
        assert reach(here, HOST, 8080, server) == GATEWAY
        os.close(here)
        assert reach(stranger.descriptor, HOST, 8080, server, "tcp", DISBELIEF_SECONDS) is None


@pytest.mark.usefixtures("closed_host")
def test_allow_forward_and_publish_policy_open_it(
    boxes: Boxes, stranger: Remote, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys: dict[str, object] = {
        "allow-forward": True, "publish-policy": "docker", "bridge-name": "b-open",
    }  # fmt: skip
    with other_root(boxes, tmp_path, keys) as engine:
        record = engine.create("busybox", ["sleep", "60"], ports=["8080:80"])
        with caplog.at_level("WARNING", "stowage.net"):
            engine.start(record.id)
        assert caplog.text == ""
        inside = os.open(f"/proc/{engine.containers.pid(record.id)}/ns/net", os.O_RDONLY)
        with serving(inside, "tcp", 80) as server:
            assert reach(stranger.descriptor, HOST, 8080, server) == REMOTE
        os.close(inside)
        engine.remove(record.id, force=True)
