"""What is installed is what is here: the wheel, the sdist and the views of the static tools.

Builds run on a copy of the checkout, without the network and without build isolation, and with
``typings/`` as git makes it where ``core.symlinks`` is false, so nothing may pass through it.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS: dict[str, str] = PYPROJECT["tool"]["setuptools"]["package-dir"]


def packages_on_disk() -> set[str]:
    """The import names of every directory with ``__init__.py`` below the mapped folders."""
    return {
        ".".join((name, *init.parent.relative_to(ROOT / folder).parts))
        for name, folder in FOLDERS.items()
        for init in (ROOT / folder).rglob("__init__.py")
    }


def files_of_packages() -> set[str]:
    """What the wheel must hold, as paths in it."""
    wanted = {".py", ".json", ".service", ".txt"}
    return {
        f"{name}/{path.relative_to(ROOT / folder)}"
        for name, folder in FOLDERS.items()
        for path in (ROOT / folder).rglob("*")
        if path.suffix in wanted or path.name == "py.typed"
    }


def test_every_directory_with_an_init_is_in_packages() -> None:
    """Setuptools leaves a package out in silence when the list was not extended."""
    assert packages_on_disk() == set(PYPROJECT["tool"]["setuptools"]["packages"])


def test_the_links_in_typings_are_the_package_dir() -> None:
    """Static tools see the folders under the names that the installer gives them."""
    links = {
        link.name: link.readlink().as_posix()
        for link in (ROOT / "typings").iterdir()
        if link.is_symlink()
    }

    assert links == {name: f"../{folder}" for name, folder in FOLDERS.items()}


# --- built ------------------------------------------------------------------------------------


def _pip(*words: str | Path, cwd: Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
    subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True)


def _backend(call: str, cwd: Path) -> None:
    code = f"from setuptools.build_meta import *; {call}"
    subprocess.run([sys.executable, "-c", code], cwd=cwd, check=True, capture_output=True)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree whose links are text files, as without ``core.symlinks``."""
    copy = tmp_path_factory.mktemp("packaging") / "checkout"
    ignored = ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist")
    copytree(ROOT, copy, symlinks=True, ignore=ignored)
    for link in (copy / "typings").iterdir():
        target = link.readlink()
        link.unlink()
        link.write_text(str(target))
    return copy


@pytest.fixture(scope="module")
def wheel(checkout: Path) -> Path:
    out = checkout.parent / "wheel"
    out.mkdir()
    _backend(f"build_wheel({str(out)!r})", checkout)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def sdist(checkout: Path) -> Path:
    out = checkout.parent / "sdist"
    out.mkdir()
    _backend(f"build_sdist({str(out)!r})", checkout)
    return next(out.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """A directory into which pip has installed the wheel."""
    target = wheel.parent.parent / "installed"
    _pip("install", "--no-deps", "--no-index", "--no-compile", "--target", target, wheel,
         cwd=wheel.parent)  # fmt: skip
    return target


def _contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_the_wheel_holds_every_module_and_nothing_else(wheel: Path) -> None:
    assert _contents(wheel) == files_of_packages()


def test_the_wheel_is_pure_and_carries_the_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()

    assert wheel.name.endswith("-py3-none-any.whl")
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_the_sdist_holds_what_a_contributor_needs(sdist: Path) -> None:
    """The tests, the plugins and the set-up come along; nothing of a local environment does."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    for wanted in ("Makefile", "tests/conftest.py", "docs/internals.md", "plugins/README.md"):
        assert wanted in names
    assert not [name for name in names if name.startswith((".venv", ".git/"))]


def test_a_wheel_made_from_the_sdist_is_the_same(sdist: Path, wheel: Path) -> None:
    unpacked = sdist.parent / "unpacked"
    unpacked.mkdir()
    subprocess.run(["tar", "-xf", sdist, "-C", unpacked], check=True)
    (source,) = unpacked.iterdir()
    _backend(f"build_wheel({str(unpacked)!r})", source)
    (rebuilt,) = unpacked.glob("*.whl")

    assert _contents(rebuilt) == _contents(wheel)


def test_the_installed_command_runs_from_elsewhere(installed: Path) -> None:
    """Neither the checkout nor its editable install is on the path."""
    site = str(Path(pytest.__file__).parent.parent)
    code = (
        f"import sys; sys.path[:0] = [{str(installed)!r}]; sys.path.append({site!r})\n"
        "import stowage; assert stowage.__file__.startswith(sys.path[0]), stowage.__file__\n"
        "from stowage.cli import main; sys.exit(main(['--version']))"
    )
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/")

    assert (done.returncode, done.stderr) == (0, "")
    assert PYPROJECT["project"]["version"] in done.stdout


def test_an_editable_install_finds_all_packages(checkout: Path) -> None:
    target = checkout.parent / "editable"
    target.mkdir()
    _backend(f"build_editable({str(target)!r})", checkout)
    (built,) = target.glob("*.whl")
    site = target / "site"
    _pip("install", "--no-deps", "--no-index", "--target", site, built, cwd=target)
    code = f"import site; site.addsitedir({str(site)!r})\n"
    code += f"from importlib.util import find_spec\nfor n in {sorted(packages_on_disk())!r}:\n"
    code += f"    assert find_spec(n).origin.startswith({str(checkout)!r}), n"

    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, cwd="/")


# --- dependencies -----------------------------------------------------------------------------


def _closure(requirements: list[str]) -> dict[str, Distribution]:
    """Every distribution that an install of these brings, without extras."""
    found: dict[str, Distribution] = {}
    todo = [Requirement(text) for text in requirements]
    while todo:
        requirement = todo.pop()
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if wanted and requirement.name not in found:
            found[requirement.name] = distribution(requirement.name)
            todo += map(Requirement, found[requirement.name].requires or [])
    return found


def test_installing_needs_no_compiler() -> None:
    """Each run-time dependency is pure, or came as a wheel built for any Linux (manylinux).

    What needs a C compiler is an extra.
    """
    for name, found in _closure(PYPROJECT["project"]["dependencies"]).items():
        lines = (found.read_text("WHEEL") or "").splitlines()
        tags = [line.partition(": ")[2] for line in lines if line.startswith("Tag: ")]

        assert tags, f"{name} was not installed from a wheel"
        assert all(tag.endswith("-any") or "-manylinux" in tag for tag in tags), f"{name}: {tags}"


def _entry_points() -> list[tuple[str, str, str]]:
    return [
        (group, name, target)
        for group, entries in PYPROJECT["project"]["entry-points"].items()
        for name, target in entries.items()
    ]


@pytest.mark.parametrize(("group", "name", "target"), _entry_points())
def test_every_entry_point_is_installed_and_loads(group: str, name: str, target: str) -> None:
    (entry,) = distribution("stowage").entry_points.select(group=group, name=name)

    assert entry.value == target
    assert entry.load()
