"""Snapshots as branches of aufs, shown by the union: what an OCI layer holds is kept verbatim.

::

    storage/aufs/
      <id>/diff/                  what the snapshot changed, as Docker's aufs/diff/<id>
      <id>/layers                 its parents' numbers, one a line, nearest first, as Docker's
                                  aufs/layers/<id>; empty for a base
      <id>/mnt/                   Docker's aufs/mnt/<id>; always empty, see below
      <id>/work/                  what is half made; an active snapshot has one once it was mounted
      <id>/server.log, server-*   the processes that serve it (see the driver ``fuse``)

Within ``diff``:

* ``.wh.<name>`` says that ``<name>`` of the branches below is gone, ``.wh..wh..opq`` in a
  directory that nothing below shows in it. Both hide what is below, never what stands beside them.
* All other names that begin with ``.wh..wh.`` are aufs's own (``.wh..wh.plnk``, ``.wh..wh.orph``,
  ``.wh..wh.aufs``) and mean nothing.

The first branch is the writable one, then come the parents, nearest first.

What differs from Docker's aufs, and why:

* The three directories are one per snapshot, for the core gives a driver one directory each and
  moves that away to remove it in one step; Docker's ``<id>-removing`` is the core's trash, which
  is emptied at the next start as well.
* ``mnt`` is where Docker mounts; here mounts have no place in the tree, and the directory is
  there for what reads the layout.
* Mounts are carried by FUSE, not by a kernel's aufs: no kernel has had it in its own tree. One
  that has it is named by the probe, and left alone.
* A directory of a parent can be renamed, and a file's names stay one file without ``plnk``.
* There is no limit at 127 branches.

No file can be called ``.wh.…``: making one is EPERM, as in aufs, and none is shown. A name may be
251 bytes long, for its whiteout is four longer. An archive's own ``.wh.`` names are its marks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from stowage import Kind, Options, WhiteoutForm, effect, hookimpl

from ._union.driver import UnionDriver
from ._union.probe import Traits, filesystems


class AufsDriver(UnionDriver):
    """The union with the marks of aufs; see the module's docstring."""

    name: ClassVar[str] = "aufs"
    priority: ClassVar[int] = 5
    form: ClassVar[WhiteoutForm] = WhiteoutForm.OCI
    prefix: ClassVar[str] = "trusted.aufs."
    content: ClassVar[str] = "diff"

    def _notes(self, traits: Traits) -> tuple[str, ...]:
        own = "has an aufs of its own, which is left alone" if _in_kernel() else "has no aufs"
        return (*super()._notes(traits), f"this kernel {own}; the branches are carried by FUSE")

    @hookimpl
    def storage_prepare(
        self, directory: Path, parents: Sequence[Path], kind: Kind, options: Options
    ) -> None:
        super().storage_prepare(directory, parents, kind, options)
        with effect("aufs.layers", path=directory):
            (directory / "mnt").mkdir(mode=0o755)
            lines = "".join(f"{parent.name}\n" for parent in parents)
            (directory / "layers").write_text(lines)

    @hookimpl
    def storage_status(self) -> Mapping[str, str]:
        """Docker's keys, with its words."""
        dirs = sum(1 for path in self._root.glob("*/diff"))
        return {
            **super().storage_status(),
            "Dirs": str(dirs),
            "Dirperm1 Supported": "true",
            "Kernel aufs": "true" if _in_kernel() else "false",
        }


def _in_kernel() -> bool:
    return "aufs" in filesystems()
