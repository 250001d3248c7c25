"""A storage driver whose snapshots are full copies of their parents.

::

    storage/template/
      <id>/tree/    the snapshot: a full tree, bind-mounted where it is wanted

A view is its parent's own tree, mounted read-only, and takes nothing.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from logging import Logger
from pathlib import Path
from typing import ClassVar

from stowage import (
    API_VERSION,
    ChoiceType,
    Finding,
    Kind,
    Mount,
    NotSupported,
    Option,
    Options,
    StorageCapabilities,
    StorageProbe,
    StowageError,
    effect,
    hookimpl,
)


class TemplateDriver:
    """Copies of whole trees by cp(1); see the module's docstring."""

    name: ClassVar[str] = "template"
    api_version: ClassVar[int] = API_VERSION
    priority: ClassVar[int] = 0  # never chosen while something better works
    options: ClassVar[tuple[Option[object], ...]] = (
        Option(
            "reflink",
            ChoiceType(("auto", "always", "never")),
            "auto",
            "share blocks with the parent until they are written to, where the file system can",
        ),
    )

    def __init__(self, root: Path, options: Options, logger: Logger) -> None:
        self._root = root
        self._reflink = options.text("reflink")
        self._logger = logger

    @hookimpl
    def storage_probe(self) -> StorageProbe:
        """Copy a small tree with an owner and an attribute, as a child of a snapshot is made."""
        with tempfile.TemporaryDirectory(dir=_existing(self._root), prefix=".probe-") as scratch:
            parent, child = Path(scratch, "parent"), Path(scratch, "child")
            try:
                with effect("probe.copy", path=scratch):
                    _make_base(parent)
                    (parent / "tree" / "file").write_bytes(b"content")
                    os.chown(parent / "tree" / "file", 1, 1)
                    child.mkdir()
                self._copy(parent, child)
            except (OSError, StowageError) as error:
                return StorageProbe(findings=(Finding(str(error), "run as root"),))
        return StorageProbe(StorageCapabilities(stable_inodes=True, hardlinks_kept=True))

    @hookimpl
    def storage_prepare(self, directory: Path, parents: Sequence[Path], kind: Kind) -> None:
        """Copy the nearest parent; a view needs nothing, a base is an empty directory."""
        if parents and parents[0].parent != self._root:
            raise NotSupported(f"template cannot show the host's directory {parents[0]}")
        if not parents:
            _make_base(directory)
        elif kind is Kind.ACTIVE:
            self._copy(parents[0], directory)

    @hookimpl
    def storage_mounts(
        self, directory: Path, parents: Sequence[Path], kind: Kind
    ) -> Sequence[Mount]:
        """A bind mount of the snapshot's tree, or of its parent's for a view."""
        own = directory / "tree"
        shown = parents[0] / "tree" if kind is Kind.VIEW and parents else own
        return (Mount("bind", str(shown), () if kind is Kind.ACTIVE else ("ro",)),)

    def _copy(self, parent: Path, directory: Path) -> None:
        command = ["cp", "--archive", f"--reflink={self._reflink}", "--sparse=auto"]
        with effect("tree.copy", source=parent, target=directory):
            done = subprocess.run(
                [*command, "--", parent / "tree", directory],
                check=False, capture_output=True, text=True,
            )  # fmt: skip
        if done.returncode != 0:
            raise StowageError(f"cannot copy {parent} to {directory}", details=done.stderr.strip())


def _make_base(directory: Path) -> None:
    tree = directory / "tree"
    with effect("tree.make", path=tree):
        tree.mkdir(parents=True)
        tree.chmod(0o755)


def _existing(path: Path) -> Path:
    """The nearest directory that exists: the root itself is made with the first snapshot."""
    while not path.exists():
        path = path.parent
    return path
