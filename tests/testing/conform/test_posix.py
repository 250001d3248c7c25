"""Faults planted in a driver, each caught by the property of family F that names it."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from stowage import Kind, Options, hookimpl
from stowage.testing.conform import conform
from stowage_drivers.storage.vfs import VfsDriver

pytestmark = pytest.mark.requires("mounts")


class DropsSetuid(VfsDriver):
    """Copies a parent's files without their setuid, setgid and sticky bits."""

    name: ClassVar[str] = "dropssetuid"

    @hookimpl
    def storage_prepare(
        self, directory: Path, parents: Sequence[Path], kind: Kind, options: Options
    ) -> None:
        super().storage_prepare(directory, parents, kind, options)
        for path in (directory / "fs").rglob("*"):
            mode = path.lstat().st_mode
            if not stat.S_ISLNK(mode):
                path.chmod(mode & 0o777)


class Resurrects(VfsDriver):
    """Shows in a child again what one of its ancestors removed."""

    name: ClassVar[str] = "resurrects"

    @hookimpl
    def storage_prepare(
        self, directory: Path, parents: Sequence[Path], kind: Kind, options: Options
    ) -> None:
        super().storage_prepare(directory, parents, kind, options)
        for parent in parents:
            for old in (parent / "fs").rglob("*"):
                again = directory / "fs" / old.relative_to(parent / "fs")
                if not os.path.lexists(again) and again.parent.is_dir():
                    again.touch()


@pytest.mark.parametrize(
    ("driver", "name"),
    [(DropsSetuid, "F1"), (Resurrects, "F2"), (Resurrects, "F3")],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_a_planted_fault_is_caught(driver: type[VfsDriver], name: str, tmp_path: Path) -> None:
    report = conform(driver, on=tmp_path, examples=25, names=[name])

    assert [(one.name, one.status) for one in report.outcomes] == [(name, "failed")]
