"""Where everything of a root lies; the only place that joins these paths.

::

    data_root/                mode 0700
      metadata.db             SQLite, WAL
      ballast                 given up so that a removal works on a full disk
      reserve                 room for the database's log there
      locks/<driver>-<id>     flock files: the lease of a snapshot
      storage/<driver>/<id>/  one snapshot's directory
      recipes/<hex>           recipe of the layer with the diffID sha256:<hex>
      trash/<driver>-<id>     removed, waiting for the reaper
      containers/<cid>/       what a container keeps
      volumes/<name>/_data    what a volume holds
    exec_root/                may be lost at any time
      <root-id>/              mnt/ (mount points), containers/<cid>/
"""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from ..effects import effect


class RootLayout(Struct, frozen=True):
    """The paths of one root; makes none of them until :meth:`create`."""

    data_root: Path
    exec_root: Path

    @classmethod
    def beneath(cls, root: Path) -> RootLayout:
        """Return the layout of ``--root DIR``: ``DIR/data`` and ``DIR/exec``."""
        return cls(root / "data", root / "exec")

    @property
    def metadata(self) -> Path:
        return self.data_root / "metadata.db"

    @property
    def locks(self) -> Path:
        return self.data_root / "locks"

    @property
    def storage(self) -> Path:
        return self.data_root / "storage"

    @property
    def recipes(self) -> Path:
        return self.data_root / "recipes"

    @property
    def trash(self) -> Path:
        return self.data_root / "trash"

    @property
    def containers(self) -> Path:
        return self.data_root / "containers"

    @property
    def volumes(self) -> Path:
        return self.data_root / "volumes"

    def volume(self, name: str) -> Path:
        """Return the directory of a volume; its content is :meth:`volume_data`."""
        return self.volumes / name

    def volume_data(self, name: str) -> Path:
        """Return the directory that containers see of a volume."""
        return self.volumes / name / "_data"

    def driver_root(self, driver: str) -> Path:
        """Return what the driver's instance is given as its root."""
        return self.storage / driver

    def snapshot(self, driver: str, number: int) -> Path:
        """Return the directory of the snapshot with that row number."""
        return self.storage / driver / str(number)

    def recipe(self, diff_id: str) -> Path:
        """Return where the recipe of a layer lies (*diff_id* is ``sha256:…``)."""
        return self.recipes / diff_id.removeprefix("sha256:")

    def running(self, root_id: str) -> Path:
        """Return the directory of this root below exec_root."""
        return self.exec_root / root_id

    def mount_points(self, root_id: str) -> Path:
        """Return the directory that holds the mount points made for users."""
        return self.running(root_id) / "mnt"

    def create(self) -> None:
        """Make the directories of data_root (0700) where they are missing. Idempotent."""
        if self.trash.is_dir():  # the last one made: the others are there
            return
        with effect("root.create", path=self.data_root):
            self.data_root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.data_root.chmod(0o700)
            for directory in (
                self.locks,
                self.storage,
                self.recipes,
                self.containers,
                self.volumes,
                self.trash,
            ):
                directory.mkdir(mode=0o700, exist_ok=True)
