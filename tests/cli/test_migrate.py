"""``migrate``: what it prints, what it refuses, and what containers keep."""

from __future__ import annotations

from .conftest import Run


def drivers(stowage: Run) -> set[str]:
    return set(
        stowage("layers", "--format", "{{.Driver}}", "--filter", "kind=committed").out.split()
    )


def test_an_image_moves_there_and_back(stowage: Run) -> None:
    """Results on stdout, one line per step on stderr where that is no terminal."""
    done = stowage("migrate", "--to", "vfs", "busybox")

    assert done.line == ("busybox: overlay -> vfs, 1 layer copied, 1 layer removed from overlay")
    assert [line.split()[1] for line in done.err.splitlines()] == ["copying", "verifying"]
    assert drivers(stowage) == {"vfs"}
    assert stowage("migrate", "--to", "vfs", "busybox").line == "busybox: nothing to move"
    assert stowage("migrate", "--to", "overlay", "--all").line == (
        "busybox:latest: vfs -> overlay, 1 layer copied, 1 layer removed from vfs"
    )


def test_a_container_keeps_what_it_runs_on(stowage: Run) -> None:
    assert stowage("create", "--network", "none", "--name", "box", "busybox", "true").code == 0
    try:
        done = stowage("migrate", "--to", "vfs", "busybox")
        assert done.line == (
            "busybox: overlay -> vfs, 1 layer copied, 0 layers removed from overlay, "
            "1 kept there for box"
        )
        assert stowage("start", "-a", "box").code == 0
    finally:
        stowage("rm", "-f", "box")
        assert stowage("migrate", "--to", "overlay", "--all").code == 0


def test_what_is_asked_wrongly_is_refused(stowage: Run) -> None:
    for words, error in (
        (["busybox"], "--to names the storage driver"),
        (["--to", "vfs"], "either images and layers or --all"),
        (["--to", "vfs", "--all", "busybox"], "either images and layers or --all"),
        (["--to", "nosuch", "busybox"], "nosuch"),
        (["--to", "vfs", "nosuch"], "No such image: nosuch"),
    ):
        done = stowage("migrate", *words)
        assert done.code != 0
        assert done.out == ""
        assert error in done.err
    assert drivers(stowage) == {"overlay"}
