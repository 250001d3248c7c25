"""Checks that need more than one directive."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Interface, IPv6Network
from pathlib import Path

from .config_types import AddressPool, Runtime


def cross_checks(values: Mapping[str, object]) -> list[str]:
    """Return what is wrong between directives that are each right; *values* are by key."""
    return [
        *_roots(values),
        *_bridge(values),
        *_firewall(values),
        *_ipv6(values),
        *_pools(values),
        *_runtime(values),
        *_tls(values),
    ]


def _roots(values: Mapping[str, object]) -> Iterator[str]:
    data, execution = values.get("data-root"), values.get("exec-root")
    if isinstance(data, Path) and isinstance(execution, Path):
        if data == execution:
            yield f"data-root and exec-root are both {data}: they need a directory each"
        elif data.is_relative_to(execution):
            yield (
                f"data-root {data} lies within exec-root {execution}, which may be lost at any"
                " time: put it elsewhere"
            )


def _bridge(values: Mapping[str, object]) -> Iterator[str]:
    bip = values.get("bip")
    if values.get("bridge") and (bip or values.get("bridge-name")):
        if bip:
            yield "You specified -b & --bip, mutually exclusive options. Please specify only one"
        else:
            yield "bridge and bridge-name are mutually exclusive: the first names a bridge of yours"
    if not isinstance(bip, IPv4Interface):
        return
    subnet = bip.network
    fixed = values.get("fixed-cidr")
    if fixed is not None and not fixed.subnet_of(subnet):  # type: ignore[attr-defined]  # IPv4Network by its key's type
        yield f"fixed-cidr {fixed} lies outside the subnet {subnet} of bip"
    gateway = values.get("default-gateway")
    if gateway is not None and gateway not in subnet:
        yield f"default-gateway {gateway} lies outside the subnet {subnet} of bip"


def _firewall(values: Mapping[str, object]) -> Iterator[str]:
    if values.get("iptables") is False and values.get("icc") is False:
        yield (
            "You specified --iptables=false with --icc=false. ICC=false uses iptables to"
            " function. Please set --icc or --iptables to true"
        )


def _ipv6(values: Mapping[str, object]) -> Iterator[str]:
    mtu = values.get("mtu")
    if values.get("ipv6") is True and isinstance(mtu, int) and mtu < 1280:
        yield f"mtu {mtu} is too small for ipv6, which needs at least 1280 (RFC 8200)"
    fixed, gateway = values.get("fixed-cidr-v6"), values.get("default-gateway-v6")
    if isinstance(fixed, IPv6Network) and gateway is not None and gateway not in fixed:
        yield f"default-gateway-v6 {gateway} lies outside fixed-cidr-v6 {fixed}"


def _pools(values: Mapping[str, object]) -> Iterator[str]:
    pools = values.get("default-address-pools")
    if not isinstance(pools, tuple):
        return
    bases = [pool.base for pool in pools if isinstance(pool, AddressPool)]
    for index, base in enumerate(bases):
        for other in bases[index + 1 :]:
            if base.version == other.version and base.overlaps(other):
                yield f"default-address-pools {base} and {other} overlap"


def _runtime(values: Mapping[str, object]) -> Iterator[str]:
    runtimes = values.get("runtimes")
    if not isinstance(runtimes, Mapping):
        return
    if "runc" in runtimes:
        yield "runtimes: runtime name 'runc' is reserved"
    for name, runtime in runtimes.items():
        if isinstance(runtime, Runtime) and runtime.arguments:
            yield (f"runtimes: {name}: runtimeArgs are not passed on; name a script that adds them")


def _tls(values: Mapping[str, object]) -> Iterator[str]:
    if bool(values.get("tlscert")) != bool(values.get("tlskey")):
        yield "tlscert and tlskey need each other"
