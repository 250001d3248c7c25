"""``stowage driver new``: what it writes is a package that works, and the plugin that we show."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stowage.errors import AlreadyExists, InvalidArgument
from stowage.scaffold import new_storage_driver, storage_package

PLUGINS = Path(__file__).resolve().parent.parent.parent / "plugins"
FULL = os.environ.get("STOWAGE_TEST_PROFILE") == "full"


def stowage(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stowage", "--root", str(cwd / "root"), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def test_the_plugin_that_we_show_is_what_is_written() -> None:
    folder = PLUGINS / "stowage-template"
    written = storage_package("template")

    assert {path: (folder / path).read_text() for path in written} == written


@pytest.mark.requires("mounts")
def test_what_is_written_installs_and_passes_the_kit_as_it_is(tmp_path: Path) -> None:
    """A newcomer's commands; in the short profile a few of the properties."""
    made = stowage("driver", "new", "storage", "my-own", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    folder = tmp_path / "stowage-my-own"
    install = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    install += ["--no-deps", "--no-index", "--no-build-isolation", "--target", "installed"]
    subprocess.run([*install, str(folder)], cwd=tmp_path, check=True, capture_output=True)

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(folder),
         "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "t"),
         *([] if FULL else ["-k", "test_L1 or test_K or test_M1"]), "tests"],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


@pytest.mark.parametrize("name", ["", "Mine", "a_b", "-a", "a-", "a--b", "1a", "../x", "a" * 41])
def test_a_name_that_is_none_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="cannot be the name"):
        new_storage_driver(name, tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_the_name_of_a_driver_is_refused_and_its_owner_named(tmp_path: Path) -> None:
    with pytest.raises(AlreadyExists, match=r"overlay.*of stowage"):
        new_storage_driver("overlay", tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "stowage-mine").mkdir()

    with pytest.raises(AlreadyExists, match="exists already"):
        new_storage_driver("mine", tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["stowage-mine"]
    assert list((tmp_path / "stowage-mine").iterdir()) == []


def test_a_family_without_a_template_is_refused(tmp_path: Path) -> None:
    done = stowage("driver", "new", "network", "mine", cwd=tmp_path)

    assert done.returncode == 1
    assert "no template of a network driver" in done.stderr
