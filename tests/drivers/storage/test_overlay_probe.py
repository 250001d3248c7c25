"""The probe of overlay: it says what is missing and what would help, and leaves no trace."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from stowage.effects import observe
from stowage.linux.mount import attach, move, unmount
from stowage.linux.namespaces import CLONE_NEWNS, CLONE_NEWUSER, unshare
from stowage.model import DirectoryOption, Mount
from stowage_drivers.storage import _overlay_probe

pytestmark = pytest.mark.requires_root


def tree(root: Path) -> list[Path]:
    return sorted(root.rglob("*"))


def test_it_works_and_claims_what_the_place_gives(disk_dir: Path, tools: Any) -> None:
    probe = tools.rig("overlay", disk_dir).driver.storage_probe()

    assert probe.ok
    assert probe.capabilities.native_diff
    assert probe.capabilities.host_root
    assert probe.capabilities.max_depth >= 400
    assert probe.capabilities.reflink == (disk_dir.parent.name in ("xfs", "btrfs"))
    assert any("index on" in note for note in probe.notes)


def test_it_leaves_no_trace(disk_dir: Path, tools: Any) -> None:
    rig = tools.rig("overlay", disk_dir)
    mounts = Path("/proc/self/mountinfo").read_bytes()

    rig.driver.storage_probe()

    assert tree(disk_dir) == []
    assert Path("/proc/self/mountinfo").read_bytes() == mounts


def test_a_root_that_does_not_exist_yet_is_not_made(shm_dir: Path, tools: Any) -> None:
    rig = tools.rig("overlay", shm_dir / "not" / "yet")
    rig.root.rmdir()
    rig.root.parent.rmdir()

    assert rig.driver.storage_probe().ok
    assert tree(shm_dir) == []


def test_an_overlay_is_no_place_for_an_upper_directory(shm_dir: Path, tools: Any) -> None:
    for name in ("lower", "upper", "work", "merged"):
        (shm_dir / name).mkdir()
    below = attach(
        Mount(
            "overlay",
            "overlay",
            tuple(
                DirectoryOption(key, shm_dir / name)
                for key, name in (
                    ("lowerdir+", "lower"),
                    ("upperdir", "upper"),
                    ("workdir", "work"),
                )
            ),
        )
    )
    move(below, shm_dir / "merged")
    os.close(below)
    try:
        (finding,) = tools.rig("overlay", shm_dir / "merged").driver.storage_probe().findings
        left = os.listdir(shm_dir / "merged")
    finally:
        unmount(shm_dir / "merged")

    assert "overlayfs" in finding.reason
    assert "ext4" in finding.remedy
    assert left == []


def test_without_root_it_names_what_is_missing(shm_dir: Path, tools: Any) -> None:
    theirs, ours = shm_dir / "theirs", shm_dir / "ours"
    rigs = [tools.rig("overlay", place) for place in (theirs, ours)]
    os.chown(theirs, 65534, 65534)
    for above in (shm_dir, *shm_dir.parents):
        above.chmod(above.stat().st_mode | 0o011)

    probes = tools.in_child(
        lambda: [rig.driver.storage_probe() for rig in rigs], tools.become_nobody
    )

    assert [len(probe.findings) for probe in probes] == [1, 1]
    assert "CAP_SYS_ADMIN" in probes[0].findings[0].reason
    assert "not root" in probes[1].findings[0].reason
    assert all("root" in probe.findings[0].remedy for probe in probes)
    assert tree(shm_dir) == [ours, theirs]


@pytest.mark.requires("userns")
def test_in_a_user_namespace_the_marks_are_user_xattrs(ext4_dir: Path, tools: Any) -> None:
    rig = tools.rig("overlay", ext4_dir)

    def enter() -> None:
        uid, gid = os.geteuid(), os.getegid()
        unshare(CLONE_NEWUSER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
        unshare(CLONE_NEWNS)

    def work() -> tuple[Any, str, list[str], list[str]]:
        probe = rig.driver.storage_probe()
        child = rig.prepare(rig.layer((), f="x", g="y"))
        with rig.open(child) as root:
            os.unlink("f", dir_fd=root)
            left = os.listdir(root)
        tree = rig.driver.storage_diff_tree(child.directory, child.parents)
        return probe, tree.xattr_prefix, left, os.listdir(child.directory / "fs")

    probe, prefix, left, upper = tools.in_child(work, enter)

    assert probe.ok
    assert prefix == "user.overlay."
    assert left == ["g"]
    assert upper == ["f"]


def test_a_form_that_the_kernel_does_not_know_is_named(
    shm_dir: Path, tools: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Linux before 6.8: only mount(2) with one page of options works."""

    def old_kernel(mount: Mount) -> int:
        if not mount.monolithic:
            raise OSError(22, "lowerdir+: Invalid argument")
        return attach(mount)

    monkeypatch.setattr(_overlay_probe, "attach", old_kernel)
    forced = tools.rig("overlay", shm_dir, "mount_form=descriptor").driver.storage_probe()
    chosen = tools.rig("overlay", shm_dir).driver.storage_probe()

    assert "mount_form=descriptor" in forced.findings[0].reason
    assert "auto" in forced.findings[0].remedy
    assert "monolithic" in chosen.notes[0]


