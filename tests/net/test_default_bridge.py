"""The default network as daemon.json describes it."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path

from stowage.config import Config
from stowage.net.default_bridge import DefaultBridge, default_bridge
from stowage.net.ipam import Claim, plan_pools

BRIDGE = "com.docker.network.bridge."


def described(**keys: str) -> DefaultBridge:
    flags = {name.replace("_", "-"): value for name, value in keys.items()}
    return default_bridge(Config.for_root(Path("/nowhere"), flags), "seed")


def test_nothing_configured_is_dockers_default() -> None:
    bridge = described()

    (pool,) = plan_pools(bridge.pools, (), defaults=bridge.defaults)

    assert (pool.subnet, pool.gateway) == (ip_network("172.17.0.0/16"), ip_address("172.17.0.1"))
    assert bridge.options == {
        f"{BRIDGE}default_bridge": "true",
        f"{BRIDGE}enable_icc": "true",
        f"{BRIDGE}enable_ip_masquerade": "true",
        f"{BRIDGE}host_binding_ipv4": "0.0.0.0",
        f"{BRIDGE}name": "stowage0",
    }


def test_a_taken_subnet_gives_the_next_pool() -> None:
    taken = Claim(ip_network("172.16.0.0/14"), "a route of the host to the device docker0")
    bridge = described()

    (pool,) = plan_pools(bridge.pools, [taken], defaults=bridge.defaults)

    assert pool.subnet == ip_network("172.20.0.0/16")


def test_every_key_has_its_effect() -> None:
    bridge = described(
        bip="10.5.0.1/16", fixed_cidr="10.5.1.0/24", default_gateway="10.5.0.254", mtu="1400",
        icc="false", ip_masq="false", ip="127.0.0.1", bridge_name="br7",
        ipv6="true", fixed_cidr_v6="2001:db8:1::/64", default_gateway_v6="2001:db8:1::99",
    )  # fmt: skip

    four, six = plan_pools(bridge.pools, (), defaults=bridge.defaults)

    assert (four.gateway, four.ip_range) == (ip_address("10.5.0.1"), ip_network("10.5.1.0/24"))
    assert four.auxiliary == {"DefaultGatewayIPv4": ip_address("10.5.0.254")}
    assert six.subnet == ip_network("2001:db8:1::/64")
    assert six.auxiliary == {"DefaultGatewayIPv6": ip_address("2001:db8:1::99")}
    assert bridge.options[f"{BRIDGE}enable_icc"] == "false"
    assert bridge.options[f"{BRIDGE}enable_ip_masquerade"] == "false"
    assert bridge.options[f"{BRIDGE}host_binding_ipv4"] == "127.0.0.1"
    assert bridge.options[f"{BRIDGE}name"] == "br7"
    assert bridge.options["com.docker.network.driver.mtu"] == "1400"


def test_ipv6_without_a_subnet_is_a_unique_local_one() -> None:
    bridge = described(ipv6="true")

    _, six = plan_pools(bridge.pools, (), defaults=bridge.defaults)

    assert six.subnet.prefixlen == 64
    assert six.subnet.subnet_of(ip_network("fd00::/8"))  # type: ignore[arg-type]  # IPv6 as asked


def test_an_existing_bridges_route_is_its_own() -> None:
    assert described(bridge="lan0").ignored_devices == ("lan0",)
