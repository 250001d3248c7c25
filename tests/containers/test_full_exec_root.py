"""On an exec-root without a free byte the errors name the file, and why an exit code is unknown."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stowage.containers.bundle import write_named
from stowage.containers.finishing import MONITOR_LOST, _why_unknown
from stowage.linux.mount import syscall_mount, unmount


def test_a_file_that_cannot_be_written_is_named() -> None:
    """write(2) itself names none; /dev/full has no space ever (full(4))."""
    with pytest.raises(OSError, match="No space left") as caught:
        write_named(Path("/dev/full"), "text")
    assert caught.value.filename == "/dev/full"


@pytest.mark.requires_root
def test_an_exit_code_that_had_no_room_is_told_from_a_killed_monitor(shm_dir: Path) -> None:
    place = shm_dir / "exec"
    place.mkdir()
    context: Any = SimpleNamespace(bundles=place)
    syscall_mount("exec", place, "tmpfs", 0, "size=64k")
    try:
        assert _why_unknown(context) == MONITOR_LOST
        with pytest.raises(OSError, match="No space left"):
            (place / "fill").write_bytes(bytes(1 << 20))
        assert _why_unknown(context).endswith(f"no space left in {place}")
    finally:
        unmount(place)
