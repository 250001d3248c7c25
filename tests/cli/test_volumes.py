"""Volumes on the command line, as Docker shows them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Run

pytestmark = pytest.mark.requires("containers", "busybox")


@pytest.fixture(autouse=True)
def _no_volumes(stowage: Run) -> None:
    for name in stowage("ps", "-aq").out.split():
        stowage("rm", "-fv", name)
    for name in stowage("volume", "ls", "-q").out.split():
        assert stowage("volume", "rm", name).code == 0


def test_volumes_are_listed_as_docker_lists_them(stowage: Run) -> None:
    assert stowage("volume", "create", "--label", "a=1", "--label", "b", "vol1").line == "vol1"
    assert stowage("volume", "create", "vol2").line == "vol2"
    assert stowage("create", "--network", "none", "-v", "vol2:/x", "busybox", "true").code == 0

    assert stowage("volume", "ls").out == (
        "DRIVER    VOLUME NAME\nlocal     vol1\nlocal     vol2\n"
    )  # fmt: skip
    for wanted, names in (
        ("name=vol", ["vol1", "vol2"]),
        ("name=^vol1$", ["vol1"]),
        ("dangling=true", ["vol1"]),
        ("dangling=0", ["vol2"]),
        ("label=a=1", ["vol1"]),
        ("label=c", []),
        ("driver=local", ["vol1", "vol2"]),
        ("driver=other", []),
    ):
        assert stowage("volume", "ls", "-q", "-f", wanted).out.split() == names, wanted
    assert stowage("volume", "ls", "-f", "nosuch=1").code == 1
    form = '{{.Name}} {{.Driver}} {{.Scope}} {{.Labels}} {{.Label "a"}} {{.Links}} {{.Size}}'
    assert stowage("volume", "ls", "-f", "name=vol1", "--format", form).line == (
        "vol1 local local a=1,b= 1 N/A N/A"
    )
    row = json.loads(stowage("volume", "ls", "-f", "name=vol1", "--format", "json").line)
    assert (row["Name"], row["Mountpoint"][-18:]) == ("vol1", "/volumes/vol1/_data"[-18:])


def test_a_volume_is_inspected(stowage: Run, cli_root: Path) -> None:
    stowage("volume", "create", "--label", "a=1", "vol1")
    (document,) = json.loads(stowage("volume", "inspect", "vol1").out)

    created = document.pop("CreatedAt")
    assert created.endswith("Z")
    assert "." not in created
    assert document == {
        "Driver": "local",
        "Labels": {"a": "1"},
        "Mountpoint": str(cli_root / "data/volumes/vol1/_data"),
        "Name": "vol1",
        "Options": {},
        "Scope": "local",
    }
    assert json.loads(stowage("inspect", "vol1").out)[0]["Name"] == "vol1"
    assert stowage("inspect", "--type", "volume", "-f", "{{.Name}}", "vol1").line == "vol1"
    missing = stowage("volume", "inspect", "nosuch")
    assert (missing.code, missing.out) == (1, "[]\n")
    assert missing.err == "Error: No such volume: nosuch\n"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("rm", "nosuch"), 1, "Error: No such volume: nosuch"),
        (("create", "bad name"), 1, '"bad name" includes invalid characters'),
        (("create", "--name", "a1", "b1"), 1, "Conflicting options: either specify --name"),
        (("create", "-d", "nfs", "vol"), 1, 'plugin "nfs" not found'),
        (("create", "-o", "type=tmpfs", "vol"), 1, "has no options here: type=tmpfs"),
        (("ls", "-f", "dangling=x"), 1, "Invalid filter 'dangling=x'"),
    ],
)
def test_wrong_requests_are_refused(
    stowage: Run, words: tuple[str, ...], code: int, message: str
) -> None:
    if words[0] == "ls":
        stowage("volume", "create", "vol")
    done = stowage("volume", *words)

    assert (done.code, done.out) == (code, "")
    assert message in done.err


def test_a_volume_in_use_stays(stowage: Run) -> None:
    container = stowage("create", "--network", "none", "-v", "vol:/x", "busybox", "true").line
    done = stowage("volume", "rm", "vol")

    assert done.code == 1
    assert f"remove vol: volume is in use - [{container}]" in done.err
    assert stowage("volume", "rm", "-f", "nosuch").out == "nosuch\n"
    assert stowage("rm", container).code == 0
    assert stowage("volume", "rm", "vol").line == "vol"


def test_prune_removes_what_no_container_uses(stowage: Run) -> None:
    stowage("create", "--network", "none", "-v", "used:/x", "busybox", "true")
    stowage("volume", "create", "--label", "keep=1", "kept")
    stowage("volume", "create", "gone")

    done = stowage("volume", "prune", "-f", "--filter", "label!=keep")
    assert done.out == "Deleted Volumes:\ngone\n\nTotal reclaimed space: 0B\n"
    assert stowage("volume", "ls", "-q").out.split() == ["kept", "used"]
    assert stowage("volume", "prune", "-f").out.splitlines()[1] == "kept"
    assert stowage("volume", "prune", "-f").out == "Total reclaimed space: 0B\n"


def test_containers_show_their_volumes(stowage: Run) -> None:
    words = ("create", "--network", "none", "-v", "vol:/x", "-v", "/y", "busybox", "true")
    container = stowage(*words).line

    assert stowage("ps", "-a", "--format", "{{.LocalVolumes}} {{.Mounts}}").line.startswith(
        "2 vol,"
    )
    assert stowage("ps", "-aq", "--no-trunc", "-f", "volume=vol").line == container
    assert stowage("ps", "-aq", "--no-trunc", "-f", "volume=/y").line == container
    assert stowage("ps", "-aq", "-f", "volume=other").out == ""
    (document,) = json.loads(stowage("inspect", container).out)
    assert document["Config"]["Volumes"] == {"/y": {}}
    assert document["HostConfig"]["Binds"] == ["vol:/x"]
    assert [mount["Type"] for mount in document["Mounts"]] == ["volume", "volume"]


def test_df_counts_volumes(stowage: Run, cli_root: Path) -> None:
    stowage("create", "--network", "none", "-v", "used:/x", "busybox", "true")
    stowage("volume", "create", "free")
    cli_root.joinpath("data/volumes/free/_data/file").write_bytes(b"x" * 3000)

    rows = stowage(
        "df", "--format", "{{.Type}}|{{.TotalCount}}|{{.Active}}|{{.Size}}|{{.Reclaimable}}"
    )
    (row,) = (row for row in rows.out.splitlines() if row.startswith("Local Volumes"))
    _, total, active, size, reclaimable = row.split("|")
    assert (total, active) == ("2", "1")
    assert reclaimable == f"{size} (100%)"
    said = stowage("df", "-v").out.partition("Local Volumes space usage:\n\n")[2]
    assert said.splitlines()[0].split() == ["VOLUME", "NAME", "LINKS", "SIZE"]
    assert [line.split()[:2] for line in said.splitlines()[1:3]] == [["free", "0"], ["used", "1"]]


def test_check_and_gc_know_volumes(stowage: Run, cli_root: Path) -> None:
    """What is reported and what is taken away; nothing that holds anything is."""
    volumes = cli_root / "data/volumes"
    volumes.joinpath("lost/_data/sub").mkdir(parents=True)
    volumes.joinpath("empty").mkdir()
    stowage("volume", "create", "gone")
    volumes.joinpath("gone/_data").rmdir()

    done = stowage("check", "--quick")
    assert done.code == 1
    assert "volume-missing: gone" in done.out
    assert done.out.count("volume-unaccounted: ") == 2
    assert "Deleted: volume empty" in stowage("gc").out
    assert stowage("volume", "create", "lost").line == "lost"
    assert volumes.joinpath("lost/_data/sub").is_dir()
    assert stowage("volume", "rm", "gone").code == 0
    assert stowage("check", "--quick").code == 0
