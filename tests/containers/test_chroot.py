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
    run run -d --name one --network none busybox sh -c "echo from within; exec sleep 100" \\
        >/dev/null
    run exec one sh -c "cat /proc/1/comm; touch /new; ls /etc/debian_version" || :
    run logs one
    run diff one
    run run --rm --network none busybox echo in the foreground
    run rm -f one
' sh "$2" "$3" "$4"
"""


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_a_container_starts_from_within_a_chroot(
    tmp_path: Path, shm_dir: Path, runtime: str
) -> None:
    """Its namespace begins at our ``/``: neither the container nor an exec in it, nor a look at
    its root, ever meets the machine's."""
    chroot, root = tmp_path / "chroot", shm_dir / "r"
    chroot.mkdir()

    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", SCRIPT, "sh", chroot, sys.executable, root, runtime],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    expected = ["sleep", "from within", "A /new", "in the foreground", "one"]
    assert done.stdout.splitlines() == expected, done.stderr
    assert "/etc/debian_version: No such file" in done.stderr
