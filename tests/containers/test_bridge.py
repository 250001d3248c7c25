"""Containers on the default network: what they are given, whom they reach, what is left."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stowage.engine import Engine
from stowage.errors import FailedPrecondition, NoSpace
from stowage.linux.netlink import Netlink
from stowage.linux.rtnetlink import find_link, read_addresses

from .boxes import Boxes, until
from .victims import alone
from .wires import HOST, REMOTE, assert_quiet, links, remote, rows

pytestmark = pytest.mark.requires("containers", "conmon", "busybox")


@pytest.fixture(autouse=True)
def quiet(boxes: Boxes) -> Iterator[None]:
    """Whatever a test did, its containers leave nothing."""
    boxes.run("true", network=None)
    yield
    boxes.clear()
    assert_quiet(boxes)


def addresses_of(device: str) -> list[str]:
    with Netlink() as netlink:
        link = find_link(netlink, device)
        assert link is not None
        found = read_addresses(netlink, link.index)
    return [str(interface) for interface in found if interface.version == 4]


def test_a_container_gets_what_dockers_does(boxes: Boxes) -> None:
    said = boxes.sh("ip -o -4 addr show eth0; ip route; ip link show eth0", network=None)

    assert "inet 172.17.0.2/16 brd 172.17.255.255" in said
    assert "default via 172.17.0.1 dev eth0" in said
    assert "link/ether 02:42:ac:11:00:02" in said
    assert addresses_of("stowage0") == ["172.17.0.1/16"]


def test_peers_the_host_and_what_is_beyond_are_reached(boxes: Boxes) -> None:
    """The stranger knows no way back to the container: it sees the host's address."""
    boxes.start("httpd", "-f", "-p", "80", "-h", "/etc", network="bridge", name="web")
    get = "wget -q -O - http://172.17.0.2/passwd"
    script = f"for i in 1 2 3 4 5 6 7 8; do {get} 2>/dev/null && break; sleep 0.2; done"
    for address in ("172.17.0.1", HOST, REMOTE):
        script += f"; ping -c 1 -w 3 {address} | grep -c '64 bytes'"
    with remote():
        said = boxes.sh(script, network="bridge")

    assert said.split()[-3:] == ["1", "1", "1"]
    assert "app:x:1000" in said


def test_addresses_are_the_lowest_free_and_free_again(boxes: Boxes) -> None:
    def addresses() -> list[str]:
        networks = boxes.engine.networks
        return sorted(
            str(endpoint.addresses[0].ip)
            for record in boxes.containers.list()
            for endpoint in networks.endpoints(record.id)
        )

    first = boxes.start("sleep", "60", network=None)
    second = boxes.start("sleep", "60", network=None)
    assert addresses() == ["172.17.0.2", "172.17.0.3"]
    assert len(links()) == 2
    boxes.containers.remove(first.id, force=True)
    assert addresses() == ["172.17.0.3"]
    boxes.start("sleep", "60", network=None)
    assert addresses() == ["172.17.0.2", "172.17.0.3"]
    boxes.containers.stop(second.id, 0)
    assert addresses() == ["172.17.0.2"]
    boxes.containers.start(second.id)
    assert addresses() == ["172.17.0.2", "172.17.0.3"]


def test_a_dozen_at_once_get_a_dozen_addresses(boxes: Boxes) -> None:
    """And as many MACs, and the lowest ones."""

    def start() -> None:
        boxes.start("sleep", "60", network=None)

    threads = [threading.Thread(target=start) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    endpoints = boxes.engine.networks.recorded().endpoints

    numbers = sorted(int(endpoint.addresses[0].ip) for endpoint in endpoints)
    assert numbers == list(range(numbers[0], numbers[0] + 12))
    assert str(endpoints[0].addresses[0].network) == "172.17.0.0/16"
    assert len({endpoint.mac_address for endpoint in endpoints}) == 12


def test_the_links_of_a_container_whose_engine_died_are_gone(boxes: Boxes) -> None:
    """The process that ran it directly is killed; opening the root again frees the address."""
    victim = alone(boxes.root, "run_long")
    until(links, "the container's link")
    until(lambda: any(r.state.lives for r in boxes.containers.list()), "the container to run")
    victim.kill()
    victim.wait()

    boxes.open()
    assert rows(boxes) == []


def test_the_namespace_of_the_network_is_the_roots_for_as_long_as_containers_live(
    boxes: Boxes,
) -> None:
    """From elsewhere, where its links are not, nothing is handed out twice."""
    boxes.start("sleep", "60", network=None, name="held")
    with remote() as stranger:

        def elsewhere() -> None:
            with Engine(boxes.root) as engine:
                engine.run("busybox", ["true"])

        with pytest.raises(
            FailedPrecondition, match=r"another network namespace\nconnected there: held"
        ):
            stranger.do(elsewhere)
    assert len(rows(boxes)) == 2


def test_an_exhausted_pool_leaves_a_clear_error(boxes: Boxes, tmp_path: Path) -> None:
    with other_root(boxes, tmp_path, {"bip": "10.9.0.1/30", "bridge-name": "b-small"}) as engine:
        engine.start(engine.create("busybox", ["sleep", "60"], name="one").id)
        with pytest.raises(NoSpace, match="No available addresses on this pool"):
            engine.run("busybox", ["true"])
        assert [record.name for record in engine.containers.list()] == ["one"]
        engine.remove("one", force=True)


def test_another_bip_takes_over_unless_containers_live(boxes: Boxes, tmp_path: Path) -> None:
    with other_root(boxes, tmp_path, {"bip": "10.10.0.1/24", "bridge-name": "b-moved"}) as engine:
        said = engine.run("busybox", ["ip", "-o", "-4", "addr", "show", "eth0"]).stdout
        assert b"10.10.0.2/24" in said
        engine.start(engine.create("busybox", ["sleep", "60"], name="one").id)
    with configured(tmp_path, {"bip": "10.8.0.1/24", "bridge-name": "b-moved"}) as engine:
        with pytest.raises(
            FailedPrecondition, match=r"10\.10\.0\.0/24 is recorded, 10\.8\.0\.0/24"
        ):
            engine.run("busybox", ["true"])
        engine.remove("one", force=True)
        said = engine.run("busybox", ["ip", "-o", "-4", "addr", "show", "eth0"]).stdout
        assert b"10.8.0.2/24" in said
    assert addresses_of("b-moved") == ["10.8.0.1/24"]


def test_a_second_root_has_a_bridge_and_a_subnet_of_its_own(boxes: Boxes, tmp_path: Path) -> None:
    with other_root(boxes, tmp_path, {}) as engine:
        said = engine.run("busybox", ["ip", "-o", "-4", "addr", "show", "eth0"]).stdout
    assert b"172.18.0.2/16" in said
    assert addresses_of("stowage1") == ["172.18.0.1/16"]


def configured(root: Path, keys: dict[str, object]) -> Engine:
    from stowage.config import Config

    file = root / "daemon.json"
    file.write_text(json.dumps({"data-root": f"{root}/data", "exec-root": f"{root}/exec", **keys}))
    return Engine(config=Config.load({"config": str(file)}, {}, None))


def other_root(boxes: Boxes, root: Path, keys: dict[str, object]) -> Engine:
    engine = configured(root, keys)
    archive = root / "busybox.tar"
    with archive.open("wb") as out:
        boxes.engine.images.save(["busybox"], out)
    with archive.open("rb") as stream:
        engine.images.load(stream)
    return engine
