"""Filters of others on this host: what they do to our packets, and the one rule for it.

Only policies are looked at, never rules: a base chain on *input* that drops says that the host
wants to be closed; one on *forward* that drops stops containers altogether, whatever our own
table accepts. No foreign table is changed, but for ``allow-forward``: then marked rules stand at
the head of ``DOCKER-USER``, or of the chain that drops, and are taken away again.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence

from msgspec import Struct

from stowage.errors import NotSupported, from_os_error
from stowage.linux.nfnetlink import BaseChain, base_chains, chain_exists
from stowage.linux.nft import NftError, NftSession
from stowage.linux.xtables import legacy_base_chains

_OURS = "stowage-"
_DOCKER_USER = "DOCKER-USER"
_VERSIONS = {"ip": (4,), "ip6": (6,), "inet": (4, 6)}


class Foreign(Struct, frozen=True):
    """The base chains of others whose policy is drop, at one instant."""

    input: tuple[BaseChain, ...]
    forward: tuple[BaseChain, ...]

    @property
    def closed(self) -> bool:
        """Whether the host drops what comes in unless a rule allows it."""
        return bool(self.input)

    def dropping_forward(self, versions: set[int]) -> Sequence[BaseChain]:
        """The chains that stop forwarded packets of these address families."""
        return [chain for chain in self.forward if versions & set(_VERSIONS[chain.family])]


def look() -> Foreign:
    """Read what there is now (about 0.1 ms).

    Raises:
        StowageError: without nftables in the kernel or without CAP_NET_ADMIN.
    """
    try:
        chains = [*base_chains(), *legacy_base_chains()]
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EPROTONOSUPPORT, errno.EINVAL):
            raise NotSupported(
                "this kernel has no nftables",
                details=str(error),
                resolution="use a kernel with CONFIG_NF_TABLES, or firewall-backend: none",
            ) from error
        raise from_os_error(error, "the packet filter cannot be read") from error
    dropping = [
        chain
        for chain in chains
        if chain.drops and chain.type in ("filter", "") and not chain.table.startswith(_OURS)
    ]
    return Foreign(
        tuple(chain for chain in dropping if chain.hook == "input"),
        tuple(chain for chain in dropping if chain.hook == "forward"),
    )


# --- allow-forward ------------------------------------------------------------------------------


def allow_forward(session: NftSession, chains: Sequence[BaseChain], mark: str, bridge: str) -> None:
    """Let packets from and to *bridge* pass each of *chains*; what stands there stays."""
    script = ""
    for family, table, name in _places(chains):
        present = {side for side, device, _ in _marked(session, family, table, name, mark)
                   if device == bridge}  # fmt: skip
        script += "".join(
            f'insert rule {family} {table} {name} {side} "{bridge}" counter accept'
            f' comment "{mark}"\n'
            for side in ("oifname", "iifname")
            if side not in present
        )
    if script:
        session.transact(script, bridge=bridge)


def forward_allowed(session: NftSession, chain: BaseChain, mark: str, bridge: str) -> bool:
    """Whether our rules for *bridge* stand before that chain's policy."""
    sides = {
        side
        for family, table, name in _places([chain])
        for side, device, _ in _marked(session, family, table, name, mark)
        if device == bridge
    }
    return sides == {"iifname", "oifname"}


def withdraw_forward(session: NftSession, mark: str, keep: frozenset[str] = frozenset()) -> None:
    """Take away every rule with our *mark* but those for the bridges in *keep*."""
    script = ""
    for family, table, name in _all_places():
        for _, device, handle in _marked(session, family, table, name, mark):
            if device not in keep:
                script += f"delete rule {family} {table} {name} handle {handle}\n"
    if script:
        session.transact(script, mark=mark)


def _places(chains: Sequence[BaseChain]) -> Iterator[tuple[str, str, str]]:
    """Yield (family, table, chain) where a rule goes; the legacy tables cannot be reached."""
    for chain in chains:
        if not chain.legacy:
            assert chain.family in ("ip", "ip6", "inet")
            user = chain_exists(chain.family, chain.table, _DOCKER_USER)  # type: ignore[arg-type]  # one of the three
            yield chain.family, chain.table, _DOCKER_USER if user else chain.name


def _all_places() -> Iterator[tuple[str, str, str]]:
    """Yield every chain that may hold a rule of ours, whatever its policy is by now."""
    for chain in base_chains():
        if chain.hook == "forward" and not chain.table.startswith(_OURS):
            yield chain.family, chain.table, chain.name
            if chain_exists(chain.family, chain.table, _DOCKER_USER):  # type: ignore[arg-type]  # as above
                yield chain.family, chain.table, _DOCKER_USER


def _marked(
    session: NftSession, family: str, table: str, chain: str, mark: str
) -> list[tuple[str, str, int]]:
    """Return (iifname or oifname, device, handle) of the rules with our mark in a chain."""
    try:
        shown = session.query(f"list chain {family} {table} {chain}")
    except NftError as error:
        if error.errno == errno.ENOENT:
            return []
        raise
    found = []
    for rule in (entry["rule"] for entry in shown if "rule" in entry):
        if rule.get("comment") != mark:
            continue
        for expression in rule["expr"]:
            match = expression.get("match", {})
            side = match.get("left", {}).get("meta", {}).get("key", "")
            if side in ("iifname", "oifname"):
                found.append((side, str(match["right"]), int(rule["handle"])))
    return found
