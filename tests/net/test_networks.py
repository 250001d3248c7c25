"""Networks and endpoints as recorded, with drivers that tell what was asked of them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from stowage.errors import NotFound, NotSupported, Unavailable
from stowage.handle import NetworkHandle
from stowage.hookspecs import hookimpl
from stowage.linux.namespaces import network_cookie
from stowage.model import (
    API_VERSION,
    Endpoint,
    Finding,
    JoinResult,
    Network,
    NetworkCapabilities,
    NetworkProbe,
    Sandbox,
)
from stowage.net.networks import Networks
from stowage.net.sandbox import sandbox_for
from stowage.store.metastore import Metastore


class Told:
    """A driver that writes down every call; *fails* names the hooks that raise."""

    api_version = API_VERSION
    options = ()

    def __init__(self, name: str, findings: tuple[Finding, ...] = ()) -> None:
        self.name = name
        self.findings = findings
        self.calls: list[str] = []
        self.fails: set[str] = set()

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if call in self.fails:
            raise Unavailable(f"{call} failed")

    @hookimpl
    def network_probe(self) -> NetworkProbe:
        mode = "host" if self.name == "host" else "private"
        return NetworkProbe(NetworkCapabilities(sandbox=mode), self.findings)  # type: ignore[arg-type]  # a literal

    @hookimpl
    def network_create_endpoint(self, network: Network, endpoint: Endpoint) -> None:
        self._note("create_endpoint")

    @hookimpl
    def network_delete_endpoint(self, network: Network, endpoint: Endpoint) -> None:
        self._note("delete_endpoint")

    @hookimpl
    def network_join(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> JoinResult:
        self._note("join")
        return JoinResult()

    @hookimpl
    def network_leave(self, network: Network, endpoint: Endpoint, sandbox: Sandbox | None) -> None:
        self._note("leave")


@pytest.fixture
def metastore(tmp_path: Path) -> Iterator[Metastore]:
    store = Metastore(tmp_path / "metadata.db")
    yield store
    store.close()


def networks(metastore: Metastore, *drivers: Told) -> Networks:
    handles = {driver.name: NetworkHandle(driver, "the test") for driver in drivers}

    def opened(name: str) -> NetworkHandle:
        if name not in handles:
            raise NotFound("network driver", name)
        return handles[name]

    return Networks(metastore, opened)


def test_predefined_networks_are_recorded_once(metastore: Metastore) -> None:
    ours = networks(metastore, Told("none"), Told("host"))
    first = ours.resolve("none")

    assert len(first.id) == 64
    assert ours.resolve("none") == ours.resolve(first.id) == ours.by_id(first.id) == first
    assert [network.name for network in ours.list()] == ["none"]
    assert ours.sandbox_mode(first) == "private"
    assert ours.sandbox_mode(ours.resolve("host")) == "host"


def test_unknown_and_impossible_networks_are_refused(metastore: Metastore) -> None:
    broken = Told("host", (Finding("it is broken", "mend it"),))
    ours = networks(metastore, Told("none"), broken)

    with pytest.raises(NotFound) as refusal:
        ours.resolve("nosuch")
    assert refusal.value.brief == "network nosuch not found"
    with pytest.raises(NotSupported, match="'bridge' needs a driver that is not installed"):
        ours.resolve("bridge")
    with pytest.raises(NotSupported, match="it is broken\nmend it"):
        ours.resolve("host")


def test_the_default_is_bridge_else_none_and_said_once_per_root(
    metastore: Metastore, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "stowage.net"):
        assert networks(metastore, Told("none")).resolve(None).name == "none"
        assert networks(metastore, Told("none")).resolve(None).name == "none"
    assert caplog.text.count("'bridge'") == 1
    assert networks(metastore, Told("none"), Told("bridge")).resolve(None).name == "bridge"


@pytest.mark.requires("netns")
def test_an_endpoint_lives_from_connect_to_disconnect(metastore: Metastore) -> None:
    driver = Told("none")
    ours = networks(metastore, driver)
    endpoint = ours.connect(ours.resolve("none"), "c" * 64)
    with sandbox_for("c" * 64, "private") as sandbox:
        ours.join(endpoint, sandbox)
    assert [one.id for one in ours.endpoints("c" * 64)] == [endpoint.id]
    assert [one.id for one in ours.orphaned_endpoints()] == [endpoint.id]
    ours.disconnect(endpoint)
    ours.disconnect(endpoint)

    assert driver.calls[:4] == ["create_endpoint", "join", "leave", "delete_endpoint"]
    assert ours.endpoints("c" * 64) == []


def test_a_reservation_that_fails_leaves_no_row(metastore: Metastore) -> None:
    driver = Told("none")
    driver.fails = {"create_endpoint"}
    ours = networks(metastore, driver)

    with pytest.raises(Unavailable):
        ours.connect(ours.resolve("none"), "c" * 64)
    assert ours.endpoints("c" * 64) == []
    assert driver.calls == ["create_endpoint", "leave", "delete_endpoint"]


def test_a_join_that_fails_is_taken_back(metastore: Metastore) -> None:
    driver = Told("none")
    driver.fails = {"join"}
    ours = networks(metastore, driver)
    endpoint = ours.connect(ours.resolve("none"), "c" * 64)

    with sandbox_for("c" * 64, "host") as sandbox, pytest.raises(Unavailable):
        ours.join(endpoint, sandbox)
    assert driver.calls[-2:] == ["join", "leave"]


@pytest.mark.requires("netns")
def test_a_private_sandbox_is_new_and_the_hosts_is_ours() -> None:
    with sandbox_for("c" * 64, "private") as private, sandbox_for("c" * 64, "host") as host:
        assert private.cookie != host.cookie == network_cookie()
        assert network_cookie(private.descriptor) == private.cookie
        held = private.descriptor
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(held)
