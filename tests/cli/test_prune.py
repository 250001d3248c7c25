"""``image prune`` and ``system prune`` remove what nobody uses, and ask first."""

from __future__ import annotations

import io

import pytest

from .conftest import Run

MADE = ("create", "--network", "none")


def images_of(stowage: Run) -> set[str]:
    return set(stowage("images", "--format", "{{.Repository}}:{{.Tag}}").out.split())


@pytest.fixture
def used(stowage: Run) -> str:
    """A container that keeps busybox; two images with names and one without."""
    if not stowage("images", "-q", "busybox").out:
        stowage("bootstrap", "-q", "busybox")
    identity = stowage(*MADE, "busybox", "true").line
    stowage("image", "prune", "-af")
    stowage("commit", "-c", "LABEL tier=a", identity, "one:1")
    stowage("commit", "-c", "LABEL tier=b", identity, "one:2")
    stowage("commit", "-c", "ENV A=nameless", identity)
    return identity


def test_dangling_images_go_and_named_ones_stay(stowage: Run, used: str) -> None:
    (nameless,) = set(stowage("images", "-q", "--no-trunc", "-f", "dangling=true").out.split())

    done = stowage("image", "prune", "-f")

    assert done.out.startswith(f"Deleted Images:\ndeleted: {nameless}\n")
    assert done.out.endswith("Total reclaimed space: 0B\n")
    assert images_of(stowage) == {"busybox:latest", "one:1", "one:2"}
    assert stowage("image", "prune", "-f").out == "Total reclaimed space: 0B\n"


def test_all_unused_images_go_as_the_filters_say(stowage: Run, used: str) -> None:
    """Labels must fit, ``label!`` must not; what a container uses stays."""
    stowage("image", "prune", "-af", "--filter", "label=tier=a", "--filter", "label!=nosuch")
    assert images_of(stowage) == {"busybox:latest", "one:2", "<none>:<none>"}
    stowage("image", "prune", "-af", "--filter", "label!=tier")
    stowage("image", "prune", "-af", "--filter", "until=1h")
    assert images_of(stowage) == {"busybox:latest", "one:2"}

    stowage("image", "prune", "-af")

    assert images_of(stowage) == {"busybox:latest"}
    wrong = stowage("image", "prune", "-f", "--filter", "nosuch=1")
    assert (wrong.code, "Invalid filter 'nosuch'" in wrong.err) == (1, True)


@pytest.mark.parametrize(("answer", "left"), [("n\n", 1), ("", 1), ("y\n", 0)])
def test_a_prune_asks_first(
    stowage: Run, used: str, monkeypatch: pytest.MonkeyPatch, answer: str, left: int
) -> None:
    """No answer means no."""
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))

    done = stowage("image", "prune")

    assert done.out.startswith("WARNING! This will remove all dangling images.\nAre you sure")
    assert len(stowage("images", "-q", "-f", "dangling=true").out.split()) == left
    stowage("image", "prune", "-af")


def test_a_system_prune_takes_stopped_containers_and_then_what_they_used(
    stowage: Run, used: str
) -> None:
    """Running ones keep their images."""
    stowage("run", "-d", "--network", "none", "--name", "runs", "one:1", "sleep", "100")

    done = stowage("system", "prune", "-af")

    assert "Deleted Containers:" in done.out
    assert used in done.out.split()
    assert "untagged: one:2" in done.out
    assert stowage("ps", "-a", "--format", "{{.Names}}").out == "runs\n"
    assert "one:1" in images_of(stowage)
