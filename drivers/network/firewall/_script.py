"""The table of a root in nft's language: a fixed frame, and elements that say what there is.

Rules are written once. A network or a port adds elements to sets and maps, which the kernel
finds by hash, so the first port and the ten-thousandth cost the same. What each set holds::

    bridges      devices of the root's networks
    internal     those of internal networks
    paths        (in, out): links between which everything may pass (icc, trusted links)
    published    bridge → what becomes of a new connection to a published port
    subnets4/6   the networks' subnets
    masquerade4/6  those whose packets leave with the host's address
    source4/6    subnet → the address that its packets leave with instead
    any4/6       (protocol, port) → where: ports published on every address of the host
    bound4/6     (address, protocol, port) → where: ports published on one address
    refused6     (protocol, port) that are published on ::, and cannot be on ::1
    routed4/6    subnets without translation
    open4/6      (address, protocol, port) of routed networks, reached without translation
    links4/6     (from, to, protocol, port) that pass although icc is off

Traps (kernel 6.18, nft 1.0.6): with bridge-nf-call-iptables a packet that a bridge redirects to
one of its own ports has no ``iifname`` in postrouting, so hairpins are known by subnet; ``dstnat``
is no name in the output hook (-100); a last statement needs an end of line before ``}``.
Answers to ``::1`` are never taken from a bridge, so there a client is refused at once, and tries
``127.0.0.1``, instead of waiting.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence

from stowage.model import Address, FirewallEndpoint, FirewallNetwork, PortMapping, Subnet

LAYOUT_CHAIN = "layout-1"
"""An empty chain whose name changes with the frame: a table without it is written anew."""

Element = tuple[str, str]
"""The name of a set or map, and one element of it in nft's words."""

_ADDRESS = {4: "ipv4_addr", 6: "ipv6_addr"}
_IP = {4: "ip", 6: "ip6"}
_PORT = "inet_proto . inet_service"


def table_name(root_id: str) -> str:
    return f"stowage-{root_id}"


# --- the frame ----------------------------------------------------------------------------------


def _sets() -> Iterator[tuple[str, str, str]]:
    """Yield (set or map, name, its type and flags)."""
    yield "set", "bridges", "type ifname;"
    yield "set", "internal", "type ifname;"
    yield "set", "paths", "type ifname . ifname;"
    yield "map", "published", "type ifname : verdict;"
    yield "set", "refused6", f"type {_PORT};"
    for family, address in _ADDRESS.items():
        yield "set", f"subnets{family}", f"type {address}; flags interval;"
        yield "set", f"masquerade{family}", f"type {address}; flags interval;"
        yield "map", f"source{family}", f"type {address} : {address}; flags interval;"
        yield "map", f"any{family}", f"type {_PORT} : {address} . inet_service;"
        yield "map", f"bound{family}", f"type {address} . {_PORT} : {address} . inet_service;"
        yield "set", f"open{family}", f"type {address} . {_PORT};"
        yield "set", f"routed{family}", f"type {address}; flags interval;"
        yield "set", f"links{family}", f"type {address} . {address} . {_PORT};"


_CHAINS = """
    chain prerouting {
        type nat hook prerouting priority dstnat; policy accept;
        iifname != "lo" ip daddr 127.0.0.0/8 return
        iifname != "lo" ip6 daddr ::1 return
        ip6 saddr fe80::/10 return
        fib daddr type local jump publish
    }
    chain output {
        type nat hook output priority -100; policy accept;
        ip6 daddr ::1 return
        fib daddr type local jump publish
    }
    chain publish {
        dnat ip to ip daddr . meta l4proto . th dport map @bound4
        dnat ip to meta l4proto . th dport map @any4
        dnat ip6 to ip6 daddr . meta l4proto . th dport map @bound6
        dnat ip6 to meta l4proto . th dport map @any6
    }
    chain refuse {
        type filter hook output priority filter; policy accept;
        ip6 daddr ::1 meta l4proto tcp meta l4proto . th dport @refused6 reject with tcp reset
        ip6 daddr ::1 meta l4proto . th dport @refused6 reject
    }
    chain guard {
        type filter hook prerouting priority raw; policy accept;
        iifname @bridges ip daddr 127.0.0.0/8 drop
    }
    chain postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        oifname @bridges goto inward
        snat ip to ip saddr map @source4
        snat ip6 to ip6 saddr map @source6
        ip saddr @masquerade4 masquerade
        ip6 saddr @masquerade6 masquerade
    }
    chain inward {
        ct status dnat fib saddr type local masquerade
        ct status dnat ip saddr @subnets4 masquerade
        ct status dnat ip6 saddr @subnets6 masquerade
    }
    chain forward {
        type filter hook forward priority filter; policy accept;
        oifname @bridges goto into
        iifname @internal drop
    }
    chain into {
        ct state established,related accept
        iifname . oifname @paths accept
        ip saddr . ip daddr . meta l4proto . th dport @links4 accept
        ip6 saddr . ip6 daddr . meta l4proto . th dport @links6 accept
        iifname @internal drop
        oifname @internal drop
        ct status dnat oifname vmap @published
        ip daddr . meta l4proto . th dport @open4 accept
        ip6 daddr . meta l4proto . th dport @open6 accept
        meta l4proto icmp ip daddr @routed4 accept
        meta l4proto ipv6-icmp ip6 daddr @routed6 accept
        drop
    }
"""


def frame_rules() -> dict[str, int]:
    """Return how many rules each fixed chain has."""
    counts: dict[str, int] = {}
    for line in map(str.strip, _CHAINS.splitlines()):
        if line.startswith("chain "):
            counts[chain := line.split()[1]] = 0
        elif line and line != "}" and not line.startswith("type "):
            counts[chain] += 1
    return counts


