"""Which firewall backend a root gets, and when it may change."""

from __future__ import annotations

from pathlib import Path

import pytest

from stowage.config import Config
from stowage.engine import Engine
from stowage.errors import FailedPrecondition, NotFound

pytestmark = pytest.mark.requires_root


def engine(root: Path, **flags: str) -> Engine:
    names = {name.replace("_", "-"): value for name, value in flags.items()}
    return Engine(config=Config.for_root(root, names))


def test_it_is_probed_once_and_recorded(shm_dir: Path) -> None:
    with engine(shm_dir) as first:
        assert first.firewall.name == "nftables"
        assert first.metastore.setting("firewall-backend") == "nftables"
    with engine(shm_dir, firewall_backend="none") as second:
        assert second.firewall.name == "none"
    with engine(shm_dir) as third:
        assert third.firewall.name == "none"


def test_without_rules_at_all_it_is_none(shm_dir: Path) -> None:
    with engine(shm_dir, iptables="false") as opened:
        assert opened.firewall.name == "none"


def test_it_does_not_change_under_connected_containers(shm_dir: Path) -> None:
    with engine(shm_dir) as opened:
        assert opened.firewall.name == "nftables"
        with opened.metastore.transaction() as tx:
            tx.execute("INSERT INTO endpoints VALUES ('e', 'n', 'c', 'ready', '{}')")
    with (
        engine(shm_dir, firewall_backend="none") as other,
        pytest.raises(FailedPrecondition, match="is 'nftables', not 'none'"),
    ):
        other.firewall  # noqa: B018  # opening it is the act


def test_an_unknown_one_names_what_there_is(shm_dir: Path) -> None:
    with (
        engine(shm_dir, firewall_backend="nftable") as opened,
        pytest.raises(NotFound, match="did you mean 'nftables'"),
    ):
        opened.firewall  # noqa: B018  # opening it is the act
