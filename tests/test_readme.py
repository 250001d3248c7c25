"""What the README shows is run as it stands."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stowage.model import Kind
from stowage.options import Options
from stowage.registry import Registry

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()
DRIVER, PYTHON = re.findall(r"as it stands -->\n```python\n(.*?)```", README, re.DOTALL)
(ENTRY_POINT,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def copy_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The README's driver as an installed distribution."""
    site = tmp_path / "site"
    info = site / "copy_driver-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "copy_driver.py").write_text(DRIVER)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: copy-driver\nVersion: 1.0\n")
    points = ENTRY_POINT.replace('[project.entry-points."', "[").replace('"]', "]").replace('"', "")
    (info / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(site)
    importlib.invalidate_caches()
    yield
    sys.modules.pop("copy_driver", None)


def test_the_driver_takes_thirty_lines() -> None:
    assert len(DRIVER.splitlines()) <= 30


@pytest.mark.usefixtures("copy_driver")
def test_the_driver_works(tmp_path: Path) -> None:
    """A child has what its parent had, and what is written to it stays in it."""
    root = tmp_path / "root"
    for name in ("1", "2"):
        (root / name).mkdir(parents=True)
    handle = Registry().storage("copy", root)
    assert handle.probe.ok
    handle.prepare(root / "1", (), Kind.ACTIVE, Options({}))
    (base,) = handle.mounts(root / "1", (), Kind.ACTIVE, Options({}))
    Path(base.source, "file").write_text("old")
    handle.seal(root / "1", ())
    handle.prepare(root / "2", (root / "1",), Kind.ACTIVE, Options({}))
    (child,) = handle.mounts(root / "2", (root / "1",), Kind.ACTIVE, Options({}))
    Path(child.source, "file").write_text("new")

    assert Path(base.source, "file").read_text() == "old"


@pytest.mark.requires("containers", "busybox")
def test_the_python_example_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = PYTHON.replace("/tmp/stowage-example", str(tmp_path / "root"))

    exec(compile(source, "README.md", "exec"), {})

    assert capsys.readouterr().out.splitlines() == ["0 [b'/greeting']", "b'hello\\n'"]
