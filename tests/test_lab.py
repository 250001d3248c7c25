"""The lab that every test runs in: it isolates, it gives disks, and it notices what is left."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from stowage.linux.cgroups import Cgroup
from stowage.linux.mount import syscall_mount, unmount
from stowage.store.metastore import Metastore
from stowage.testing.abilities import known, missing
from stowage.testing.lab import Lab
from stowage.testing.leaks import leaked, picture, remember_roots

pytest_plugins = ["pytester"]


@pytest.mark.requires_root
def test_the_lab_has_no_link_but_lo() -> None:
    """A test that reaches for the network finds nothing there."""
    assert [name for _, name in socket.if_nameindex()] == ["lo"]


@pytest.mark.requires_root
def test_lo_is_up_in_the_lab() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()


@pytest.mark.requires_root
def test_child_processes_are_in_the_lab_too() -> None:
    seen = subprocess.run(
        ["readlink", "/proc/self/ns/net"], capture_output=True, text=True, check=True
    )

    assert seen.stdout.strip() == os.readlink("/proc/self/ns/net")


@pytest.mark.requires_root
def test_temporary_directories_are_on_the_tmpfs_of_the_lab(tmp_path: Path, lab: Lab) -> None:
    assert tmp_path.is_relative_to(lab.directory)
    assert os.stat(tmp_path).st_dev == os.stat(lab.directory).st_dev


@pytest.mark.requires_root
def test_a_disk_is_of_the_kind_asked_for(disk_dir: Path, request: pytest.FixtureRequest) -> None:
    """Each file system can be written to, and says its own type."""
    (disk_dir / "file").write_bytes(b"x")

    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", disk_dir], capture_output=True, text=True, check=True
    ).stdout.strip()
    expected = request.node.callspec.params["disk_dir"]
    assert {"ext2/ext3": "ext4"}.get(kind, kind) == expected


@pytest.mark.requires_root
def test_a_mount_left_behind_is_noticed(tmp_path: Path, lab: Lab) -> None:
    before = picture(lab)
    syscall_mount("left", tmp_path, "tmpfs", 0)
    try:
        left = leaked(before, picture(lab))
    finally:
        unmount(tmp_path)

    assert [line.split(" (")[0] for line in left] == [f"mount: {tmp_path}"]
    assert leaked(before, picture(lab)) == []


@pytest.mark.requires("loop")
def test_a_loop_device_left_behind_is_noticed(tmp_path: Path, lab: Lab) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(1 << 20))
    before = picture(lab)
    device = subprocess.run(
        ["losetup", "--find", "--show", image], capture_output=True, text=True, check=True
    ).stdout.strip()
    try:
        left = leaked(before, picture(lab))
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)

    assert [line.split(" over ")[0] for line in left] == [f"loop device: {device}"]


def test_a_process_left_behind_is_noticed_even_when_orphaned(lab: Lab) -> None:
    """A daemon whose parent is gone is found by the marker in its environment."""
    before = picture(lab)
    started = subprocess.run(
        ["sh", "-c", "sleep 300 >/dev/null 2>&1 & echo $!"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    pid = int(started.stdout)
    try:
        left = leaked(before, picture(lab))
    finally:
        os.kill(pid, 9)

    assert left == [f"process: {pid} (sleep 300)"]


def test_a_descriptor_left_behind_is_noticed(tmp_path: Path, lab: Lab) -> None:
    before = picture(lab)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        left = leaked(before, picture(lab))
    finally:
        os.close(descriptor)

    assert [line.split(": ")[0] for line in left] == ["descriptor"]


def test_every_ability_is_there_or_says_why_not() -> None:
    """The reason names the thing; on a machine that has all, there is none."""
    for ability in known():
        reason = missing(ability)
        assert reason is None or len(reason) > 5


def test_a_skip_without_an_accepted_reason_fails_where_containers_run(
    pytester: pytest.Pytester,
) -> None:
    """A test may not excuse itself on a machine that could run it."""
    if missing("containers"):
        pytest.skip(f"needs containers: {missing('containers')}")
    conftest = Path(__file__).with_name("conftest.py").read_text()
    pytester.makeconftest(conftest)
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize(
            "reason", ["later", "needs zfs: not here", "kernel 6.1 lacks lowerdir+"]
        )
        def test_it(reason):
            pytest.skip(reason)
        """
    )

    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")

    result.assert_outcomes(failed=1, skipped=2)
    result.stdout.fnmatch_lines(["*may not skip on this machine (Skipped: later)*"])


@pytest.mark.requires("cgroups")
def test_a_cgroup_left_behind_is_noticed_though_its_root_is_gone(shm_dir: Path, lab: Lab) -> None:
    root = shm_dir / "data"
    root.mkdir()
    metastore = Metastore(root / "metadata.db")
    left_behind = Cgroup(f"/stowage/{metastore.root_id}/left")
    metastore.close()
    remember_roots(lab, shm_dir)
    shutil.rmtree(root)
    before = picture(lab)
    left_behind.make()
    try:
        left = leaked(before, picture(lab))
    finally:
        left_behind.remove()

    assert {line.split(": ")[0] for line in left} == {"cgroup"}
    assert leaked(before, picture(lab)) == []
