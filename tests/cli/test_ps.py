"""``ps`` filters and states, ``container prune``, and commands on many containers at once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stowage.cli.filters import ports_of_filter
from stowage.errors import InvalidArgument

from .conftest import Run

pytestmark = pytest.mark.requires("containers")

DETACHED = ("run", "-d", "--network", "none")


@pytest.fixture(autouse=True)
def _empty(stowage: Run) -> Iterator[None]:
    """Each test leaves no container."""
    yield
    names = stowage("ps", "-aq").out.split()
    if names:
        stowage("rm", "-f", *names)
    assert stowage("ps", "-aq").out == ""


def test_containers_are_filtered_as_dockers(stowage: Run) -> None:
    """By each key; several values of one key are alternatives, several keys must all hold."""
    web = stowage(*DETACHED, "--name", "web", "-l", "a=1", "busybox", "sleep", "100").line
    stowage(*DETACHED, "--name", "still", "--restart", "always", "busybox", "sleep", "100")
    stowage("pause", "still")
    stowage("run", "--network", "none", "--name", "ended", "busybox", "sh", "-c", "exit 3")
    stowage("create", "--network", "none", "--name", "made", "--label", "a", "busybox", "true")

    def names(*filters: str) -> set[str]:
        words = [word for one in filters for word in ("-f", one)]
        done = stowage("ps", "-a", "--format", "{{.Names}}", *words)
        assert done.code == 0, done.err
        return set(done.out.split())

    assert names() == {"web", "still", "ended", "made"}
    assert names("status=paused") == {"still"}
    assert names("status=running") == {"web"}
    assert names("status=exited", "status=created") == {"ended", "made"}
    assert names("exited=3") == {"ended"}
    assert names("exited=0") == set()
    assert names("label=a") == {"web", "made"}
    assert names("label=a", "label=a=1") == {"web"}
    assert names("name=e", "name=^/st") == {"web", "still", "ended", "made"}
    assert names("name=^/st") == {"still"}
    assert names(f"id={web[:8]}") == {"web"}
    assert names("before=still") == {"web"}
    assert names("since=still") == {"ended", "made"}
    assert names("ancestor=busybox", "name=web") == {"web"}
    assert names("ancestor=nosuch") == set()
    assert names("health=none") == {"web", "still", "ended", "made"}
    assert names("health=healthy") == set()
    assert names("publish=80") == names("expose=80/tcp") == set()
    assert set(stowage("ps", "--format", "{{.Names}}").out.split()) == {"web", "still"}
    assert stowage("ps", "-lq").line == stowage("ps", "-aq", "-f", "name=made").line
    assert len(stowage("ps", "-n", "2", "-q").out.split()) == 2
    assert stowage("ps", "-s", "--format", "{{.Size}}", "-f", "name=web").line.endswith(")")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("foo=1", "Invalid filter 'foo'"),
        ("status=x", "Invalid filter 'status=x'"),
        ("health=x", "Unrecognised filter value for health: x"),
        ("exited=x", 'strconv.Atoi: parsing "x": invalid syntax'),
        ("before=nosuch", "No such container: nosuch"),
        ("publish=1:2", "filter for 'publish' should not contain ':': 1:2"),
        ("name=(", "invalid filter 'name=('"),
    ],
)
def test_filters_that_cannot_be_are_refused(stowage: Run, wrong: str, words: str) -> None:
    """Also where there is nothing to be filtered, except for patterns."""
    stowage("create", "--network", "none", "busybox", "true")
    done = stowage("ps", "-f", wrong, "-a")

    assert done.code == 1
    assert words in done.err


def test_ports_of_filters_are_read() -> None:
    """One port or a range, tcp unless it is said."""
    assert ports_of_filter("publish", "80") == {(80, "tcp")}
    assert ports_of_filter("expose", "80-81/udp") == {(80, "udp"), (81, "udp")}
    for wrong in ("x", "5-4", "70000", ""):
        with pytest.raises(InvalidArgument):
            ports_of_filter("expose", wrong)


def test_looking_imports_no_machinery(cli_root: Path) -> None:
    """``ps`` opens neither the layer store nor a driver, nor what runs containers."""
    code = (
        "import sys\n"
        "from stowage.cli import main\n"
        f"assert main(['--root', {str(cli_root)!r}, 'ps']) == 0\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.startswith("CONTAINER ID")
    assert set(done.stderr.split()) & {
        "ctypes", "pluggy", "sqlalchemy", "pyroute2", "libarchive", "zstandard",
        "stowage.containers.finishing", "stowage.containers.launching", "stowage.handle",
        "stowage.containers.settling", "stowage.images.service", "stowage.layers.store",
        "stowage.linux.mount", "stowage.registry",
    } == set()  # fmt: skip


def test_stopped_containers_are_pruned(stowage: Run) -> None:
    """After a question; by label and age; what runs, or is paused, stays."""
    stowage(*DETACHED, "--name", "web", "busybox", "sleep", "100")
    stowage(*DETACHED, "--name", "still", "busybox", "sleep", "100")
    stowage("pause", "still")
    kept = stowage("create", "--network", "none", "-l", "keep", "busybox", "true").line
    gone = stowage("create", "--network", "none", "busybox", "true").line

    asked = stowage("container", "prune")
    assert asked.out.startswith(
        "WARNING! This will remove all stopped containers.\n"
        "Are you sure you want to continue? [y/N] "
    )
    assert len(stowage("ps", "-aq").out.split()) == 4
    assert stowage("container", "prune", "-f", "--filter", "until=1h").out == (
        "Total reclaimed space: 0B\n"
    )
    done = stowage("container", "prune", "-f", "--filter", "label!=keep")
    assert done.out.startswith(f"Deleted Containers:\n{gone}\n\nTotal reclaimed space: ")
    assert stowage("container", "prune", "--force").out.splitlines()[1] == kept
    assert stowage("ps", "-a", "--format", "{{.Names}}").out == "still\nweb\n"


def test_many_at_once_go_on_after_a_failure(stowage: Run) -> None:
    """In the order of the command line, whatever is ready first."""
    made = [
        stowage(*DETACHED, "--name", f"c{number}", "busybox", "sleep", "100").line
        for number in range(6)
    ]
    names = ["c0", "nosuch", *(f"c{number}" for number in range(1, 6))]
    done = stowage("stop", "-t", "0", *names)
    assert (done.code, done.out.split()) == (1, [name for name in names if name != "nosuch"])
    assert done.err == "Error: No such container: nosuch\n"
    assert stowage("start", "c1", "c2").code == 0

    refused = stowage("rm", *names)
    assert refused.code == 1
    assert refused.out.split() == ["c0", "c3", "c4", "c5"]
    assert refused.err.count("You cannot remove a running container") == 2
    forced = stowage("rm", "-f", *names)
    assert forced.out.split() == ["c1", "c2"]
    assert "No such container: nosuch" in forced.err
    assert len(made) == 6