def frame(root_id: str, elements: Iterable[Element], networks: Sequence[FirewallNetwork]) -> str:
    """Return the definition of the whole table, with *elements* in its sets and the chains
    that say who may reach ports of *networks*."""
    by_set: dict[str, list[str]] = {}
    for name, element in dict.fromkeys(elements):
        by_set.setdefault(name, []).append(element)
    lines = [f"table inet {table_name(root_id)} {{", f"    chain {LAYOUT_CHAIN} {{\n    }}"]
    for kind, name, definition in _sets():
        lines.append(f"    {kind} {name} {{ {definition}")
        if held := by_set.get(name):
            lines.append(f"        elements = {{ {', '.join(held)} }}")
        lines.append("    }")
    lines.append(_CHAINS)
    for name, rules in {allow_chain(network): allow_rules(network) for network in networks}.items():
        lines += [f"    chain {name} {{", *(f"        {rule}" for rule in rules), "    }"]
    return "\n".join([*lines, "}", ""])


# --- what networks and endpoints add ------------------------------------------------------------


def allow_chain(network: FirewallNetwork) -> str:
    """The chain that lets only the network's ``publish_allow`` pass; its name tells its rules."""
    text = " ".join(sorted(map(str, network.publish_allow)))
    return f"allow-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def allow_rules(network: FirewallNetwork) -> list[str]:
    """Containers of the root pass as well: they are no strangers."""
    rules = ["iifname @bridges accept"]
    for family, word in _IP.items():
        sources = [str(source) for source in network.publish_allow if source.version == family]
        if sources:
            rules.append(f"{word} saddr {{ {', '.join(sources)} }} accept")
    return [*rules, "drop"]


def network_elements(network: FirewallNetwork, *, restricted: bool) -> list[Element]:
    """Return the elements of a network; *restricted*: only ``publish_allow`` reaches its ports."""
    device = _quoted(network.bridge)
    verdict = f"goto {allow_chain(network)}" if restricted else "accept"
    found = [("bridges", device), ("published", f"{device} : {verdict}")]
    if network.icc:
        found.append(("paths", f"{device} . {device}"))
    for trusted in network.trusted_interfaces:
        found.append(("paths", f"{_quoted(trusted)} . {device}"))
    if network.internal:
        found.append(("internal", device))
    for subnet in network.subnets:
        found += _subnet_elements(network, subnet)
    return found


def _subnet_elements(network: FirewallNetwork, subnet: Subnet) -> Iterator[Element]:
    family, shown = subnet.version, _shown(subnet)
    yield f"subnets{family}", shown
    if family in network.routed:
        yield f"routed{family}", shown
    elif network.masquerade and not network.internal:
        source = next((a for a in network.source_addresses if a.version == family), None)
        if source is None:
            yield f"masquerade{family}", shown
        else:
            yield f"source{family}", f"{shown} : {source}"


def _shown(subnet: Subnet) -> str:
    whole = subnet.prefixlen == subnet.max_prefixlen
    return str(subnet.network_address if whole else subnet)


def _quoted(device: str) -> str:
    return f'"{device}"'


def endpoint_elements(network: FirewallNetwork, endpoint: FirewallEndpoint) -> list[Element]:
    """Return one element for each published port of the endpoint; none if it is internal.

    A mapping whose family the endpoint has no address of gives none.
    """
    if network.internal:
        return []
    address_by_family: dict[int, Address] = {a.version: a for a in endpoint.addresses}
    found: list[Element] = []
    for port in endpoint.ports:
        address = address_by_family.get(port.host_address.version)
        if address is not None:
            found += _port_elements(network, address, port)
    return list(dict.fromkeys(found))


def _port_elements(
    network: FirewallNetwork, address: Address, port: PortMapping
) -> Iterator[Element]:
    family = address.version
    if family in network.routed:
        yield f"open{family}", f"{address} . {port.protocol} . {port.container_port}"
        return
    target = f"{address} . {port.container_port}"
    key = f"{port.protocol} . {port.host_port}"
    if not port.host_address.is_unspecified:
        yield f"bound{family}", f"{port.host_address} . {key} : {target}"
        return
    yield f"any{family}", f"{key} : {target}"
    if family == 6:
        yield "refused6", key


def link_elements(source: FirewallEndpoint, target: FirewallEndpoint) -> list[Element]:
    """Return what lets *source* reach the container ports of *target*."""
    return [
        (f"links{to.version}", f"{came} . {to} . {port.protocol} . {port.container_port}")
        for came in source.addresses
        for to in target.addresses
        for port in target.ports
        if came.version == to.version
    ]


# --- transactions -------------------------------------------------------------------------------


def add(root_id: str, elements: Iterable[Element]) -> str:
    return _each("add", root_id, elements)


def delete(root_id: str, elements: Iterable[Element]) -> str:
    """Delete elements that are there; for those of maps the key alone counts."""
    keys = [(name, text.partition(" : ")[0]) for name, text in elements]
    return _each("delete", root_id, keys)


def compare_and_delete(root_id: str, elements: Iterable[Element]) -> str:
    """Delete elements that may be there.

    Adding first makes an absent one no error, and one that leads elsewhere refuse the whole
    (EEXIST) instead of being deleted by its key.
    """
    elements = list(elements)
    return add(root_id, elements) + delete(root_id, elements)


def _each(verb: str, root_id: str, elements: Iterable[Element]) -> str:
    by_set: dict[str, list[str]] = {}
    for name, element in elements:
        by_set.setdefault(name, []).append(element)
    table = table_name(root_id)
    return "".join(
        f"{verb} element inet {table} {name} {{ {', '.join(held)} }}\n"
        for name, held in by_set.items()
    )
