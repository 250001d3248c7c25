"""The default network: planned from the configuration at first use, recorded, and compared later.

What is recorded holds. Where the configuration names something else by now, that takes its place
as long as no container is connected, and is refused with both values after that.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ..config import Config
from ..errors import FailedPrecondition
from ..model import Address, Network
from .default_bridge import DEFAULT_DEVICE, DefaultBridge, default_bridge
from .ipam import Claim, nameserver_claims, on_link_claims, plan_pools, recorded_claims
from .rows import network_config

#: The keys of the configuration that say what the default network is like.
KEYS = (
    "bip", "bridge", "bridge-name", "default-address-pools", "default-gateway",
    "default-gateway-v6", "fixed-cidr", "fixed-cidr-v6", "icc", "ip", "ip-masq", "ipv6", "mtu",
)  # fmt: skip
_DEVICE = "com.docker.network.bridge.name"
_DEVICES_TRIED = 100


class Plan(Struct, frozen=True):
    """What is asked for, and what the host holds already; looked at before the transaction."""

    asked: DefaultBridge
    taken: Sequence[Claim]
    avoided: Sequence[Claim]

    def network(self, tx: sqlite3.Connection, name: str, driver: str) -> Network:
        """Return the network with pools that are free; raises as :func:`plan_pools`."""
        others = [c for c in recorded_claims(tx) if c.holder != f"network {name!r}"]
        pools = plan_pools(
            self.asked.pools,
            [*others, *self.taken],
            defaults=self.asked.defaults,
            avoid=self.avoided,
        )
        return Network(
            secrets.token_hex(32), name, driver, pools=pools, options=dict(self.asked.options)
        )

    def config(self, network: Network, created_ns: int) -> str:
        """Return what to record of it."""
        return network_config(network, asked=fingerprint(self.asked), created_ns=created_ns)


def plan(config: Config, root_id: str) -> Plan:
    """Return the plan of the default network of a root on this host."""
    asked = default_bridge(config, root_id)
    if config.bridge is None and config.bridge_name is None:
        device = _free_device(root_id)
        asked = replace(
            asked, options={**asked.options, _DEVICE: device}, ignored_devices=(device,)
        )
    return Plan(
        asked,
        taken=on_link_claims(asked.ignored_devices),
        avoided=list(nameserver_claims(_nameservers())),
    )


def _free_device(root_id: str) -> str:
    """Return the first of ``stowage0``, ``stowage1``, … that no other root has made."""
    from ..linux.netlink import Netlink
    from ..linux.rtnetlink import read_links

    with Netlink() as netlink:
        aliases = {link.name: link.alias for link in read_links(netlink)}
    base = DEFAULT_DEVICE.rstrip("0")
    for number in range(_DEVICES_TRIED):
        name = f"{base}{number}"
        alias = aliases.get(name, "")
        if not alias.startswith("stowage-") or alias.startswith(f"stowage-{root_id} "):
            return name
    return DEFAULT_DEVICE


def _nameservers(path: Path = Path("/etc/resolv.conf")) -> list[Address]:
    found = []
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return []
    for words in map(str.split, lines):
        if len(words) > 1 and words[0] == "nameserver":
            try:
                found.append(ip_address(words[1].partition("%")[0]))
            except ValueError:
                continue
    return found


def fingerprint(asked: DefaultBridge) -> dict[str, Any]:
    """Return what the configuration asks for, as plain JSON values; a chosen device is no wish."""
    return {
        **{key: value for key, value in asked.options.items() if key != _DEVICE},
        **{
            f"{_pool_name(pool.version)} {word}": str(value)
            for pool in asked.pools
            for word, value in (
                ("subnet", pool.subnet),
                ("range", pool.ip_range),
                ("gateway", pool.gateway),
                *pool.auxiliary.items(),
            )
            if value is not None
        },
        **{f"{_pool_name(pool.version)}": "yes" for pool in asked.pools},
    }


def _pool_name(version: int) -> str:
    return f"IPv{version}"


def differences(row: sqlite3.Row, config: Config, root_id: str) -> list[str]:
    """Return in words where the configuration asks for another default network than recorded.

    Only what is configured counts: a Python user's engine, and conmon's exit command, know no
    flags of the command that made the network.
    """
    if not any(key in config.origins for key in KEYS):
        return []
    recorded: Mapping[str, Any] = json.loads(row["config"])
    before: Mapping[str, Any] = recorded.get("asked", {})
    asked = default_bridge(config, root_id)
    now = fingerprint(asked)
    if config.bridge or config.bridge_name:
        now[_DEVICE] = asked.options[_DEVICE]
        before = {**before, _DEVICE: recorded.get("options", {}).get(_DEVICE)}
    return [
        f"{key}: {before.get(key, 'unset')} is recorded, {now.get(key, 'unset')} is configured"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]


def refusal(name: str, found: Sequence[str], containers: Sequence[str]) -> FailedPrecondition:
    """Return the error for a configuration that cannot be applied while *containers* live."""
    return FailedPrecondition(
        f"the network {name!r} was made with other settings than are configured now",
        details="\n".join([*found, f"connected to it: {', '.join(containers)}"]),
        resolution="stop those containers, or take the change back",
    )
