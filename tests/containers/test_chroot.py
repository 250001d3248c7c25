"""Containers run from within a chroot, as on a build machine or in an installer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.requires("containers", "conmon", "busybox", "overlay")

SCRIPT = """
set -e
mount --rbind / "$1"
cd /
exec chroot "$1" sh -ec '
    python=$1 root=$2 runtime=$3
    run() { "$python" -m stowage --root "$root" --default-runtime "$runtime" "$@"; }
    run bootstrap busybox >/dev/null
    run run -d --name one --network none busybox sh -c "echo from within; exit 3" >/dev/null
    run wait one
    run logs one
    run run --rm --network none busybox echo in the foreground
    run rm one
' sh "$2" "$3" "$4"
"""


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_a_container_starts_from_within_a_chroot(
    tmp_path: Path, shm_dir: Path, runtime: str
) -> None:
    """The namespace that has its root is entered at our ``/``, not at the machine's."""
    chroot, root = tmp_path / "chroot", shm_dir / "r"
    chroot.mkdir()

    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", SCRIPT, "sh", chroot, sys.executable, root, runtime],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.stdout.splitlines() == ["3", "from within", "in the foreground", "one"], done.stderr
