"""Containers read in ``ps`` and ``inspect`` as Docker's do."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from stowage.cli.container_rows import CONTAINERS, container_row, status
from stowage.containers.describe import inspect_document
from stowage.containers.model import (
    ContainerRecord,
    ContainerSpec,
    ContainerState,
    RuntimeFacts,
)

NS = 1_000_000_000
ID = "d80b80f82fbc4b539bbfb9b028490fc268d6b33e0af6ef89221a345037aa530f"
NOW = time.time_ns()

RECORD = ContainerRecord(
    id=ID,
    name="web",
    state=ContainerState.RUNNING,
    image_id="sha256:" + "15" * 32,
    image_name="busybox",
    driver="overlay",
    snapshot=ID,
    created_ns=NOW - 90 * NS,
    spec=ContainerSpec(
        image="busybox",
        command=("sh", "-c", "echo a long command line"),
        labels={"b": "2", "a": "1"},
        network="none",
    ),
    runtime=RuntimeFacts(started_ns=NOW - 5 * NS),
)


@pytest.mark.parametrize(
    ("state", "facts", "text"),
    [
        ("created", {}, "Created"),
        ("running", {"started_ns": NOW - 61 * NS}, "Up About a minute"),
        ("paused", {"started_ns": NOW - 3 * NS}, "Up 3 seconds (Paused)"),
        ("exited", {"finished_ns": NOW - 2 * NS, "exit_code": 0}, "Exited (0) 2 seconds ago"),
        ("exited", {"finished_ns": NOW, "exit_code": 137}, "Exited (137) Less than a second ago"),
        ("dead", {}, "Dead"),
        ("removing", {}, "Removal In Progress"),
    ],
)
def test_the_status_is_dockers_sentence(state: str, facts: dict[str, int], text: str) -> None:
    """One for each state."""
    runtime = RuntimeFacts(**facts)  # type: ignore[arg-type]  # only its integers are given
    record = replace(RECORD, state=ContainerState(state), runtime=runtime)

    assert status(record, NOW) == text


def test_ps_cuts_what_is_long() -> None:
    """Ids to 12, commands to 20 and in quotes; --no-trunc shows all."""
    record = replace(RECORD, created_ns=time.time_ns() - 90 * 10**9)

    row = container_row(record, image="busybox")

    assert row["ID"] == "d80b80f82fbc"
    assert row["Command"] == '"sh -c \'echo a long …"'
    assert row["RunningFor"] == "About a minute ago"
    full = container_row(RECORD, image="busybox", full=True)
    assert full["ID"] == ID
    assert full["Command"] == "\"sh -c 'echo a long command line'\""


def test_templates_reach_labels() -> None:
    """``{{.Label "a"}}`` and ``{{.Labels}}``."""
    row = container_row(RECORD, image="busybox")

    assert CONTAINERS.show([row], format='{{.Names}}: {{.Label "a"}} {{.Labels}}') == (
        "web: 1 a=1,b=2"
    )


def test_inspect_has_dockers_fields() -> None:
    """The same names in the same order, with this container's values."""
    files = {name: f"/d/{name}" for name in ("hosts", "hostname", "resolv.conf", "log")}

    document = inspect_document(RECORD, files, {}, "none", Path)

    assert list(document) == [
        "Id", "Created", "Path", "Args", "State", "Image", "ResolvConfPath", "HostnamePath",
        "HostsPath", "LogPath", "Name", "RestartCount", "Driver", "Platform", "MountLabel",
        "ProcessLabel", "AppArmorProfile", "ExecIDs", "HostConfig", "GraphDriver", "Mounts",
        "Config", "NetworkSettings",
    ]  # fmt: skip
    assert document["Name"] == "/web"
    state = document["State"]
    assert isinstance(state, dict)
    assert (state["Status"], state["Running"]) == ("running", True)
    assert state["FinishedAt"] == "0001-01-01T00:00:00Z"
    config = document["Config"]
    assert isinstance(config, dict)
    assert config["Hostname"] == "d80b80f82fbc"
