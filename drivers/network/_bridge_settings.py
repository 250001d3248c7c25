"""What a bridge network's options say: Docker's keys, typed once, all problems at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from ipaddress import ip_address, ip_network

from msgspec import Struct

from stowage.errors import InvalidConfig
from stowage.model import Address, FirewallNetwork, Network, PublishPolicy, Subnet
from stowage.options import BooleanType, ChoiceType, IntegerType, Option, TextType, nearest

_BRIDGE = "com.docker.network.bridge."
_DEVICE_NAME = re.compile(r"[^\s/:\"*]{1,15}")


class AddressType:
    """An IP address; *version* is 4 or 6."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.expects = f"an IPv{version} address"

    def parse(self, text: str) -> Address:
        try:
            address = ip_address(text)
        except ValueError:
            raise ValueError(f"expected {self.expects}") from None
        if address.version != self.version:
            raise ValueError(f"expected {self.expects}")
        return address


class DeviceType:
    """A name that the kernel takes for a link (dev_valid_name), and nft as it stands."""

    expects = "a device name of 1 to 15 bytes without spaces, '/', ':', '\"' and '*'"

    def parse(self, text: str) -> str:
        short = len(text.encode()) <= 15 and text not in (".", "..")
        if not short or not _DEVICE_NAME.fullmatch(text):
            raise ValueError(f"expected {self.expects}")
        return text


class DevicesType:
    """Device names, separated by colons as Docker has them."""

    expects = "device names separated by colons"

    def parse(self, text: str) -> tuple[str, ...]:
        return tuple(DeviceType().parse(part) for part in text.split(":") if part)


class SubnetsType:
    """Networks, separated by commas."""

    expects = "networks such as 10.0.0.0/8, separated by commas"

    def parse(self, text: str) -> tuple[Subnet, ...]:
        try:
            return tuple(ip_network(part.strip(), strict=False) for part in text.split(","))
        except ValueError:
            raise ValueError(f"expected {self.expects}") from None


_MODES = ChoiceType(("nat", "routed"))

NETWORK_OPTIONS: tuple[Option[object], ...] = (
    Option(f"{_BRIDGE}name", DeviceType(), None, "device of the bridge", "br-<id>"),
    Option(f"{_BRIDGE}enable_icc", BooleanType(), True, "containers may talk to each other"),
    Option(f"{_BRIDGE}enable_ip_masquerade", BooleanType(), True, "hide containers' addresses"),
    Option(f"{_BRIDGE}host_binding_ipv4", AddressType(4), None, "where ports are published"),
    Option(f"{_BRIDGE}inhibit_ipv4", BooleanType(), False, "give the bridge no IPv4 address"),
    Option(f"{_BRIDGE}default_bridge", BooleanType(), False, "it is the default network"),
    Option(f"{_BRIDGE}gateway_mode_ipv4", _MODES, "nat", "nat, or routed: no translation"),
    Option(f"{_BRIDGE}gateway_mode_ipv6", _MODES, "nat", "the same for IPv6"),
    Option(f"{_BRIDGE}trusted_host_interfaces", DevicesType(), (), "may reach every port"),
    Option("com.docker.network.driver.mtu", IntegerType(68, 65535, "bytes"), None,
           "MTU", "that of the default route"),
    Option("com.docker.network.host_ipv4", AddressType(4), None, "what packets leave with"),
    Option("com.docker.network.host_ipv6", AddressType(6), None, "the same for IPv6"),
    Option("com.docker.network.container_iface_prefix", DeviceType(), "eth", "links inside"),
    Option("com.docker.network.enable_ipv4", BooleanType(), True, "as its subnets say"),
    Option("com.docker.network.enable_ipv6", BooleanType(), False, "as its subnets say"),
    Option("com.docker.network.internal", BooleanType(), False, "as --internal"),
    Option("publish-allow", SubnetsType(), None, "who may reach published ports of a closed host",
           "as in the configuration"),
    Option("publish-policy", ChoiceType(("host", "docker")), None,
           "host: only those; docker: everybody", "as in the configuration"),
    Option("description", TextType(), "", "whatever you like"),
)  # fmt: skip


