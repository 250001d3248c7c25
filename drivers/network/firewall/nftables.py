"""The firewall backend ``nftables``: one table per root, in family ``inet``, through libnftables.

::

    table inet stowage-<root id>
    ├── frame: seven chains of fixed rules             written once, see _script.py
    ├── chains allow-<hash of an allow list>           where the host's own filter drops
    └── sets and maps                                  one element per network fact and port

Every change adds or deletes elements in one transaction; none rewrites a chain. Deleting is
compare-and-delete, so that a late clean-up never takes away what another endpoint was given.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Sequence
from typing import Any

from stowage import hookimpl
from stowage.errors import DataLoss, StowageError, from_os_error
from stowage.linux.namespaces import CLONE_NEWNET, on_throwaway_thread, unshare
from stowage.linux.nfnetlink import chain_exists
from stowage.linux.nft import NftError, NftSession
from stowage.model import (
    API_VERSION,
    Finding,
    FirewallEndpoint,
    FirewallNetwork,
    NetworkCapabilities,
    NetworkContext,
    NetworkProbe,
)
from stowage.options import Option, Options

from . import _foreign, _script
from ._script import Element


class NftablesBackend:
    """Writes the root's table."""

    name = "nftables"
    api_version = API_VERSION
    options: Sequence[Option[object]] = ()
    priority = 50

    def __init__(self, context: NetworkContext, options: Options, logger: logging.Logger) -> None:
        self._root_id = context.root_id
        self._table = _script.table_name(context.root_id)
        self._allow_forward = bool(context.settings.get("allow-forward", False))
        self._logger = logger
        self._session = NftSession()

    @hookimpl
    def firewall_probe(self) -> NetworkProbe:
        try:
            on_throwaway_thread(_try_frame)
        except StowageError as error:
            return NetworkProbe(
                findings=(Finding(error.details or error.brief, error.resolution or ""),)
            )
        except NftError as error:
            remedy = "a kernel of 5.8 or later with NAT in family inet (CONFIG_NFT_NAT, NFT_FIB)"
            return NetworkProbe(findings=(Finding(f"the rules are refused: {error}", remedy),))
        except OSError as error:
            remedy = "run as root with CAP_NET_ADMIN"
            return NetworkProbe(findings=(Finding(f"cannot be tried: {error.strerror}", remedy),))
        notes = ("one table per root; a port is one element of a map",)
        return NetworkProbe(NetworkCapabilities(publish=True), notes=notes)

    # --- networks ----------------------------------------------------------------------------

    @hookimpl
    def firewall_intact(self) -> bool:
        return chain_exists("inet", self._table, _script.LAYOUT_CHAIN)

    @hookimpl
    def firewall_add_network(self, network: FirewallNetwork) -> None:
        foreign = _foreign.look()
        restricted = _restricted(network, foreign)
        script = self._allow_chain(network) if restricted else ""
        elements = _script.network_elements(network, restricted=restricted)
        self._add(script + _script.add(self._root_id, elements), network.bridge)
        self._open_forward(network, foreign)

    def _allow_chain(self, network: FirewallNetwork) -> str:
        """Its name says its rules, so writing it again changes nothing."""
        chain = f"inet {self._table} {_script.allow_chain(network)}"
        rules = "".join(f"add rule {chain} {rule}\n" for rule in _script.allow_rules(network))
        return f"add chain {chain}\nflush chain {chain}\n{rules}"

    def _open_forward(self, network: FirewallNetwork, foreign: _foreign.Foreign) -> None:
        dropping = foreign.dropping_forward({subnet.version for subnet in network.subnets})
        if dropping and self._allow_forward and not network.internal:
            _foreign.allow_forward(self._session, dropping, self._table, network.bridge)

    @hookimpl
    def firewall_remove_network(self, network: FirewallNetwork) -> None:
        shown = self._shown()
        if shown is None:
            return
        kept = frozenset(name for kind, name in shown.elements if kind == "bridges")
        kept -= {f'"{network.bridge}"'}
        if kept:
            either = [*_script.network_elements(network, restricted=True),
                      *_script.network_elements(network, restricted=False)]  # fmt: skip
            gone = [element for element in dict.fromkeys(either) if element in shown.elements]
            self._transact(_script.delete(self._root_id, gone) + self._unused(shown, gone))
        else:
            self._transact(f"delete table inet {self._table}\n")
        _foreign.withdraw_forward(
            self._session, self._table, frozenset(name.strip('"') for name in kept)
        )

    def _unused(self, shown: _Shown, gone: Sequence[Element]) -> str:
        """Delete the allow chains that no other network uses."""
        left = " ".join(text for kind, text in shown.elements - set(gone) if kind == "published")
        return "".join(
            f"delete chain inet {self._table} {chain}\n"
            for chain in shown.rules
            if chain.startswith("allow-") and chain not in left
        )

    # --- endpoints ---------------------------------------------------------------------------

    @hookimpl
    def firewall_add_endpoint(self, network: FirewallNetwork, endpoint: FirewallEndpoint) -> None:
        elements = _script.endpoint_elements(network, endpoint)
        if elements:
            self._add(_script.add(self._root_id, elements), endpoint.id)

    @hookimpl
    def firewall_remove_endpoint(
        self, network: FirewallNetwork, endpoint: FirewallEndpoint
    ) -> None:
        self._remove(_script.endpoint_elements(network, endpoint))

    @hookimpl
    def firewall_add_link(
        self, network: FirewallNetwork, source: FirewallEndpoint, target: FirewallEndpoint
    ) -> None:
        elements = _script.link_elements(source, target)
        if elements:
            self._add(_script.add(self._root_id, elements), source.id)

    @hookimpl
    def firewall_remove_link(
        self, network: FirewallNetwork, source: FirewallEndpoint, target: FirewallEndpoint
    ) -> None:
        self._remove(_script.link_elements(source, target))

    def _remove(self, elements: Sequence[Element]) -> None:
        if not elements:
            return
        try:
            self._session.transact(_script.compare_and_delete(self._root_id, elements))
        except NftError as error:
            if error.errno not in (errno.ENOENT, errno.EEXIST, errno.EBUSY):
                raise from_os_error(error, f"nftables: {self._table}") from error
            # a port leads elsewhere by now, or all is gone: delete exactly what is there
            shown = self._shown()
            there = [element for element in elements if shown and element in shown.elements]
            self._transact(_script.delete(self._root_id, there))

    # --- the whole table ---------------------------------------------------------------------

    @hookimpl
    def firewall_check(
        self, networks: Sequence[FirewallNetwork], endpoints: Sequence[FirewallEndpoint]
    ) -> Sequence[str]:
        shown = self._shown()
        if shown is None:
            return [f"the table inet {self._table} is missing"] if networks else []
        foreign = _foreign.look()
        wanted = set(_desired(networks, endpoints, foreign))
        found = [
            f"{kind} lacks {text}" for kind, text in sorted(wanted - shown.elements)
        ] + [f"{kind} has {text} too many" for kind, text in sorted(shown.elements - wanted)
             if kind not in ("links4", "links6")]  # fmt: skip
        rules = _script.frame_rules()
        rules |= {_script.allow_chain(network): len(_script.allow_rules(network))
                  for network in networks if _restricted(network, foreign)}  # fmt: skip
        rules[_script.LAYOUT_CHAIN] = 0
        for chain, count in rules.items():
            if shown.rules.get(chain) != count:
                found.append(f"the chain {chain} is not as it was written")
        return [f"table inet {self._table}: {problem}" for problem in found]

    @hookimpl
    def firewall_restore(
        self, networks: Sequence[FirewallNetwork], endpoints: Sequence[FirewallEndpoint]
    ) -> None:
        if not networks:
            self._clear()
            return
        foreign = _foreign.look()
        shown = self._shown()
        links = [e for e in shown.elements if e[0].startswith("links")] if shown else []
        script = f"add table inet {self._table}\ndelete table inet {self._table}\n"
        restricted = [network for network in networks if _restricted(network, foreign)]
        elements = [*_desired(networks, endpoints, foreign), *links]
        self._transact(script + _script.frame(self._root_id, elements, restricted))
        for network in networks:
            self._open_forward(network, foreign)
        keep = frozenset(network.bridge for network in networks)
        _foreign.withdraw_forward(self._session, self._table, keep)

    @hookimpl
    def firewall_clear(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._transact(f"add table inet {self._table}\ndelete table inet {self._table}\n")
        _foreign.withdraw_forward(self._session, self._table)

    @hookimpl
    def firewall_warnings(self, network: FirewallNetwork) -> Sequence[str]:
        foreign = _foreign.look()
        found = []
        for chain in foreign.dropping_forward({subnet.version for subnet in network.subnets}):
            if not network.internal and not self._passes(chain, network.bridge):
                found.append(_forward_warning(chain, network.bridge))
        if _restricted(network, foreign):
            found.append(_input_warning(foreign, network))
        return found

    def _passes(self, chain: Any, bridge: str) -> bool:
        return _foreign.forward_allowed(self._session, chain, self._table, bridge)

    @hookimpl
    def firewall_close(self) -> None:
        self._session.close()

    # --- transactions ------------------------------------------------------------------------

    def _add(self, script: str, what: str) -> None:
        try:
            self._session.transact(script, on=what)
        except NftError as error:
            if error.errno in (errno.ENOENT, errno.EEXIST, errno.EBUSY):
                raise DataLoss(
                    f"the rules in table inet {self._table} are not as they were left",
                    details=error.messages.strip(),
                    resolution="stowage network reconcile",
                ) from error
            raise from_os_error(error, f"nftables: {self._table}") from error

    def _transact(self, script: str) -> None:
        if script:
            try:
                self._session.transact(script)
            except NftError as error:
                raise from_os_error(error, f"nftables: {self._table}: {error}") from error

    def _shown(self) -> _Shown | None:
        """Return what the table holds, or None if there is no such table."""
        try:
            return _Shown(self._session.query(f"list table inet {self._table}"))
        except NftError as error:
            if error.errno == errno.ENOENT:
                return None
            raise from_os_error(error, f"nftables: {self._table}") from error


class _Shown:
    """A listed table: its *elements* in our own words, and how many rules each chain has."""

    def __init__(self, objects: Sequence[dict[str, Any]]) -> None:
        self.elements: set[Element] = set()
        self.rules: dict[str, int] = {}
        for shown in objects:
            if "chain" in shown:
                self.rules.setdefault(shown["chain"]["name"], 0)
            elif "rule" in shown:
                chain = shown["rule"]["chain"]
                self.rules[chain] = self.rules.get(chain, 0) + 1
            else:
                for held in (shown.get("set"), shown.get("map")):
                    if held:
                        self._take(held)

    def _take(self, held: dict[str, Any]) -> None:
        devices = held["type"] == "ifname" or "ifname" in held["type"]
        for element in held.get("elem", ()):
            if isinstance(element, list):
                key, value = element
                text = f"{_words(key, devices=devices)} : {_words(value)}"
            else:
                text = _words(element, devices=devices)
            self.elements.add((held["name"], text))


def _words(value: Any, *, devices: bool = False) -> str:
    """Return a value of libnftables-json(5) as _script.py writes it."""
    if isinstance(value, dict):
        if "elem" in value:
            return _words(value["elem"]["val"], devices=devices)
        if "concat" in value:
            return " . ".join(_words(part, devices=devices) for part in value["concat"])
        if "prefix" in value:
            return f"{value['prefix']['addr']}/{value['prefix']['len']}"
        if "goto" in value:
            return f"goto {value['goto']['target']}"
        return str(next(iter(value)))
    return f'"{value}"' if devices else str(value)


def _desired(
    networks: Sequence[FirewallNetwork],
    endpoints: Sequence[FirewallEndpoint],
    foreign: _foreign.Foreign,
) -> list[Element]:
    by_id = {network.id: network for network in networks}
    elements: list[Element] = []
    for network in networks:
        restricted = _restricted(network, foreign)
        elements += _script.network_elements(network, restricted=restricted)
    for endpoint in endpoints:
        if endpoint.network_id in by_id:
            elements += _script.endpoint_elements(by_id[endpoint.network_id], endpoint)
    return elements


def _restricted(network: FirewallNetwork, foreign: _foreign.Foreign) -> bool:
    return network.publish_policy == "host" and foreign.closed


def _try_frame() -> None:
    """Write the frame in a namespace made for it."""
    unshare(CLONE_NEWNET)
    session = NftSession()
    try:
        session.transact(_script.frame("probe", (), ()))
    finally:
        session.close()


def _forward_warning(chain: Any, bridge: str) -> str:
    iptables = "ip6tables" if chain.family == "ip6" else "iptables"
    tool = f"{iptables}-legacy" if chain.legacy else iptables
    if chain.family == "inet":
        words = f"nft insert rule inet {chain.table} {chain.name}"
        by_hand = f"'{words} iifname {bridge} accept', and the same with oifname"
    else:
        by_hand = f"'{tool} -I FORWARD -i {bridge} -j ACCEPT', and the same with -o"
    set_it = "" if chain.legacy else "set allow-forward, or "
    return (
        f"the host drops forwarded packets (policy of {chain}): containers on {bridge} reach only"
        f" this host and each other, and their ports cannot be reached from outside; {set_it}"
        f"run {by_hand}"
    )


def _input_warning(foreign: _foreign.Foreign, network: FirewallNetwork) -> str:
    allowed = ", ".join(str(source) for source in network.publish_allow)
    who = f"only from {allowed} and this host" if allowed else "only from this host"
    chains = " and ".join(str(chain) for chain in foreign.input)
    return (
        f"the host drops what comes in (policy of {chains}), so published ports can be reached"
        f" {who}; name others in publish-allow, or set publish-policy: docker"
    )
