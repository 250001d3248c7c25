"""The benchmark measures what it says and leaves nothing; no test here looks at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stowage_bench import trees
from stowage_bench.bare import mount_overlay
from stowage_bench.measure import Figure, Limit, Side, compare, shown, table
from stowage_bench.places import loop_mounted, run


def test_both_sides_run_in_turn_and_the_first_round_does_not_count() -> None:
    calls: list[str] = []
    ours = Side("stowage", lambda: calls.append("o"), lambda: calls.append("("))
    rival = Side("rival", lambda: calls.append("r"), after=lambda: calls.append(")"))

    figure = compare("title", ours, rival, rounds=3)

    assert "".join(calls) == "(or)" + "r)(o" + "(or)" + "r)(o"
    assert len(figure.ours_measured) == len(figure.rival_measured) == 3


def test_what_clears_a_round_runs_also_after_a_failure() -> None:
    cleared: list[bool] = []

    def fail() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        Side("x", fail, after=lambda: cleared.append(True)).seconds()
    assert cleared == [True]


def test_a_limit_is_a_factor_and_a_constant() -> None:
    figure = Figure("t", "r", Limit(1.5, 0.040), [0.1, 0.2, 9.0], [0.1, 0.11, 0.12])

    assert figure.ours == 0.2
    assert figure.ratio == pytest.approx(0.2 / 0.11)
    assert figure.within
    assert figure.limit is not None
    assert figure.limit.text("seconds") == "<= 1.5 x + 40.00 ms"
    assert Figure("t", "r", Limit(extra=0.1), [0.2], [5.0]).within is False
    assert Figure("t", "r", None, [0.2], [5.0]).within is None


def test_the_table_has_a_line_for_each_figure_in_fitting_units() -> None:
    text = table(
        [
            Figure("fast", "bare", Limit(2), [0.000_5], [0.000_4]),
            Figure("slow", "tar", Limit(1.2), [2.5], [2.0]),
        ]
    )

    assert [line.split() for line in text.splitlines()[1:]] == [
        ["fast", "500", "us", "400", "us", "1.25", "<=", "2", "x", "yes", "bare"],
        ["slow", "2.50", "s", "2.00", "s", "1.25", "<=", "1.2", "x", "NO", "tar"],
    ]
    assert shown(0.0123) == "12.30 ms"


def test_the_made_up_tree_has_the_shape_of_a_debian_root(
    shm_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trees, "SIZE_BYTES", 1 << 20)
    trees.synthetic(shm_dir / "tree")
    trees.synthetic(shm_dir / "again")
    paths = list((shm_dir / "tree").rglob("*"))
    links = [path for path in paths if path.is_symlink()]

    assert len(links) == trees.SYMLINKS
    assert sum(path.is_dir() and not path.is_symlink() for path in paths) == trees.DIRECTORIES - 1
    assert len(paths) == trees.FILES + trees.DIRECTORIES - 1 + trees.SYMLINKS
    run("diff", "-r", "--no-dereference", str(shm_dir / "tree"), str(shm_dir / "again"))


@pytest.mark.requires("mounts", "ext4", "xfs")
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_file_system_is_made_and_gone_afterwards(shm_dir: Path, kind: str) -> None:
    with loop_mounted(kind, shm_dir, 320 << 20) as place:
        assert place.is_mount()
        assert os.listdir(shm_dir) == [kind]
    assert os.listdir(shm_dir) == []


def test_a_command_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"ls: .*not-there"):
        run("ls", "/not-there")


@pytest.mark.requires_root
def test_the_bare_mount_shows_its_layers(shm_dir: Path) -> None:
    for name in ("1", "2", "upper", "work"):
        (shm_dir / name).mkdir()
    (shm_dir / "1" / "file").touch()
    descriptor = mount_overlay([shm_dir / "1", shm_dir / "2"], shm_dir / "upper", shm_dir / "work")
    try:
        assert os.stat("file", dir_fd=descriptor).st_size == 0
    finally:
        os.close(descriptor)


@pytest.mark.requires_root
def test_the_command_prints_a_table() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stowage_bench", "speed", "--only", "start", "--rounds", "1"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert "start-up: stowage --version" in done.stdout
    assert "python -S -c pass" in done.stdout
