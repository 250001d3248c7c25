"""The default network as the configuration describes it, in the words that Docker records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct, field

from ..config import Config
from ..config_types import AddressPool
from ..model import Address
from .ipam import DEFAULT_GATEWAY, DOCKER_POOLS, PoolRequest, ula_pool

DEFAULT_DEVICE = "stowage0"
_BRIDGE = "com.docker.network.bridge."


class DefaultBridge(Struct, frozen=True):
    """What to record at first use: the driver's options, and the pools to ask the IPAM for.

    *ignored_devices*: whose routes are the network's own (an existing bridge of the user).
    """

    options: Mapping[str, str]
    pools: Sequence[PoolRequest]
    defaults: Sequence[AddressPool] = DOCKER_POOLS
    ignored_devices: Sequence[str] = field(default_factory=tuple)


def default_bridge(config: Config, seed: str) -> DefaultBridge:
    """Return what the keys ``bip``, ``fixed-cidr``, ``mtu``, ``default-gateway``, … ask for.

    *seed* makes the host's unique local IPv6 prefix. ``bridge: none`` is the caller's to see.
    """
    device = config.bridge or config.bridge_name or DEFAULT_DEVICE
    return DefaultBridge(
        options=_options(config, device),
        pools=[_four(config), *([_six(config)] if config.ipv6 else [])],
        defaults=(*(config.default_address_pools or DOCKER_POOLS), ula_pool(seed)),
        ignored_devices=(device,),
    )


def _options(config: Config, device: str) -> dict[str, str]:
    binding = config.ip if config.ip is not None and config.ip.version == 4 else "0.0.0.0"
    options = {
        f"{_BRIDGE}default_bridge": "true",
        f"{_BRIDGE}enable_icc": _word(config.icc),
        f"{_BRIDGE}enable_ip_masquerade": _word(config.ip_masq),
        f"{_BRIDGE}host_binding_ipv4": str(binding),
        f"{_BRIDGE}name": device,
    }
    if "mtu" in config.origins:  # else the default route's
        options["com.docker.network.driver.mtu"] = str(config.mtu)
    return options


def _word(value: bool) -> str:
    return "true" if value else "false"


def _four(config: Config) -> PoolRequest:
    subnet = config.bip.network if config.bip is not None else config.fixed_cidr
    return PoolRequest(
        version=4,
        subnet=subnet,
        ip_range=config.fixed_cidr,
        gateway=config.bip.ip if config.bip is not None else None,
        auxiliary=_way_out(4, config.default_gateway),
    )


def _six(config: Config) -> PoolRequest:
    return PoolRequest(
        version=6,
        subnet=config.fixed_cidr_v6,
        auxiliary=_way_out(6, config.default_gateway_v6),
    )


def _way_out(version: int, gateway: Address | None) -> dict[str, Address]:
    return {} if gateway is None else {DEFAULT_GATEWAY[version]: gateway}
