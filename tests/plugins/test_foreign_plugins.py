"""Drivers of other distributions: found, opened and used, or refused with owner and reason.

The distributions of ``plugins/`` are installed by pip into a directory of their own, as a
stranger's would be; nothing in the core knows them.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest

from stowage.errors import DriverFailed, NotFound
from stowage.explain import report
from stowage.model import StorageProbe
from stowage.plugins import discover
from stowage.registry import Registry
from stowage.select import Request, select_storage

#: Which of a plugin's own tests run in the short profile; the kit in full takes a minute.
SHORT_BY_PLUGIN = {"stowage-template": "test_L1 or test_K", "stowage-btrfs": "not TestBtrfs"}

PLUGINS = Path(__file__).resolve().parent.parent.parent / "plugins"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Where each distribution of ``plugins/`` was installed, by its folder's name."""
    base = tmp_path_factory.mktemp("plugins")
    targets = {}
    for name in ("stowage-template", "stowage-broken", "stowage-btrfs"):
        source, target = base / "source" / name, base / name
        copytree(PLUGINS / name, source, ignore=ignore_patterns("build", "*.egg-info"))
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q"]
        command += ["--no-deps", "--no-index", "--no-build-isolation", "--target", str(target)]
        subprocess.run([*command, str(source)], check=True, capture_output=True)
        targets[name] = target
    return targets


def _on_path(monkeypatch: pytest.MonkeyPatch, *targets: Path) -> Iterator[None]:
    for target in targets:
        monkeypatch.syspath_prepend(target)
    importlib.invalidate_caches()
    yield
    for module in [name for name in sys.modules if name.startswith(("stowage_t", "stowage_br"))]:
        del sys.modules[module]


