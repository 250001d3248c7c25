"""The network drivers none and host, through their hooks."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path

import pytest

from stowage.errors import InvalidArgument
from stowage.linux.namespaces import in_network_namespace
from stowage.model import Endpoint, JoinResult, Network, Pool, Sandbox
from stowage.net.sandbox import sandbox_for
from stowage.registry import NetworkContext, Registry

CONTAINER = "c" * 64


@pytest.mark.parametrize(("name", "mode"), [("none", "private"), ("host", "host")])
def test_it_is_found_probed_and_joined(name: str, mode: str, tmp_path: Path) -> None:
    handle = Registry().network(name, NetworkContext("0badcafe", tmp_path))
    network = Network("n" * 64, name, name)
    endpoint = Endpoint("e" * 64, network.id, CONTAINER)

    assert handle.capabilities.sandbox == mode or handle.probe.findings
    assert handle.join(network, endpoint, Sandbox(CONTAINER, 0, 0)) == JoinResult()
    handle.leave(network, endpoint, None)
    handle.close()


@pytest.mark.parametrize("name", ["none", "host"])
def test_it_takes_no_options(name: str, tmp_path: Path) -> None:
    handle = Registry().network(name, NetworkContext("0badcafe", tmp_path))
    for network in (
        Network("n" * 64, "x", name, options={"mtu": "1"}),
        Network("n" * 64, "x", name, pools=(Pool(IPv4Network("10.0.0.0/24")),)),
    ):
        with pytest.raises(InvalidArgument, match=f"the driver '{name}' takes no options"):
            handle.validate(network)
    handle.validate(Network("n" * 64, "x", name))


@pytest.mark.requires("netns")
def test_a_sandbox_of_none_has_lo_alone() -> None:
    import socket

    with sandbox_for(CONTAINER, "private") as sandbox:
        links = in_network_namespace(sandbox.descriptor, socket.if_nameindex)

    assert [name for _, name in links] == ["lo"]