class BridgeSettings(Struct, frozen=True):
    """The options of one network; *explicit* tells that its device was named by somebody.

    *mtu_bytes* is None where the default route decides.
    """

    device: str
    explicit: bool
    mtu_bytes: int | None
    inhibit_ipv4: bool
    firewall: FirewallNetwork

    @property
    def icc(self) -> bool:
        return self.firewall.icc


def read_settings(network: Network, defaults: Mapping[str, object]) -> BridgeSettings:
    """Return what *network* says; *defaults* are the daemon's settings.

    Raises:
        InvalidConfig: naming every unknown option and every value that is wrong.
    """
    values = _parse(network)
    _cross_check(network, values)
    device = values[f"{_BRIDGE}name"]
    masquerade = values[f"{_BRIDGE}enable_ip_masquerade"]
    allow = values["publish-allow"]
    policy = values["publish-policy"] or defaults.get("publish-policy", "host")
    sources = [values[f"com.docker.network.host_ipv{version}"] for version in (4, 6)]
    routed = [v for v in (4, 6) if values[f"{_BRIDGE}gateway_mode_ipv{v}"] == "routed"]
    name = str(device) if device else f"br-{network.id[:12]}"
    firewall = FirewallNetwork(
        id=network.id,
        bridge=name,
        subnets=tuple(pool.subnet for pool in network.pools),
        internal=network.internal or bool(values["com.docker.network.internal"]),
        masquerade=bool(masquerade),
        icc=bool(values[f"{_BRIDGE}enable_icc"]),
        routed=tuple(routed),
        source_addresses=tuple(a for a in sources if a is not None),  # type: ignore[misc]  # AddressType gave them
        trusted_interfaces=values[f"{_BRIDGE}trusted_host_interfaces"],  # type: ignore[arg-type]  # DevicesType
        publish_policy=_policy(policy),
        publish_allow=_subnets(allow if allow is not None else defaults.get("publish-allow", ())),
    )
    mtu = values["com.docker.network.driver.mtu"]
    return BridgeSettings(
        device=name,
        explicit=device is not None,
        mtu_bytes=mtu if isinstance(mtu, int) else None,
        inhibit_ipv4=bool(values[f"{_BRIDGE}inhibit_ipv4"]),
        firewall=firewall,
    )


def _policy(value: object) -> PublishPolicy:
    return "docker" if value == "docker" else "host"


def _subnets(value: object) -> tuple[Subnet, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else ()


def _parse(network: Network) -> dict[str, object]:
    known = {option.name: option for option in NETWORK_OPTIONS}
    values: dict[str, object] = {name: option.default for name, option in known.items()}
    problems = []
    for name, text in network.options.items():
        if name not in known:
            problems.append(f"unknown option {name!r}{nearest(name, known)}")
            continue
        try:
            values[name] = known[name].type.parse(text)
        except ValueError as error:
            problems.append(f"invalid value {text!r} for option {name!r}: {error}")
    _refuse(network, problems)
    return values


def _cross_check(network: Network, values: Mapping[str, object]) -> None:
    problems = []
    for version in (4, 6):
        if sum(pool.subnet.version == version for pool in network.pools) > 1:
            problems.append(f"a bridge takes one IPv{version} subnet, not several")
    for pool in network.pools:
        if pool.gateway is not None and pool.gateway not in pool.subnet:
            problems.append(f"no matching subnet for gateway {pool.gateway}")
        if pool.ip_range is not None and not _within(pool.ip_range, pool.subnet):
            problems.append(f"no matching subnet for range {pool.ip_range}")
    mtu = values["com.docker.network.driver.mtu"]
    six = any(pool.subnet.version == 6 for pool in network.pools)
    if six and isinstance(mtu, int) and mtu < 1280:
        problems.append(f"an MTU of {mtu} is too small for IPv6, which needs 1280 (RFC 8200)")
    _refuse(network, problems)


def _within(inner: Subnet, outer: Subnet) -> bool:
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]  # one version


def _refuse(network: Network, problems: Sequence[str]) -> None:
    if problems:
        raise InvalidConfig(
            f"invalid options for network {network.name!r}",
            problems,
            resolution="see the options of the driver 'bridge' in the reference",
        )