@pytest.fixture
def template(installed: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield from _on_path(monkeypatch, installed["stowage-template"])


@pytest.fixture
def broken(installed: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield from _on_path(monkeypatch, installed["stowage-broken"])


@pytest.fixture
def both(installed: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    names = ("stowage-template", "stowage-broken")
    yield from _on_path(monkeypatch, *(installed[name] for name in names))


def test_without_the_distribution_the_driver_is_not_there() -> None:
    with pytest.raises(NotFound, match="template"):
        Registry().driver_class("storage", "template")


@pytest.mark.usefixtures("template")
def test_a_foreign_driver_is_found_with_its_owner() -> None:
    (plugin,) = (plugin for plugin in discover("storage") if plugin.name == "template")

    assert (plugin.owner, plugin.problem) == ("stowage-template 0.1.0", None)


@pytest.mark.usefixtures("template")
def test_listing_drivers_imports_none_of_them() -> None:
    discover("storage")

    assert "stowage_template" not in sys.modules


@pytest.mark.usefixtures("template")
@pytest.mark.requires_root
def test_a_foreign_driver_is_probed_and_selected_by_name(tmp_path: Path) -> None:
    registry = Registry()

    selection = select_storage(
        Request(explicit="template"), registry, lambda name: registry.storage(name, tmp_path).probe
    )

    assert selection.name == "template"


@pytest.mark.requires_root
@pytest.mark.parametrize(
    "name",
    [
        "stowage-template",
        pytest.param("stowage-btrfs", marks=pytest.mark.requires("btrfs", "containers", "conmon")),
    ],
)
def test_the_tests_that_come_with_a_plugin_pass(
    installed: dict[str, Path], tmp_path: Path, name: str
) -> None:
    """They run as its author runs them, with nothing of our conftest; what the conformance kit
    takes its time over, in the full profile only."""
    environment = {**os.environ, "PYTHONPATH": str(installed[name])}
    full = os.environ.get("STOWAGE_TEST_PROFILE") == "full"
    deselected = [] if full else ["-k", SHORT_BY_PLUGIN[name]]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", "-c", os.devnull, "--rootdir", str(tmp_path),
         "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "t"),
         *deselected, str(PLUGINS / name / "tests")],
        env=environment, capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
    skips = [line for line in done.stdout.splitlines() if line.startswith("SKIPPED")]
    assert all("does not " in line for line in skips), done.stdout


REFUSED_WHEN_LOADED = {
    "broken-import": "No module named 'a_library_that_is_not_there'",
    "broken-attribute": "has no attribute 'NoSuchDriver'",
    "broken-version": "written for version 99 of the contract",
}
REFUSED_WHEN_OPENED = {
    "broken-hook": "storage_prepair",
    "broken-argument": "colour",
    "broken-unmarked": "not marked @hookimpl: storage_destroy",
    "broken-constructor": "no moon tonight",
}


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize(("name", "reason"), REFUSED_WHEN_LOADED.items())
def test_a_driver_that_cannot_be_loaded_is_refused(name: str, reason: str) -> None:
    with pytest.raises(DriverFailed) as caught:
        Registry().driver_class("storage", name)

    assert "stowage-broken 6.6.6" in caught.value.brief
    assert reason in str(caught.value)


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize(("name", "reason"), REFUSED_WHEN_OPENED.items())
def test_a_driver_that_breaks_the_contract_is_refused(
    name: str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(DriverFailed) as caught:
        Registry().storage(name, tmp_path)

    assert "stowage-broken 6.6.6" in str(caught.value)
    assert reason in str(caught.value)


@pytest.mark.usefixtures("broken")
def test_a_probe_that_raises_is_a_finding(tmp_path: Path) -> None:
    probe = Registry().storage("broken-probe", tmp_path).probe

    assert not probe.ok
    assert "the probe fell over" in probe.findings[0].reason
    assert "stowage-broken" in probe.findings[0].remedy


@pytest.mark.usefixtures("broken")
@pytest.mark.requires("mounts", "ext4")
def test_a_claim_that_is_false_is_found_by_the_kit() -> None:
    """The driver works; only the property of what it claims fails."""
    from stowage.testing.conform import conform

    report = conform("broken-claim", names=["Q1", "L3", "M1"], examples=10, seed=1)

    assert {one.name: one.status for one in report.outcomes} == {
        "Q1": "failed",
        "L3": "held",
        "M1": "held",
    }


@pytest.mark.usefixtures("both")
def test_a_name_that_two_distributions_claim_is_refused_naming_both() -> None:
    with pytest.raises(DriverFailed) as caught:
        Registry().driver_class("storage", "template")

    assert "stowage-broken 6.6.6" in str(caught.value)
    assert "stowage-template 0.1.0" in str(caught.value)


@pytest.mark.usefixtures("both")
def test_broken_plugins_take_nothing_else_down(tmp_path: Path) -> None:
    """Every driver is reported, each broken one with its reason, and a good one is chosen."""
    registry = Registry()

    def probe(name: str) -> StorageProbe:
        return registry.storage(name, tmp_path).probe

    reports = {entry.name: entry for entry in report(registry, "storage", probe)}
    selection = select_storage(Request(), registry, probe)

    for name, reason in (REFUSED_WHEN_LOADED | {"template": "two distributions"}).items():
        assert reason in reports[name].verdict
        assert not reports[name].works
        assert reports[name].findings[0].remedy
    assert not any("\n" in entry.verdict for entry in reports.values())
    assert reports[selection.name].works
    assert not selection.name.startswith("broken")


@pytest.mark.usefixtures("template")
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("STOWAGE_PLUGINS_BLOCK", "template"),
        ("STOWAGE_PLUGINS_BLOCK", "other, stowage-template"),
        ("STOWAGE_PLUGINS_ALLOW", "stowage"),
    ],
)
def test_a_plugin_can_be_hidden_by_its_name_or_its_owner(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)

    with pytest.raises(DriverFailed, match=variable) as caught:
        Registry().driver_class("storage", "template")
    assert variable in (caught.value.resolution or "")
