"""A whole root copied to another file system: its containers start there as they were."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from stowage import Engine

pytestmark = pytest.mark.requires("containers", "ext4", "xfs", "busybox")


@pytest.mark.parametrize("driver", ["overlay", "vfs"])
def test_a_container_of_a_copied_root_starts_with_what_it_held(
    ext4_dir: Path, xfs_dir: Path, driver: str
) -> None:
    """Overlay's index refuses the copy (ESTALE); the core mounts it without, and records that."""
    from stowage.images.bootstrap import busybox

    with Engine(ext4_dir / "root", storage_driver=driver) as engine:
        busybox(engine.images)
        wrote = ["sh", "-c", "echo round >> /kept; cat /kept"]
        first = engine.run("busybox", wrote, name="box", network="none", remove=False)
    copy = xfs_dir / "root"
    subprocess.run(["cp", "-a", ext4_dir / "root", copy], check=True)
    with Engine(copy) as engine:
        for _ in range(2):
            engine.containers.start("box")
            assert engine.containers.wait("box", 30) == 0
        logged = b"".join(entry.text for entry in engine.containers.logs("box"))
        changed = [change.path for change in engine.diff("box")]
        findings = engine.layers.check(full=True)

    assert first.stdout == b"round\n"
    assert logged.count(b"round") == 2 + 3
    assert changed == [b"/kept"]
    assert findings == []
