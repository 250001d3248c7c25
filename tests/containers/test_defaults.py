"""What ``daemon.json`` says for all containers, unless one asks for something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from stowage.config import Config
from stowage.config_types import Ulimit
from stowage.containers.defaults import configured
from stowage.containers.model import ContainerSpec
from stowage.containers.namespaces import Namespaces
from stowage.containers.resources import Resources
from stowage.containers.security import Security
from stowage.containers.security_options import with_options
from stowage.errors import InvalidArgument

from .boxes import Boxes


@pytest.fixture
def config(tmp_path: Path) -> Config:
    profile = tmp_path / "profile.json"
    profile.write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
    return Config(
        default_ulimits={"nofile": Ulimit(5, 6)}, default_shm_size=1 << 20, cgroup_parent="/p",
        default_ipc_mode="shareable", default_cgroupns_mode="private", no_new_privileges=True,
        seccomp_profile=str(profile),
    )  # fmt: skip


def test_what_is_configured_holds_where_nothing_is_asked(config: Config) -> None:
    assert configured(ContainerSpec(), config) == ContainerSpec(
        resources=Resources(
            ulimits={"nofile": Ulimit(5, 6)}, shm_size_bytes=1 << 20, cgroup_parent="/p"
        ),
        security=Security(no_new_privileges=True, seccomp='{"defaultAction":"SCMP_ACT_ALLOW"}'),
        namespaces=Namespaces(ipc="shareable", cgroupns="private"),
    )


def test_what_is_asked_for_wins(config: Config) -> None:
    asked = ContainerSpec(
        resources=Resources(
            ulimits={"nofile": Ulimit(1, 1)}, shm_size_bytes=1, cgroup_parent="/mine"
        ),
        security=with_options(
            Security(), ["no-new-privileges=false", "seccomp=builtin"]
        ),
        namespaces=Namespaces(ipc="none", cgroupns="host"),
    )  # fmt: skip

    assert configured(asked, config) == asked


def test_a_configured_profile_that_cannot_be_read_is_named() -> None:
    with pytest.raises(InvalidArgument, match=r"opening seccomp profile \(/nosuch\) failed"):
        configured(ContainerSpec(), Config(seccomp_profile="/nosuch"))


def test_a_container_gets_it(boxes: Boxes) -> None:
    config = Config.for_root(
        boxes.root, {"no-new-privileges": ["true"], "seccomp-profile": ["unconfined"]}
    )
    before, boxes.engine.config = boxes.engine.config, config
    try:
        wrote = boxes.sh("grep -E '^(NoNewPrivs|Seccomp:)' /proc/self/status")
    finally:
        boxes.engine.config = before
    assert wrote.split() == ["NoNewPrivs:", "1", "Seccomp:", "0"]