@pytest.mark.parametrize(
    ("number", "reason"),
    [(19, "does not know overlay"), (1, "CAP_SYS_ADMIN"), (5, "does not mount on tmpfs")],
)
def test_each_refusal_of_the_kernel_has_its_reason(
    shm_dir: Path, tools: Any, monkeypatch: pytest.MonkeyPatch, number: int, reason: str
) -> None:
    def refuse(mount: Mount) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(_overlay_probe, "attach", refuse)
    (finding,) = tools.rig("overlay", shm_dir).driver.storage_probe().findings

    assert reason in finding.reason
    assert finding.remedy
    assert tree(shm_dir) == []


def test_a_directory_without_file_types_is_found_out(
    shm_dir: Path, tools: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What xfs with ftype=0 does; no kernel of today makes one."""

    class Untyped:
        def is_file(self, *, follow_symlinks: bool) -> bool:
            return False

    original = _overlay_probe._try_in
    monkeypatch.setattr(
        _overlay_probe, "_try_in", lambda *given: ([Untyped()], original(*given)[1])
    )
    (finding,) = tools.rig("overlay", shm_dir).driver.storage_probe().findings

    assert "d_type" in finding.reason
    assert "ftype=1" in finding.remedy


def test_index_on_is_refused_where_there_is_none(
    shm_dir: Path, tools: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        _overlay_probe,
        "attach",
        lambda mount: attach(
            Mount(
                mount.type,
                mount.source,
                tuple("index=off" if option == "index=on" else option for option in mount.options),
                mount.directory,
            )
        ),
    )
    (finding,) = tools.rig("overlay", shm_dir, "index=on").driver.storage_probe().findings
    fallen_back = tools.rig("overlay", shm_dir).driver.storage_probe()

    assert "index=on" in finding.reason
    assert not fallen_back.capabilities.exclusive_upper
    assert not fallen_back.capabilities.hardlinks_kept


@pytest.mark.parametrize("driver", ["overlay", "vfs"])
def test_a_failure_at_any_step_is_a_finding_and_leaves_no_trace(
    shm_dir: Path, tools: Any, driver: str
) -> None:
    """But for the steps that remove: what they leave, recovery takes."""
    names: list[str] = []
    failing = -1

    @contextmanager
    def around(name: str, facts: dict[str, object]) -> Iterator[None]:
        names.append(name)
        if len(names) - 1 == failing:
            raise OSError(5, "injected")
        yield

    remove = observe(around)
    try:
        assert tools.rig(driver, shm_dir).driver.storage_probe().ok
        steps = list(names)
        assert len(steps) > 5
        for failing, step in enumerate(steps):  # read by the observer
            names.clear()
            rig = tools.rig(driver, shm_dir)
            before = os.listdir("/proc/self/fd")
            probe = rig.driver.storage_probe()
            assert os.listdir("/proc/self/fd") == before
            if step in ("file.unlink", "directory.remove"):
                failing = len(steps) + 1000  # recovery itself is left alone
                rig.driver.storage_recover([])
            assert tree(shm_dir) == [], step
            assert probe.ok or "injected" in probe.findings[0].reason, (step, probe)
    finally:
        remove()
